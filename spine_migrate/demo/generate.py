"""Fill a database with a capture-spine history that is the same for the same arguments, on every server version.

Ordinary rows are made on the server in one statement per table (``spine_migrate.demo.ordinary``); the awkward rows
(``spine_migrate.demo.awkward``) are made here and sent by COPY. Every awkward row stands in
``spine_demo.awkward_row(kind, entity, source_key, fate)`` of the same database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from spine_migrate.demo import unremarkable
from spine_migrate.demo.awkward import Placed, followers, hosts, place
from spine_migrate.demo.kind import Draw, Values
from spine_migrate.demo.ordinary import Shape, insert_ordinary_rows, statement
from spine_migrate.errors import ConfigurationError


@dataclass(frozen=True)
class Generated:
    """Rows in each table, awkward ones included, and the source keys (text) of each awkward kind."""

    executions: int
    execution_events: int
    jobs: int
    awkward: dict[str, list[str]]


def create_legacy(connection: psycopg.Connection[Any], *, schema: str = "public") -> None:
    """Create capture-spine's legacy tables, empty, in ``schema`` (created if absent), in one transaction.

    Raises psycopg.errors.DuplicateTable where one of them is there already.
    """
    with connection.transaction(), _searching(connection, schema):
        connection.execute(statement("legacy"))


def generate(
    connection: psycopg.Connection[Any],
    *,
    executions: int,
    events_per_execution: float = 4,
    jobs: int,
    seed: int,
    awkward: float = 1.0,
    schema: str = "public",
) -> Generated:
    """Create the legacy tables in ``schema`` and fill them, in one transaction.

    ``executions`` and ``jobs`` are the rows of each table, awkward ones included; a table too small for one of each
    awkward kind gets one of each all the same, an empty one stays empty. ``events_per_execution`` is an average.
    ``awkward`` scales the number of awkward rows: 0 for none, 1.0 for about one in a hundred. Raises ConfigurationError
    on a negative number, and psycopg.errors.DuplicateTable where one of the tables is there already.
    """
    for name, value in (
        ("executions", executions), ("events_per_execution", events_per_execution), ("jobs", jobs), ("awkward", awkward)
    ):  # fmt: skip
        if value < 0:
            raise ConfigurationError(f"{name} is {value}; give 0 or more.")
    draw = Draw(seed)
    odd_executions = place("executions", draw, executions, awkward)
    odd_events = place("execution_events", draw, round(executions * events_per_execution), awkward)
    odd_jobs = place("jobs", draw, jobs, awkward)
    lives = {row.key: unremarkable.life(draw, row.key) for row in odd_executions} if events_per_execution else {}
    shape = Shape(max(0, executions - len(odd_executions)), max(0, jobs - len(odd_jobs)))
    tables, constraints = statement("legacy").split("-- name: constraints\n")
    with connection.transaction(), _searching(connection, schema):
        connection.execute(tables)
        connection.execute(statement("ledger"))
        insert_ordinary_rows(connection, draw, shape, events_per_execution)
        executions_made = (unremarkable.execution(draw, row.key, row.values) for row in odd_executions)
        _copy(connection, "executions", unremarkable.EXECUTION_COLUMNS, executions_made)
        events_made = chain(_event_rows(draw, shape, hosts(odd_executions), odd_events), *lives.values())
        _copy(connection, "execution_events", unremarkable.EVENT_COLUMNS, events_made)
        jobs_made = (unremarkable.job(draw, row.key, row.values) for row in odd_jobs)
        _copy(connection, "jobs", unremarkable.JOB_COLUMNS, jobs_made)
        connection.execute(constraints)
        awkward_rows = [*odd_executions, *odd_events, *followers(odd_executions, lives), *odd_jobs]
        _record(connection, awkward_rows)
        connection.execute(statement("after_load"))
        with connection.cursor(row_factory=dict_row) as cursor:
            counts = cursor.execute(statement("counts")).fetchall()[0]
    keys: dict[str, list[str]] = {}
    for row in awkward_rows:
        keys.setdefault(row.kind, []).append(row.key)
    return Generated(**counts, awkward=keys)


@contextmanager
def _searching(connection: psycopg.Connection[Any], schema: str) -> Iterator[None]:
    """Create ``schema`` if absent; unqualified names mean it inside the block, which is in a transaction."""
    before = connection.execute("SELECT current_setting('search_path')").fetchone()
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    connection.execute("SELECT set_config('search_path', %s, true)", [sql.Identifier(schema).as_string(connection)])
    yield
    connection.execute("SELECT set_config('search_path', %s, true)", before)


def _event_rows(draw: Draw, shape: Shape, awkward_hosts: Sequence[str], events: Sequence[Placed]) -> Iterator[Values]:
    """Each awkward event with its execution: an ordinary one, or an awkward one where there is no other."""
    for n, row in enumerate(events):
        if shape.executions:
            host, at = shape.ended_execution(draw, n)
        else:
            host, at = awkward_hosts[n % len(awkward_hosts)], datetime(2020, 2, 29, 12, 0, 1, tzinfo=UTC)
        yield unremarkable.event(host, at, row.values)


def _copy(connection: psycopg.Connection[Any], table: str, columns: Sequence[str], rows: Iterable[Values]) -> None:
    target = sql.Identifier(*table.split("."))
    command = sql.SQL("COPY {} ({}) FROM STDIN").format(target, sql.SQL(", ").join(map(sql.Identifier, columns)))
    with connection.cursor() as cursor, cursor.copy(command) as copy:
        for row in rows:
            copy.write_row([row.get(column) for column in columns])


def _record(connection: psycopg.Connection[Any], rows: Iterable[Placed]) -> None:
    values = ({"kind": row.kind, "entity": row.entity, "source_key": row.key, "fate": row.fate} for row in rows)
    _copy(connection, "spine_demo.awkward_row", ("kind", "entity", "source_key", "fate"), values)
