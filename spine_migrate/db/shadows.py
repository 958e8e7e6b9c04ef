"""What the shims' mode ``shadow`` has compared: its events, as the tool reads them. ``spine_shims.shadowing`` writes
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.db.connect import Connection
from spine_migrate.named_queries import load


@dataclass(frozen=True)
class Place:
    """A JSON path, for all items of an array, or how an error differs; ``count`` comparisons differ there."""

    path: str
    count: int


@dataclass(frozen=True)
class Shadowed:
    """Comparisons of one task. ``unknown`` came to nothing: a result was no JSON. Of one mismatch up to 20 places are
    known.
    """

    task: str
    matches: int
    mismatches: int
    unknown: int
    first_seen: datetime
    last_seen: datetime
    places: tuple[Place, ...] = ()


def shadowed(
    connection: Connection, schema: str, tasks: Sequence[str] = (), since: datetime | None = None
) -> list[Shadowed]:
    """By task; of all tasks where none is named. ``schema`` has ``runs`` and ``run_events``, whose events are all read:
    there is no index for a single type.
    """
    values = {"tasks": list(tasks) or None, "since": since}
    with connection.transaction(), connection.cursor(row_factory=class_row(Shadowed)) as cursor:
        found = cursor.execute(_query(schema, "shadows"), values).fetchall()
        rows: psycopg.Cursor[Any] = connection.execute(_query(schema, "places"), values)
        places: dict[str, list[Place]] = {}
        for task, path, count in rows:
            places.setdefault(task, []).append(Place(path, count))
    return [replace(one, places=tuple(places.get(one.task, ()))) for one in found]


def _query(schema: str, name: str) -> sql.Composed:
    escaped = schema.replace("%", "%%")
    text = load("spine_migrate.db", "shadows")[name]
    return sql.SQL(text).format(runs=sql.Identifier(escaped, "runs"), run_events=sql.Identifier(escaped, "run_events"))
