"""Names of tables as a user types them: as in SQL."""

from __future__ import annotations

import re

import click

_PART = r'"(?:[^"]|"")+"|[^".=\s]+'
_NAME = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<table>{_PART})")
_RENAMED = re.compile(rf"(?P<old>(?:(?:{_PART})\.)?(?:{_PART}))=(?P<new>{_PART})")


def name(text: str) -> tuple[str | None, str]:
    """Schema, if one is given, and table. Outside of double quotes letters become small, as in SQL (PostgreSQL manual,
    4.1.1). Raises click.BadParameter.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no name of a table; write table, schema.table or '\"A table\"'.")
    schema = found["schema"]
    return (None if schema is None else _plain(schema)), _plain(found["table"])


def renamed(text: str) -> tuple[tuple[str | None, str], str]:
    """``OLD=NEW``: a name as above, and a table's name alone. Raises click.BadParameter."""
    found = _RENAMED.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not OLD=NEW, such as executions=executions_2026.")
    return name(found["old"]), _plain(found["new"])


def _plain(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part.lower()
