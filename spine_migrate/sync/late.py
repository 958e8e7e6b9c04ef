"""Rows that cannot be applied yet, on record in ``spine_migrate.pending``: tried again, the least tried first."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from spine_migrate.carry.statements import Found
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query


def put_off(connection: Connection, capture_id: int, late: Mapping[str, Found], untried: Collection[str]) -> int:
    """``late`` rows were refused, each for its reason; ``untried`` ones wait behind them. Their number."""
    if late:
        details = [found.in_short for found in late.values()]
        values = {"capture_id": capture_id, "keys": list(late), "details": details}
        connection.execute(query("capture", "put_off"), values)
    if untried:
        connection.execute(query("capture", "put_aside"), {"capture_id": capture_id, "keys": list(untried)})
    return len(late) + len(untried)
