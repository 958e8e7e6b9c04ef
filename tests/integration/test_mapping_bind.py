"""A mapping held against live tables: drift is refused with every difference, what a table may lack is only noted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import sql

from spine_migrate.db import catalog
from spine_migrate.db.connect import Connection, connect
from spine_migrate.errors import Drift
from spine_migrate.mapping.bind import Binding, bind
from spine_migrate.mapping.emit.sql import forward, judgements
from spine_migrate.mapping.load import load
from tests.database import Database

EXECUTIONS = load("capture-spine/executions")


def _as_declared(url: str) -> None:
    with connect(url) as opened:
        for table, columns in (
            ("executions", {c.name: (str(c.type), c.not_null) for c in EXECUTIONS.columns.values()}),
            ("runs", {c.name: (str(c.type), c.not_null) for c in EXECUTIONS.target.columns.values()}),
        ):
            parts = [
                sql.SQL("{} {}{}").format(sql.Identifier(n), sql.SQL(kind), sql.SQL(" NOT NULL" if not_null else ""))
                for n, (kind, not_null) in columns.items()
            ]
            opened.execute(sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(table), sql.SQL(", ").join(parts)))


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """The tables exactly as the mapping declares them."""
    database.arrange(_as_declared)
    with connect(database.url) as opened:
        yield opened


def _bind(connection: Connection) -> Binding:
    source, target = (catalog.find(connection, table, None) for table in ("executions", "runs"))
    return bind(EXECUTIONS, source, target)


def _reasons(binding: Binding) -> set[tuple[str, str]]:
    return {(one.field.name, one.refusal.reason) for one in judgements(binding, "s")}


def test_tables_as_declared(connection: Connection) -> None:
    assert _bind(connection).missing == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (
            "ALTER TABLE executions RENAME pipeline_name TO pipelinename",
            "\"executions\" has no column 'pipeline_name'; did you mean 'pipelinename'?",
        ),
        ("ALTER TABLE executions ALTER params TYPE text", '"executions".params is text, the mapping says jsonb'),
        (
            "ALTER TABLE executions ALTER retry_count TYPE bigint",
            '"executions".retry_count is bigint, the mapping says integer',
        ),
        ("ALTER TABLE executions ADD shard int", '"executions".shard is in no rule of the mapping'),
        ("ALTER TABLE executions ALTER execution_id DROP NOT NULL", '"executions".execution_id is the key but may be'),
        ("ALTER TABLE runs RENAME lane TO lanes", "\"runs\" has no column 'lane'; did you mean 'lanes'?"),
        ("ALTER TABLE runs ALTER kind TYPE varchar(10)", '"runs".kind is character varying(10), too short for varch'),
        ("ALTER TABLE runs ALTER error TYPE varchar(10)", '"runs".error is character varying(10), too short for text'),
        ("ALTER TABLE runs ALTER tags TYPE json", '"runs".tags is json, the mapping says jsonb'),
        ("ALTER TABLE runs ALTER attempt TYPE smallint", '"runs".attempt is smallint, the mapping says integer'),
        (
            "CREATE TYPE kind AS ENUM ('pipeline'); ALTER TABLE runs ALTER kind TYPE kind USING kind::kind",
            '"runs".kind is kind, the mapping says varchar(20)',
        ),
        ("ALTER TABLE runs ALTER lane SET NOT NULL", '"runs".lane is NOT NULL, the mapping says it may be NULL'),
        ("ALTER TABLE runs ALTER parent_run_id SET NOT NULL", '"runs".parent_run_id is NOT NULL'),
        ("ALTER TABLE runs ADD shard int NOT NULL", '"runs".shard is NOT NULL without a default and nothing produces'),
        (
            "ALTER TABLE runs DROP tags; ALTER TABLE runs ADD tags jsonb GENERATED ALWAYS AS ('{}'::jsonb) STORED",
            '"runs".tags is generated, but the mapping writes it',
        ),
    ],
)
def test_drift(change: str, difference: str, connection: Connection) -> None:
    connection.execute(sql.SQL(change))
    with pytest.raises(Drift) as caught:
        _bind(connection)
    assert any(difference in one for one in caught.value.differences), caught.value.differences
    assert caught.value.exit_code == 3


def test_all_differences_are_named_at_once(connection: Connection) -> None:
    connection.execute("ALTER TABLE executions DROP status, DROP params, ADD shard int")
    connection.execute("ALTER TABLE runs DROP lane")
    with pytest.raises(Drift) as caught:
        _bind(connection)
    assert len(caught.value.differences) == 4


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE runs ALTER tags SET NOT NULL, ALTER metadata SET NOT NULL, ALTER attempt SET NOT NULL",
        "ALTER TABLE executions ALTER lane SET NOT NULL; ALTER TABLE runs ALTER lane SET NOT NULL",
        "ALTER TABLE runs ADD shard int NOT NULL DEFAULT 1",
        "ALTER TABLE runs ADD number int GENERATED ALWAYS AS (attempt + 1) STORED",
        "ALTER TABLE runs ALTER kind TYPE text, ALTER error_type TYPE varchar(200)",
    ],
)
def test_what_is_no_drift(change: str, connection: Connection) -> None:
    connection.execute(sql.SQL(change))
    assert _bind(connection).missing == []


def test_a_missing_optional_column(connection: Connection) -> None:
    """It reads as NULL: its rules give NULL or their default, and ask nothing."""
    connection.execute("ALTER TABLE executions DROP lane, DROP retry_count, DROP feed_id")
    binding = _bind(connection)
    assert binding.missing == ["lane", "feed_id", "retry_count"]
    values = {name: value.as_string(connection) for name, value in forward(binding, "s").items()}
    assert values["lane"] == "NULL::text"
    assert "retry_count" not in values["metadata"]
    assert ("lane", "too_long") not in _reasons(binding)
    connection.execute("INSERT INTO executions (execution_id) VALUES (gen_random_uuid())")
    row = connection.execute(
        sql.SQL("SELECT {}, {} FROM executions AS s").format(
            forward(binding, "s")["attempt"], forward(binding, "s")["metadata"]
        )
    ).fetchone()
    assert row == (1, {"migrated_from": "capture-spine/executions"})


def test_what_the_table_rules_out_is_not_asked(connection: Connection) -> None:
    """A limit that fits, a NOT NULL column; a limit that does not fit is asked."""
    asked = _reasons(_bind(connection))
    assert {("name", "null_value"), ("name", "too_long"), ("lane", "too_long")} <= asked
    connection.execute(
        "ALTER TABLE executions ALTER pipeline_name SET NOT NULL,"
        " ALTER pipeline_name TYPE varchar(100), ALTER lane TYPE varchar(51)"
    )
    asked = _reasons(_bind(connection))
    assert {("name", "null_value"), ("name", "too_long")}.isdisjoint(asked)
    assert ("lane", "too_long") in asked


def test_an_enum_and_a_padded_column(connection: Connection) -> None:
    """Read as text: an enum by its label, char(n) without its padding."""
    connection.execute("CREATE TYPE state AS ENUM ('running', 'odd')")
    connection.execute("ALTER TABLE executions ALTER status TYPE state USING status::state, ALTER lane TYPE char(60)")
    connection.execute(
        "INSERT INTO executions (execution_id, pipeline_name, status, lane)"
        " VALUES (gen_random_uuid(), 'x', 'running', 'slow')"
    )
    values = forward(_bind(connection), "s")
    found = connection.execute(
        sql.SQL("SELECT {}, {} FROM executions AS s").format(values["status"], values["lane"])
    ).fetchone()
    assert found == ("running", "slow")


def test_json_for_jsonb(connection: Connection) -> None:
    """Read as jsonb, and what jsonb cannot hold is a reason, not a failure."""
    connection.execute("ALTER TABLE executions ALTER params TYPE json")
    binding = _bind(connection)
    assert ("params", "bad_value") in _reasons(binding)
    found = {one.field.name: one.refusal for one in judgements(binding, "s") if one.refusal.reason == "bad_value"}
    connection.execute(
        "INSERT INTO executions (execution_id, params) SELECT gen_random_uuid(), p::json FROM unnest(%s::text[]) AS p",
        [['{"a": "\\u0000"}', '"\\\\u0000"', '["\\\\\\u0000"]', '{"\\u0000": 1}', "{}"]],
    )
    refused = connection.execute(
        sql.SQL("SELECT array_agg({} ORDER BY s.ctid) FROM executions AS s").format(found["params"].condition)
    ).fetchone()
    assert refused == ([True, False, True, True, False],)
