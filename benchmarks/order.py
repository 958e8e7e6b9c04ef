"""Why the backfill reads in physical order: batches by blocks beside batches by key, on keys that are random."""

from __future__ import annotations

from psycopg import sql

from benchmarks.history import EXECUTIONS, History, history
from benchmarks.rounds import Side, compare
from benchmarks.setup import Setup
from spine_migrate.carry.tables import find_tables
from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.load import load

_ROWS = 20_000


def order(setup: Setup) -> None:
    with setup.server() as server:
        clean = history(server, executions=setup.rows)
        print(f"{setup.rows:,} executions, batches of about {_ROWS:,}, INSERT ... SELECT alone, links left out")
        sides = {
            "one statement": Side(clean.empty_target, lambda: _whole(clean)),
            "by blocks": Side(clean.empty_target, lambda: _by_blocks(clean)),
            "by key": Side(clean.empty_target, lambda: _by_key(clean)),
        }
        compare(setup.alternate(sides), "one statement", rows=setup.rows)


def _insert(connection: Connection) -> sql.Composed:
    binding = find_tables(connection, load(EXECUTIONS), source_schema=None, target_schema=None).binding
    links = {field.target for field in binding.mapping.links}
    values = {name: value for name, value in forward(binding, "s").items() if name not in links}
    return sql.SQL("INSERT INTO public.runs ({}) SELECT {} FROM public.executions AS s").format(
        sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(values.values())
    )


def _whole(clean: History) -> None:
    with clean.connect() as connection:
        execute(connection, _insert(connection))


def _by_blocks(clean: History) -> None:
    with clean.connect() as connection:
        ((blocks, rows),) = connection.execute(
            "SELECT pg_relation_size('public.executions') / 8192, count(*) FROM public.executions"
        ).fetchall()
        step = max(1, blocks * _ROWS // rows)
        batch = _insert(connection) + sql.SQL(" WHERE s.ctid >= $1::tid AND s.ctid < $2::tid")
        for block in range(0, blocks, step):
            execute(connection, batch, f"({block},0)", f"({block + step},0)")


def _by_key(clean: History) -> None:
    with clean.connect() as connection:
        batch = _insert(connection) + sql.SQL(" WHERE s.execution_id > $1::uuid AND s.execution_id <= $2::uuid")
        end = sql.SQL(
            "SELECT execution_id FROM public.executions WHERE execution_id > $1::uuid"
            " ORDER BY execution_id OFFSET $2 LIMIT 1"
        )
        after, last = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
        while after != last:
            found = execute(connection, end, after, _ROWS - 1).fetchone()
            up_to = str(found[0]) if found else last
            execute(connection, batch, after, up_to)
            after = up_to
