"""The generator: the same rows for the same arguments, every kind of awkward row where the catalogue says it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.demo.awkward import CATALOGUE, FOLLOWING
from spine_migrate.demo.generate import Generated, generate
from spine_migrate.demo.kind import Draw
from spine_migrate.demo.ordinary import EVENT_TYPES, EXECUTION_STATUSES, JOB_STATUSES
from spine_migrate.errors import ConfigurationError
from tests.database import Database, Role, fresh_database

TABLES = {"executions": "execution_id", "execution_events": "event_id", "jobs": "job_id"}

# Of generate(executions=700, jobs=150, seed=20260101, awkward=1.0). They hold on every server version; a change of the
# generator changes them, and with them every figure that was measured on its rows.
DIGESTS = {
    "executions": "16a1b3d8016e0fb0e830501fc91ca51ae2e19e0c05a843310328765da36edbdf",
    "execution_events": "71d39271fd7630b0ea14f710388d69784fa24b912a5030851c141245a9312f37",
    "jobs": "2122137812fd936089b72ece4519e676f6a0c432cdbe907d652d30f86cd33a97",
}

# What the target's columns can hold (seed 000), written down again on purpose: not through the mapping.
CANNOT_MOVE = {
    "executions": """
        SELECT execution_id::text FROM executions
        WHERE pipeline_name IS NULL OR status IS NULL OR status <> ALL (%(statuses)s)
            OR length(pipeline_name) > 100 OR length(lane) > 50 OR length(trigger_source) > 50
            OR length(backend_task_id) > 255 OR length(idempotency_key) > 255 OR retry_count = 2147483647
    """,
    "execution_events": """
        SELECT event_id::text FROM execution_events AS v
        WHERE event_type IS NULL OR event_type <> ALL (%(event_types)s)
            OR NOT EXISTS (SELECT FROM executions AS e WHERE e.execution_id = v.execution_id)
            OR EXISTS (SELECT FROM spine_demo.awkward_row AS a WHERE a.entity = 'executions'
                AND a.source_key = v.execution_id::text AND a.fate LIKE 'quarantined:%%')
    """,
    "jobs": """
        SELECT job_id::text FROM jobs
        WHERE job_type IS NULL OR status IS NULL OR status <> ALL (%(job_statuses)s) OR priority NOT BETWEEN 0 AND 9
            OR length(job_type) > 100 OR length(celery_task_id) > 255
    """,
}


@dataclass(frozen=True)
class History:
    database: Database
    made: Generated

    def rows(self, query: LiteralString | sql.Composed, **parameters: object) -> list[tuple[Any, ...]]:
        with self.database.connect() as connection:
            return connection.execute(query, parameters).fetchall()


@pytest.fixture(scope="module")
def history(server_url: str, owner: Role) -> Iterator[History]:
    """Nothing here changes it."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database:
        with database.connect() as connection:
            made = generate(connection, executions=700, jobs=150, seed=20260101)
        yield History(database, made)


def digests(connection: psycopg.Connection[Any]) -> dict[str, str]:
    connection.execute("SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'")
    found = {}
    for table, key in TABLES.items():
        query = sql.SQL(
            "SELECT encode(sha256(convert_to(string_agg(t::text, chr(10) ORDER BY {key}), 'UTF8')), 'hex')"
            " FROM {table} AS t"
        ).format(key=sql.Identifier(key), table=sql.Identifier(table))
        row = connection.execute(query).fetchone()
        assert row is not None
        found[table] = row[0]
    return found


def test_the_rows_are_the_same_on_every_server_and_version(history: History) -> None:
    with history.database.connect() as connection:
        assert digests(connection) == DIGESTS


def test_the_same_seed_makes_the_same_rows_and_another_one_other_rows(server_url: str, owner: Role) -> None:
    found = []
    with ExitStack() as databases:
        for n, seed in enumerate((5, 5, 6)):
            database = databases.enter_context(fresh_database(server_url, f"{owner.name}_seed{n}", owner))
            with database.connect() as connection:
                # Settings of the session that could leak into the rows.
                if n == 1:
                    connection.execute("SET timezone = 'Asia/Kathmandu'; SET datestyle = 'SQL, DMY'")
                generate(connection, executions=400, jobs=100, seed=seed)
                found.append(digests(connection))
    assert found[0] == found[1]
    assert all(found[0][table] != found[2][table] for table in TABLES)


