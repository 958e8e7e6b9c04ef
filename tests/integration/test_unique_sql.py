"""The collision queries against the server itself: the oracle inserts row by row and sees which ones it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors, sql

from spine_migrate.db import catalog, schema
from spine_migrate.db.catalog import UniqueIndex
from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.raw import execute, rows
from spine_migrate.db.row_shape import Filled, row_shape
from spine_migrate.demo.generate import create_legacy
from spine_migrate.mapping.bind import Binding, bind
from spine_migrate.mapping.emit import unique
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.load import load
from tests.database import Database

_TABLE = sql.SQL("executions AS s")
_ALL = sql.SQL("true")
_FEED = "f0000000-0000-0000-0000-00000000000"


def _tables(url: str) -> None:
    schema.upgrade(url)
    with connect(url) as opened:
        create_legacy(opened)
        opened.execute("DROP INDEX ix_executions_one_active_per_feed")
        opened.execute("ALTER TABLE runs DROP CONSTRAINT uq_idempotency")
        opened.execute("DROP INDEX ix_runs_one_active_per_entity")
        # Columns that no rule produces: a default, a default of its own per row, a generated one, names to quote.
        opened.execute("""
            ALTER TABLE runs ADD COLUMN "odd ""%s"" {x}" text DEFAULT 'a%b',
                             ADD COLUMN ticket bigserial,
                             ADD COLUMN code text DEFAULT gen_random_uuid()::text,
                             ADD COLUMN short text GENERATED ALWAYS AS (left(name, 3)) STORED
        """)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """The legacy tables and ``runs``, empty, with no unique index on ``runs`` but its primary key."""
    database.arrange(_tables)
    with connect(database.url) as opened:
        yield opened


def _execution(connection: Connection, number: int, **values: str | None) -> None:
    key = f"00000000-0000-0000-0000-{number:012}"
    values = {"execution_id": key, "pipeline_name": "feed", **values}
    connection.execute(
        sql.SQL("INSERT INTO executions ({}) VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(map(sql.Literal, values.values()))
        )
    )


def _fill(connection: Connection) -> None:
    """Executions 10 to 29, of which 20 and up are then moved away to stand in ``runs`` already."""
    for number in (10, 20, 11, 12, 21, 13, 14, 22, 15, 16, 23, 17, 18, 24, 19):
        _execution(
            connection,
            number,
            pipeline_name=("ingest 100%", 'Say "hi"', "INGEST 100%", "a'b{0}")[number % 4],
            idempotency_key=(None, "k1", "k2", "k1", "K1 ")[number % 5],
            backend_task_id=(None, "t1", None)[number % 3],
            feed_id=(None, f"{_FEED}1", f"{_FEED}2")[number % 3],
            status=("pending", "running", "completed", "queued")[number * 7 % 4],
        )


def _bound(connection: Connection) -> tuple[Binding, tuple[Filled, ...]]:
    target = catalog.find(connection, "runs", None)
    binding = bind(load("capture-spine/executions"), catalog.find(connection, "executions", None), target)
    return binding, row_shape(connection, target.oid)


def _index(connection: Connection) -> UniqueIndex:
    (index,) = catalog.unique_indexes(connection, catalog.find(connection, "runs", None).oid)
    return index


def _insert_one_by_one(connection: Connection, binding: Binding) -> set[str]:
    """Insert every execution that is not there yet, in physical order; the keys that the server refuses."""
    values = forward(binding, "s")
    statement = sql.SQL("INSERT INTO runs ({}) SELECT {} FROM executions s WHERE s.execution_id = $1::uuid").format(
        sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(values.values())
    )
    refused = set()
    keys = connection.execute(
        "SELECT execution_id::text FROM executions s WHERE NOT EXISTS (SELECT FROM runs WHERE run_id = execution_id)"
        " ORDER BY ctid"
    ).fetchall()
    for (key,) in keys:
        try:
            execute(connection, statement, key)
        except errors.UniqueViolation:
            refused.add(key)
    return refused


_INDEXES = {
    "seed idempotency": "ON runs (idempotency_key)",
    "seed one active": (
        "ON runs ((metadata->>'entity_type'), (metadata->>'entity_id'))"
        " WHERE status IN ('pending', 'queued', 'running')"
    ),
    "nulls not distinct": "ON runs (idempotency_key, external_ref) NULLS NOT DISTINCT",
    "nulls not distinct, five parts": (
        "ON runs (idempotency_key, external_ref, name, lane, executor_name) NULLS NOT DISTINCT"
    ),
    "expression with quotes and percent": (
        "ON runs (lower(name || '%s \"''$1{'), (params #>> '{a%,\"b\"}')) NULLS NOT DISTINCT"
    ),
    "predicate with percent": "ON runs (name) WHERE name LIKE '%100\\%' AND idempotency_key IS NOT NULL",
    "default": 'ON runs ("odd ""%s"" {x}", external_ref)',
    "default of a generated column": "ON runs (short, status)",
    "value of its own": "ON runs (code)",
    "sequence": "ON runs (ticket)",
}


@pytest.mark.parametrize("ddl", _INDEXES.values(), ids=list(_INDEXES))
def test_every_refusal_of_the_server_is_found_before(connection: Connection, ddl: str) -> None:
    if "NULLS NOT DISTINCT" in ddl and connection.info.server_version < 150000:
        ddl = ddl.replace("NULLS NOT DISTINCT", "")
    _fill(connection)
    binding, shape = _bound(connection)
    connection.execute("CREATE TABLE earlier AS SELECT * FROM executions WHERE right(execution_id::text, 2) >= '20'")
    connection.execute("DELETE FROM executions WHERE right(execution_id::text, 2) >= '20'")
    connection.execute(b"CREATE UNIQUE INDEX odd_index " + ddl.encode())
    here = connection.execute("SELECT execution_id::text FROM executions ORDER BY ctid").fetchall()
    candidates = unique.candidates(binding, _TABLE, _ALL, shape)
    index = _index(connection)

    values = forward(binding, "s")
    for (key,) in connection.execute("SELECT execution_id FROM earlier").fetchall():
        one = sql.SQL("INSERT INTO runs ({}) SELECT {} FROM earlier s WHERE execution_id = {}").format(
            sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(values.values()), sql.Literal(key)
        )
        try:
            connection.execute(one)
        except errors.UniqueViolation:
            continue

    taken = rows(connection, unique.with_target(binding, index, candidates))
    for collision in taken:
        # What it names is a row of the target, and the server agrees that this row is in the way.
        assert json.loads(collision["colliding_row"])["run_id"] == collision["colliding_key"]
    taken_keys = {collision["source_key"] for collision in taken}
    free = sql.SQL("s.execution_id::text <> ALL ({})").format(sql.Literal(list(taken_keys)))
    second = rows(connection, unique.within(binding, index, unique.candidates(binding, _TABLE, free, shape)))
    assert all(here.index((one["first_key"],)) < here.index((one["source_key"],)) for one in second)

    refused = _insert_one_by_one(connection, binding)
    assert taken_keys | {one["source_key"] for one in second} == refused
    assert bool(refused) == ("code" not in ddl and "ticket" not in ddl)
    assert len(taken) + len(second) == len(taken_keys | {one["source_key"] for one in second})


def test_a_null_in_the_index_never_collides(connection: Connection) -> None:
    connection.execute("CREATE UNIQUE INDEX one ON runs (idempotency_key)")
    for number in (1, 2):
        _execution(connection, number)
    binding, shape = _bound(connection)
    assert (
        rows(connection, unique.within(binding, _index(connection), unique.candidates(binding, _TABLE, _ALL, shape)))
        == []
    )


def test_a_row_moved_before_does_not_collide_with_itself(connection: Connection) -> None:
    connection.execute("CREATE UNIQUE INDEX one ON runs (idempotency_key)")
    _execution(connection, 1, idempotency_key="k")
    binding, shape = _bound(connection)
    assert _insert_one_by_one(connection, binding) == set()
    candidates = unique.candidates(binding, _TABLE, _ALL, shape)
    assert rows(connection, unique.with_target(binding, _index(connection), candidates)) == []


def test_groups_count_what_loses_and_name_keys(connection: Connection) -> None:
    connection.execute("CREATE UNIQUE INDEX one ON runs (idempotency_key)")
    for number, key in enumerate(["a", "b", "a", "a", None, None, "c", "b"]):
        _execution(connection, number, idempotency_key=key)
    binding, shape = _bound(connection)
    candidates = unique.candidates(binding, _TABLE, _ALL, shape)
    (found,) = rows(connection, unique.groups(binding, _index(connection), candidates, 1))
    assert found == {
        "groups": 2,
        "losers": 3,
        "examples": [
            {
                "rows": 3,
                "first": "00000000-0000-0000-0000-000000000000",
                "last": "00000000-0000-0000-0000-000000000003",
            }
        ],
    }


def test_groups_of_nothing(connection: Connection) -> None:
    connection.execute("CREATE UNIQUE INDEX one ON runs (idempotency_key)")
    binding, shape = _bound(connection)
    candidates = unique.candidates(binding, _TABLE, _ALL, shape)
    assert rows(connection, unique.groups(binding, _index(connection), candidates, 3)) == [
        {"groups": 0, "losers": 0, "examples": []}
    ]


def test_the_index_is_probed_not_the_table(connection: Connection) -> None:
    """One probe per candidate on the partial index, although the fresh table has no statistics."""
    connection.execute(
        "CREATE UNIQUE INDEX one ON runs ((metadata->>'entity_type'), (metadata->>'entity_id'))"
        " WHERE status IN ('pending', 'running')"
    )
    connection.execute(
        "INSERT INTO runs (kind, name, status, metadata)"
        " SELECT 'task', 'x', 'running', jsonb_build_object('entity_type', 'feed', 'entity_id', g)"
        " FROM generate_series(1, 20000) g"
    )
    _execution(connection, 1, feed_id=f"{_FEED}1")
    binding, shape = _bound(connection)
    query = unique.with_target(binding, _index(connection), unique.candidates(binding, _TABLE, _ALL, shape))
    plan = "\n".join(line for (line,) in execute(connection, sql.SQL("EXPLAIN {}").format(query)).fetchall())
    assert "Index Scan using one on runs" in plan
    assert "Seq Scan on runs" not in plan


def test_a_condition_of_the_index_sees_only_rows_that_the_scope_keeps(connection: Connection) -> None:
    """The index's predicate would fail on a row that the judge refuses, if the server were free to ask it first."""
    connection.execute("ALTER TABLE runs ADD COLUMN number integer")
    connection.execute("CREATE UNIQUE INDEX one ON runs (name) WHERE (name::integer > 0)")
    for number, name in enumerate(["1", "not a number", "1"]):
        _execution(connection, number, pipeline_name=name)
    binding, shape = _bound(connection)
    scope = sql.SQL("s.pipeline_name ~ '^[0-9]+$' AND length(repeat(s.pipeline_name, 9)) > 0")
    candidates = unique.candidates(binding, _TABLE, scope, shape)
    (found,) = rows(connection, unique.groups(binding, _index(connection), candidates, 3))
    assert found["losers"] == 1


