"""Tables as files that need nothing but PostgreSQL and gzip to be read again.

An archive is a directory: gzip files in COPY's text format, ``schema.sql`` for psql, and ``manifest.json`` with counts
and SHA-256 of everything. It is as trustworthy as the place where it lies: its digests show damage, not who wrote it,
and a restore runs the definitions in it.
"""

from __future__ import annotations

from spine_migrate.cutover.archive.create import write

__all__ = ["write"]
