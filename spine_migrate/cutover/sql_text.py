"""SQL as text, of functions and of statements that the server remembers: what of it no view takes.

A search, not a parser: it goes by words, statement by statement, and rather names one too many. What a program puts
together while it runs, it cannot see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Shape:
    """``pattern`` has ``@`` where the table's name stands; ``remedy`` is what can be written in its place. Servers from
    version ``until`` on take it.
    """

    name: str
    pattern: str
    breaks: str
    remedy: str
    until: int | None = None


SHAPES = (
    Shape(
        "ON CONFLICT",
        r"\binsert\s+into\s+@.*\bon\s+conflict\b",
        "For a view with INSTEAD OF triggers ON CONFLICT (...) is refused, and a bare ON CONFLICT DO NOTHING is"
        " ignored, so that the conflict is an error (23505).",
        "Catch the unique violation (23505) and UPDATE, or write to the target table.",
    ),
    Shape(
        "MERGE",
        r"\bmerge\s+into\s+(only\s+)?@",
        "MERGE into a view with triggers is refused before PostgreSQL 17.",
        "Write an UPDATE and an INSERT.",
        until=170_000,
    ),
    Shape(
        "TRUNCATE",
        r"\btruncate\s+(table\s+)?(only\s+)?([^;]*,\s*)?@",
        "A view cannot be truncated.",
        "DELETE FROM it.",
    ),
    Shape(
        "COPY TO",
        r"\bcopy\s+@\s*(\([^)]*\)\s*)?to\b",
        "COPY of a view TO somewhere is refused.",
        "COPY (SELECT ... FROM it) TO.",
    ),
    Shape(
        "WHERE CURRENT OF",
        r"\b(update|delete\s+from)\s+(only\s+)?@.*\bwhere\s+current\s+of\b",
        "WHERE CURRENT OF is refused for a view.",
        "Go by the key.",
    ),
    Shape(
        "TABLESAMPLE",
        r"@[^;]*\btablesample\b",
        "TABLESAMPLE is refused for a view.",
        "Sample the target table.",
    ),
    Shape(
        "system column",
        r"\b(ctid|xmin|xmax|cmin|cmax|tableoid)\b",
        "A view has no system columns.",
        "Go by the key, and by a column that changes.",
    ),
    Shape(
        "serial sequence",
        r"\bpg_get_serial_sequence\s*\(\s*'[^']*@[^']*'",
        "No sequence belongs to a view's column, so this gives NULL.",
        "Name the sequence, or use RETURNING.",
    ),
    Shape(
        "IN (... LIMIT ... FOR UPDATE)",
        r"\bin\s*\(\s*select\b[^;]*@[^;]*\blimit\b[^;]*\bfor\s+(no\s+key\s+)?update\b",
        "The planner may run this sub-select once for each row of the view, and lock and take more than its LIMIT.",
        "Write = (SELECT ...) for one row, = ANY (ARRAY(SELECT ...)) for several; those are run once.",
    ),
    Shape(
        "DDL",
        r"\b(alter|drop|comment\s+on|cluster|reindex)\s+table\s+(if\s+exists\s+)?(only\s+)?@"
        r"|\bcreate\s+(unique\s+)?index\b.*\bon\s+(only\s+)?@|\bcreate\s+trigger\b.*\bon\s+@",
        "It changes a table, and there is a view by that name.",
        "Change the target by a revision of its schema.",
    ),
)  # fmt: skip


def mentions(text: str, schema: str, table: str) -> bool:
    return re.search(_bounded(schema, table), _plain(text), re.IGNORECASE) is not None


def broken(text: str, schema: str, table: str, server_version: int) -> Iterator[Shape]:
    """What stands in statements that have the table's name in them, each shape once; ``server_version`` as in
    server_version_num.
    """
    statements = [one for one in _plain(text).split(";") if mentions(one, schema, table)]
    for shape in SHAPES:
        if shape.until is not None and server_version >= shape.until:
            continue
        pattern = _compiled(shape.pattern, schema, table)
        if any(pattern.search(one) for one in statements):
            yield shape


def _plain(text: str) -> str:
    return _COMMENT.sub(" ", text)


def _name(schema: str, table: str) -> str:
    """A table's name as it may be written: with or without its schema, with or without quotes."""

    def word(name: str) -> str:
        return rf'(?:"{re.escape(name)}"|{re.escape(name)})'

    return rf"(?:{word(schema)}\s*\.\s*)?{word(table)}"


@cache
def _compiled(pattern: str, schema: str, table: str) -> re.Pattern[str]:
    return re.compile(pattern.replace("@", _bounded(schema, table)), re.IGNORECASE | re.DOTALL)


def _bounded(schema: str, table: str) -> str:
    return rf"(?<![\w$])(?:{_name(schema, table)})(?![\w$])"