def test_an_enum_column_of_the_target(connection: Connection) -> None:
    """A mapping refuses it as drift, but an index is compared as the server does, whatever the column's type."""
    binding, _ = _bound(connection)
    connection.execute("CREATE TYPE run_kind AS ENUM ('pipeline', 'task')")
    connection.execute("ALTER TABLE runs ALTER COLUMN kind TYPE run_kind USING kind::run_kind")
    connection.execute("CREATE UNIQUE INDEX one ON runs (idempotency_key) WHERE kind = 'pipeline'")
    for number in (1, 2):
        _execution(connection, number, idempotency_key="k")
    shape = row_shape(connection, catalog.find(connection, "runs", None).oid)
    candidates = unique.candidates(binding, _TABLE, _ALL, shape)
    assert [
        one["source_key"][-1] for one in rows(connection, unique.within(binding, _index(connection), candidates))
    ] == ["2"]


def test_nothing_is_written(connection: Connection) -> None:
    """The default of a serial column is not asked for."""
    connection.execute("CREATE UNIQUE INDEX one ON runs (ticket)")
    _execution(connection, 1)
    binding, shape = _bound(connection)
    connection.execute("SET default_transaction_read_only = on")
    candidates = unique.candidates(binding, _TABLE, _ALL, shape)
    assert rows(connection, unique.with_target(binding, _index(connection), candidates)) == []
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("SELECT nextval('runs_ticket_seq')")
