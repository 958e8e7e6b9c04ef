"""The statements a mapping compiles to, as steps of a plan: what is judged and what is inserted."""

from __future__ import annotations

from psycopg import sql

from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import forward, judgements, verdict
from spine_migrate.plan.model import Step


def own_steps(binding: Binding) -> list[Step]:
    """Judge and forward over the whole source; an engine runs the same over parts of it."""
    columns = forward(binding, "s")
    judge = sql.SQL("SELECT {} AS reason FROM {} AS s").format(
        verdict(list(judgements(binding, "s")), "reason"), binding.source.identifier
    )
    insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} AS s").format(
        binding.target.identifier,
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(columns.values()),
        binding.source.identifier,
    )
    return [
        Step("Judge the rows", judge.as_string(None), f"ACCESS SHARE on {binding.source}"),
        Step(
            "Move the rows that pass",
            insert.as_string(None),
            f"ACCESS SHARE on {binding.source}, ROW EXCLUSIVE on {binding.target}",
        ),
    ]
