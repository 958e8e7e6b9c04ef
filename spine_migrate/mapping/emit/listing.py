"""What a mapping compiles to, as SQL for people: one expression per line."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from spine_migrate.mapping.bind import Binding, declared_target
from spine_migrate.mapping.emit.parity import parity
from spine_migrate.mapping.emit.sql import forward, inverse, is_ours, judgements
from spine_migrate.mapping.transforms.base import Sql


def _text(part: Sql) -> str:
    return part.as_string(None)


def _select(columns: dict[str, Sql], table: sql.Identifier, alias: str) -> str:
    lines = ",\n".join(f"    {_text(value)} AS {_text(sql.Identifier(name))}" for name, value in columns.items())
    return f"SELECT\n{lines}\nFROM {_text(table)} AS {alias}"


def _forward(binding: Binding) -> str:
    return f"{_select(forward(binding, 's'), binding.source.identifier, 's')};"


def _judge(binding: Binding) -> str:
    lines = [
        f"        WHEN {_text(one.refusal.condition)}\n            THEN {_text(sql.Literal(one.refusal.reason))}"
        f" -- {' '.join(one.field.rule.split())}"
        for one in judgements(binding, "s")
    ]
    key = _text(sql.Identifier("s", binding.mapping.key))
    case = "\n".join(["CASE", *lines, "    END"]) if lines else "NULL::text"
    return f"SELECT\n    {key},\n    {case} AS reason\nFROM {_text(binding.source.identifier)} AS s;"


def _inverse(binding: Binding) -> str:
    ours = _text(is_ours(binding, "t"))
    return f"{_select(inverse(binding, 't'), binding.target.identifier, 't')}\nWHERE {ours};"


def _parity(binding: Binding) -> str:
    """The checks one by one, then the statement that makes them all in one pass."""
    compiled = parity(binding, declared_target(binding.mapping))
    lines = [f"-- {' '.join(check.name.split())}: {_text(check.differs)}" for check in compiled.checks]
    return "\n".join([*lines, f"{_text(compiled.suspects())};"])


FORMS: dict[str, Callable[[Binding], str]] = {
    "forward": _forward,
    "judge": _judge,
    "inverse": _inverse,
    "parity": _parity,
}
