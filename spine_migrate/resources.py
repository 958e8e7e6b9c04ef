"""Where the files that ship beside the code are: the mappings and the Alembic revisions."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    """The wheel carries the folder inside the package; a checkout has it at its top level."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def mappings_dir() -> Path:
    return _shipped("mappings")


def alembic_dir() -> Path:
    return _shipped("alembic")