def test_counts_are_those_asked_for_and_those_returned(database: Database) -> None:
    with database.connect() as connection:
        made = generate(connection, executions=3000, events_per_execution=2.5, jobs=800, seed=3)
        counted = [
            connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
            for table in TABLES
        ]
    assert counted == [(made.executions,), (made.execution_events,), (made.jobs,)]
    assert (made.executions, made.jobs) == (3000, 800)
    # About 2.5 for each, and one of each awkward kind of event besides.
    assert 7_000 < made.execution_events < 8_000


def test_every_kind_is_there_and_recorded_with_its_rows(history: History) -> None:
    assert set(history.made.awkward) == {kind.name for kind in CATALOGUE} | {name for name, _fate, _story in FOLLOWING}
    recorded = history.rows("SELECT kind, source_key FROM spine_demo.awkward_row")
    assert sorted(recorded) == sorted((kind, key) for kind, keys in history.made.awkward.items() for key in keys)
    for table, key in TABLES.items():
        absent = sql.SQL(
            "SELECT a.kind, a.source_key FROM spine_demo.awkward_row AS a LEFT JOIN {table} AS t"
            " ON t.{key}::text = a.source_key WHERE a.entity = {name} AND t.{key} IS NULL"
        ).format(table=sql.Identifier(table), key=sql.Identifier(key), name=sql.Literal(table))
        assert history.rows(absent) == []


@pytest.mark.parametrize("table", TABLES)
def test_what_cannot_move_is_exactly_what_the_catalogue_says(history: History, table: str) -> None:
    vocabulary = {
        "statuses": list(EXECUTION_STATUSES),
        "event_types": list(EVENT_TYPES),
        "job_statuses": list(JOB_STATUSES),
    }
    expected = history.rows(
        "SELECT source_key FROM spine_demo.awkward_row WHERE entity = %(table)s AND fate LIKE 'quarantined:%%'",
        table=table,
    )
    assert sorted(history.rows(CANNOT_MOVE[table], **vocabulary)) == sorted(expected)


def test_what_contends_for_a_key_is_exactly_what_the_catalogue_says(history: History) -> None:
    contenders = """
        SELECT execution_id::text FROM (
            SELECT execution_id,
                count(*) FILTER (WHERE idempotency_key IS NOT NULL) OVER (PARTITION BY idempotency_key) AS same_key,
                count(*) FILTER (WHERE feed_id IS NOT NULL AND status IN ('pending', 'queued', 'running'))
                    OVER (PARTITION BY feed_id, status IN ('pending', 'queued', 'running')) AS same_feed
            FROM executions
        ) AS counted WHERE same_key > 1 OR same_feed > 1
    """
    expected = "SELECT source_key FROM spine_demo.awkward_row WHERE fate = 'one_moves:unique_conflict'"
    assert sorted(history.rows(contenders)) == sorted(history.rows(expected))


def test_links_are_broken_or_wait_exactly_where_the_catalogue_says(history: History) -> None:
    query = """
        SELECT e.execution_id::text,
            CASE WHEN t.execution_id IS NULL THEN 'moved:link_broken' ELSE 'moved:link_waiting' END
        FROM executions AS e
        CROSS JOIN LATERAL (VALUES (e.parent_execution_id), (e.retry_of_execution_id)) AS link (wanted)
        LEFT JOIN executions AS t ON t.execution_id = link.wanted
        LEFT JOIN spine_demo.awkward_row AS a ON a.source_key = t.execution_id::text AND a.fate LIKE 'quarantined:%%'
        WHERE link.wanted IS NOT NULL AND (t.execution_id IS NULL OR a.kind IS NOT NULL)
    """
    expected = "SELECT source_key, fate FROM spine_demo.awkward_row WHERE fate LIKE 'moved:link%%'"
    assert sorted(history.rows(query)) == sorted(history.rows(expected))


def test_ordinary_links_point_both_ways_in_key_order(database: Database) -> None:
    with database.connect() as connection:
        generate(connection, executions=2000, jobs=0, seed=2, awkward=0)
        forward, backward, retried = connection.execute(
            "SELECT count(*) FILTER (WHERE parent_execution_id > execution_id),"
            " count(*) FILTER (WHERE parent_execution_id < execution_id), count(retry_of_execution_id) FROM executions"
        ).fetchall()[0]
    assert min(forward, backward) > 25
    assert 70 < forward + backward < 140
    assert 20 < retried < 65


