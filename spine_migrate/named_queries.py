"""Named queries: static SQL kept in ``.sql`` files, in the folder ``sql`` of the package that runs it.

A file holds blocks that start with ``-- name: some_name`` and a comment line that describes the query; what follows, up
to the next such line, is its text. Parameters are psycopg's ``%(name)s``.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (?P<name>[a-z_]+)\n", re.MULTILINE)


@cache
def load(package: str, module: str) -> dict[str, LiteralString]:
    """All queries of a package's ``sql/<module>.sql`` by name. Raises KeyError on a name that stands twice."""
    parts = _NAME.split((files(package) / "sql" / f"{module}.sql").read_text(encoding="utf-8"))
    queries: dict[str, LiteralString] = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        if name in queries:
            raise KeyError(f"{package}/sql/{module}.sql names {name} twice")
        queries[name] = cast("LiteralString", text.strip())
    return queries