def test_most_parents_are_among_the_executions_shortly_before(database: Database) -> None:
    with database.connect() as connection:
        generate(connection, executions=12_000, events_per_execution=0, jobs=0, seed=2, awkward=0)
        near, later, parents = connection.execute("""
            WITH aged AS (SELECT *, row_number() OVER (ORDER BY created_at) AS age FROM executions)
            SELECT count(*) FILTER (WHERE e.age - p.age BETWEEN 1 AND 2000), count(*) FILTER (WHERE p.age > e.age),
                   count(*)
              FROM aged e JOIN aged p ON p.execution_id = e.parent_execution_id
        """).fetchall()[0]
    assert 500 < parents < 700
    assert 0.75 < near / parents < 0.9
    assert 0.05 < later / parents < 0.15


def test_ordinary_events_are_in_legal_order(database: Database) -> None:
    with database.connect() as connection:
        generate(connection, executions=2000, jobs=0, seed=2, awkward=0)
        lives = connection.execute(
            "SELECT e.status, array_agg(v.event_type ORDER BY v.timestamp), min(v.timestamp) >= e.created_at,"
            " count(DISTINCT v.timestamp) = count(*)"
            " FROM executions AS e JOIN execution_events AS v USING (execution_id) GROUP BY e.execution_id"
        ).fetchall()
    assert len(lives) == 2000
    for status, types, after_creation, distinct in lives:
        assert after_creation
        assert distinct
        assert types[0] in {"created", "started"}
        if status in {"completed", "failed", "cancelled"}:
            assert types[-1] == status
            assert "started" in types
        assert not {"completed", "failed", "cancelled"}.intersection(types[:-1])
        assert types.count("started") <= 1


@pytest.mark.parametrize(("share", "low", "high"), [(0, 0, 0), (1.0, 330, 420), (2.0, 680, 820)])
def test_the_share_scales_the_awkward_executions(database: Database, share: float, low: int, high: int) -> None:
    with database.connect() as connection:
        made = generate(connection, executions=40_000, events_per_execution=0, jobs=0, seed=4, awkward=share)
    assert made.executions == 40_000
    assert made.execution_events == 0
    assert low <= sum(map(len, made.awkward.values())) <= high


def test_no_rows_at_all(database: Database) -> None:
    with database.connect() as connection:
        assert generate(connection, executions=0, jobs=0, seed=1) == Generated(0, 0, 0, {})


def test_one_row_each(database: Database) -> None:
    with database.connect() as connection:
        made = generate(connection, executions=1, jobs=1, seed=1, awkward=0)
        statuses = connection.execute("SELECT status FROM executions UNION ALL SELECT status FROM jobs").fetchall()
    assert (made.executions, made.jobs, made.awkward) == (1, 1, {})
    assert {status for (status,) in statuses} <= {"completed", "failed", "cancelled", "done", "error"}


def test_one_row_asked_for_with_awkward_ones_gives_one_of_each_kind(database: Database) -> None:
    with database.connect() as connection:
        made = generate(connection, executions=1, jobs=1, seed=1, awkward=0.01)
    assert set(made.awkward) == {kind.name for kind in CATALOGUE} | {name for name, _fate, _story in FOLLOWING}


def test_server_and_python_draw_the_same_uuid(database: Database) -> None:
    with database.connect() as connection:
        generate(connection, executions=0, jobs=0, seed=1)
        drawn = connection.execute("SELECT spine_demo.uuid_of('42:execution:7')::text").fetchone()
    assert drawn == (Draw(42).uuid("execution:7"),)


@pytest.mark.parametrize("name", ["executions", "events_per_execution", "jobs", "awkward"])
def test_a_negative_number_is_refused_by_name(database: Database, name: str) -> None:
    arguments: dict[str, Any] = {"executions": 1, "events_per_execution": 1, "jobs": 1, "awkward": 1, name: -1}
    call: Callable[..., Generated] = generate
    with database.connect() as connection, pytest.raises(ConfigurationError, match=f"^{name} is -1; give 0 or more.$"):
        call(connection, seed=1, **arguments)
