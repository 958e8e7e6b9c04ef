"""Small legacy tables by hand, and SQL that proves a move without the compiled mapping.

What each source row must become is written here a second time, by hand, from the seeds' field tables. It shares nothing
with ``mappings/`` or the compiler, so an error in either shows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.run import Options, Outcome, Prepare, run
from spine_migrate.db import schema
from spine_migrate.demo.generate import create_legacy
from spine_migrate.mapping.load import load
from spine_migrate.notices import NOBODY, Observer
from tests.database import Database

Connection = psycopg.Connection[TupleRow]

ENTITIES: dict[str, tuple[LiteralString, LiteralString]] = {
    "executions": ("executions", "execution_id"),
    "execution_events": ("execution_events", "event_id"),
    "jobs": ("jobs", "job_id"),
}

# The run a job becomes: SHA-256, version 8, variant 10 (RFC 9562), spelled with hex digits instead of bits.
_JOB_RUN: LiteralString = """(
    SELECT overlay(overlay(h PLACING '8' FROM 13) PLACING
                   substr('89ab89ab89ab89ab', strpos('0123456789abcdef', substr(h, 17, 1)), 1) FROM 17)::uuid
      FROM (SELECT left(encode(sha256(('capture-spine/jobs:' || j.job_id)::bytea), 'hex'), 32)) AS digest(h))"""

_EXPECTED: dict[str, LiteralString] = {
    "executions": """
        SELECT e.execution_id AS run_id, 'pipeline' AS kind, e.pipeline_name AS name, e.params, 'normal' AS priority,
               e.lane, e.idempotency_key, NULL AS correlation_id,
               (SELECT p.run_id FROM runs p WHERE p.run_id = e.parent_execution_id) AS parent_run_id,
               e.status, e.backend_task_id AS external_ref, NULL AS executor_name, e.result, e.error,
               substr(e.error_type, 1, 100) AS error_type, coalesce(e.retry_count, 0) + 1 AS attempt,
               (SELECT p.run_id FROM runs p WHERE p.run_id = e.retry_of_execution_id) AS retry_of_run_id,
               e.max_retries, e.trigger_source,
               jsonb_build_object('migrated_from', 'capture-spine/executions')
               || CASE WHEN e.feed_id IS NULL THEN '{}' ELSE jsonb_build_object(
                      'feed_id', e.feed_id, 'entity_type', 'feed', 'entity_id', e.feed_id) END
               || CASE WHEN length(e.error_type) > 100 AND e.retry_count IS NULL
                      THEN jsonb_build_object('legacy', jsonb_build_object('error_type', e.error_type,
                                                                           'retry_count', NULL))
                      WHEN length(e.error_type) > 100
                      THEN jsonb_build_object('legacy', jsonb_build_object('error_type', e.error_type))
                      WHEN e.retry_count IS NULL THEN '{"legacy": {"retry_count": null}}'
                      ELSE '{}' END AS metadata,
               '{}'::jsonb AS tags, e.created_at, e.started_at, e.completed_at
          FROM executions e""",
    "execution_events": """
        SELECT v.event_id, v.execution_id AS run_id, v.event_type, v.timestamp, v.data,
               'capture-spine/execution_events' AS source
          FROM execution_events v""",
    "jobs": """
        SELECT {job_run} AS run_id, 'task' AS kind, j.job_type AS name, j.payload AS params,
               CASE WHEN j.priority <= 1 THEN 'realtime' WHEN j.priority <= 3 THEN 'high'
                    WHEN j.priority <= 6 THEN 'normal' WHEN j.priority <= 8 THEN 'low'
                    WHEN j.priority = 9 THEN 'slow' END AS priority,
               'default' AS lane, NULL AS idempotency_key, NULL AS correlation_id, NULL::uuid AS parent_run_id,
               CASE j.status WHEN 'queued' THEN 'queued' WHEN 'processing' THEN 'running' WHEN 'done' THEN 'completed'
                    WHEN 'error' THEN 'failed' WHEN 'cancelled' THEN 'cancelled' WHEN 'retrying' THEN 'pending'
               END AS status,
               j.celery_task_id AS external_ref, NULL AS executor_name, j.result, j.error_message AS error,
               NULL AS error_type, CASE WHEN j.attempts = 0 THEN 1 ELSE j.attempts END AS attempt,
               NULL::uuid AS retry_of_run_id, j.max_attempts - 1 AS max_retries, 'jobs' AS trigger_source,
               jsonb_build_object('migrated_from', 'capture-spine/jobs')
               || CASE WHEN j.feed_id IS NULL THEN '{}' ELSE jsonb_build_object(
                      'feed_id', j.feed_id, 'entity_type', 'feed', 'entity_id', j.feed_id) END
               || CASE WHEN j.user_id IS NULL THEN '{}' ELSE jsonb_build_object('user_id', j.user_id) END
               || jsonb_build_object('legacy', jsonb_build_object('job_id', j.job_id)
                      || CASE WHEN j.priority IN (1, 3, 4, 6, 8) THEN jsonb_build_object('priority', j.priority)
                              ELSE '{}' END
                      || CASE WHEN j.attempts = 0 THEN '{"attempts": 0}' ELSE '{}'::jsonb END) AS metadata,
               '{}'::jsonb AS tags, j.created_at::timestamptz AS created_at, j.started_at::timestamptz AS started_at,
               j.finished_at::timestamptz AS completed_at
          FROM jobs j""".replace("{job_run}", _JOB_RUN),
}

# Source key as text, and the key its target row has.
_KEYS: dict[str, LiteralString] = {
    "executions": "SELECT execution_id::text AS source_key, execution_id AS target_key FROM executions",
    "execution_events": "SELECT event_id::text AS source_key, event_id AS target_key FROM execution_events",
    "jobs": "SELECT j.job_id::text AS source_key, {job_run} AS target_key FROM jobs j".replace("{job_run}", _JOB_RUN),
}

# Rows of the target that this tool must have put there, by the mark the seeds prescribe.
_MOVED: dict[str, LiteralString] = {
    "executions": "SELECT r.* FROM runs r WHERE r.metadata ->> 'migrated_from' = 'capture-spine/executions'",
    "execution_events": "SELECT r.* FROM run_events r WHERE r.source = 'capture-spine/execution_events'",
    "jobs": "SELECT r.* FROM runs r WHERE r.metadata ->> 'migrated_from' = 'capture-spine/jobs'",
}
_TARGET_KEY: dict[str, LiteralString] = {"executions": "run_id", "execution_events": "event_id", "jobs": "run_id"}


def differences(connection: Connection, entity: str) -> list[tuple[str, str | None, str | None]]:
    """(key, as it must be, as it is) of each moved row that is not byte for byte what its source row must become; a
    moved row without a source row, too. Session settings are the caller's, except for the zone.
    """
    connection.execute("SET timezone = 'UTC'")
    query = sql.SQL(
        "WITH expected AS ({expected}), moved AS ({moved})"
        " SELECT moved.{key}::text, ROW(expected.*)::text, ROW(moved.*)::text"
        " FROM moved LEFT JOIN expected USING ({key})"
        " WHERE ROW(expected.*)::text IS DISTINCT FROM ROW(moved.*)::text ORDER BY 1"
    ).format(
        expected=sql.SQL(_EXPECTED[entity]), moved=sql.SQL(_MOVED[entity]), key=sql.Identifier(_TARGET_KEY[entity])
    )
    return connection.execute(query).fetchall()


def lost(connection: Connection, entity: str) -> list[str]:
    """Source keys that were neither moved nor put in quarantine."""
    return [row[0] for row in _accounted(connection, entity) if not row[1] and not row[2]]


def doubled(connection: Connection, entity: str) -> list[str]:
    """Source keys that were moved and are in quarantine as well."""
    return [row[0] for row in _accounted(connection, entity) if row[1] and row[2]]


def _accounted(connection: Connection, entity: str) -> list[TupleRow]:
    query = sql.SQL(
        "WITH source AS ({keys}), moved AS ({moved}), held AS ("
        " SELECT q.source_key FROM spine_migrate.quarantine q JOIN spine_migrate.migration m USING (migration_id)"
        " WHERE m.mapping = {mapping} AND m.step <> 'undone')"
        " SELECT s.source_key, moved.{key} IS NOT NULL, h.source_key IS NOT NULL"
        " FROM source s LEFT JOIN moved ON moved.{key} = s.target_key LEFT JOIN held h USING (source_key) ORDER BY 1"
    ).format(
        keys=sql.SQL(_KEYS[entity]),
        moved=sql.SQL(_MOVED[entity]),
        key=sql.Identifier(_TARGET_KEY[entity]),
        mapping=sql.Literal(f"capture-spine/{entity}"),
    )
    return connection.execute(query).fetchall()


def wrong_links(connection: Connection) -> list[TupleRow]:
    """Moved executions whose NULL link is not on record, or on record in the wrong state, or whose record is stale."""
    return connection.execute("""
        WITH wanted AS (
            SELECT r.run_id::text AS target_key, l.field, l.wanted, l.value
              FROM executions e JOIN runs r ON r.run_id = e.execution_id
             CROSS JOIN LATERAL (VALUES ('parent_run_id', e.parent_execution_id, r.parent_run_id),
                                        ('retry_of_run_id', e.retry_of_execution_id, r.retry_of_run_id))
                   AS l(field, wanted, value)
             WHERE r.metadata ->> 'migrated_from' = 'capture-spine/executions'
        ), due AS (
            SELECT target_key, field, wanted::text,
                   CASE WHEN EXISTS (SELECT FROM executions e WHERE e.execution_id = w.wanted)
                        THEN 'waiting' ELSE 'broken' END AS state
              FROM wanted w WHERE wanted IS NOT NULL AND value IS NULL
        ), recorded AS (
            SELECT target_key, field, wanted, state FROM spine_migrate.link
        )
        (TABLE due EXCEPT ALL TABLE recorded) UNION ALL (TABLE recorded EXCEPT ALL TABLE due)
    """).fetchall()


def prove(connection: Connection, *entities: str) -> None:
    """Everything that was moved is right, and nothing was lost, doubled or left unlinked."""
    for entity in entities:
        assert not differences(connection, entity), entity
        assert not lost(connection, entity), entity
        assert not doubled(connection, entity), entity
    if "executions" in entities:
        assert not wrong_links(connection)


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


@dataclass
class Legacy:
    """A database with empty legacy tables and an empty target; ``move`` runs the engine as the owner.

    What the test's own thread asks one after the other goes through one connection, where ``database`` says what is
    closed at the end; each other thread has its own.
    """

    url: str
    source_schema: str = "public"
    target_schema: str = "public"
    progress: list[Progress] = field(default_factory=list)
    database: Database | None = field(default=None, repr=False, compare=False)
    _kept: Connection | None = field(default=None, init=False, repr=False, compare=False)

    def connect(self) -> Connection:
        """Autocommit; the schemas are first in its search_path."""
        connection = psycopg.connect(self.url, autocommit=True)
        path = sql.SQL(", ").join(map(sql.Identifier, (self.source_schema, self.target_schema)))
        connection.execute(sql.SQL("SET search_path = {}").format(path))
        return connection

    def session(self) -> AbstractContextManager[Connection]:
        """For one thing after the other in autocommit, settings left as they are."""
        if self.database is None or threading.current_thread() is not threading.main_thread():
            return self.connect()
        if self._kept is None:
            self._kept = self.connect()
            # A plan that was kept would outlive the tables that a test makes anew.
            self._kept.prepare_threshold = None
            self.database.closing.callback(self._kept.close)
        return nullcontext(self._kept)

    def execute(self, query: LiteralString | sql.SQL | sql.Composed, *parameters: object) -> None:
        with self.session() as connection:
            connection.execute(query, parameters or None)

    def rows(self, query: LiteralString | sql.Composed, *parameters: object) -> list[TupleRow]:
        with self.session() as connection:
            return connection.execute(query, parameters or None).fetchall()

    def value(self, query: LiteralString | sql.Composed, *parameters: object) -> Any:
        return self.rows(query, *parameters)[0][0]

    def add(self, table: str, *rows: Mapping[str, object]) -> None:
        with self.session() as connection, connection.transaction():
            for row in rows:
                connection.execute(
                    sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                        sql.Identifier(table),
                        sql.SQL(", ").join(map(sql.Identifier, row)),
                        sql.SQL(", ").join(map(sql.Literal, row.values())),
                    )
                )

    def executions(self, *numbers: int, **values: object) -> None:
        """One ordinary execution for each number, all with the same further ``values``."""
        given = {"pipeline_name": "ingest", "status": "completed", **values}
        self.add("executions", *({"execution_id": uuid(number), **given} for number in numbers))

    def many_executions(self, count: int, first: int = 1) -> None:
        """Ordinary executions in one statement, about 100 bytes each and some with feeds."""
        self.execute(
            """INSERT INTO executions (execution_id, pipeline_name, status, feed_id, error)
               SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'ingest', 'completed',
                      CASE WHEN n %% 3 = 0 THEN ('f0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid END,
                      repeat('e', 20)
                 FROM generate_series(%s::int, %s::int) n""",
            first,
            first + count - 1,
        )

    def two_events_each(self, count: int, data: str = "{}") -> None:
        """A started and a completed event, a minute apart, for each of the first ``count`` executions."""
        self.execute(
            """INSERT INTO execution_events (event_id, execution_id, event_type, timestamp, data)
               SELECT ('e0000000-0000-4000-8000-' || lpad((n * 10 + k)::text, 12, '0'))::uuid,
                      ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
                      (ARRAY['started', 'completed'])[k], '2024-01-01'::timestamptz + k * interval '1 minute', %s
                 FROM generate_series(1, %s::int) n, generate_series(1, 2) k""",
            data,
            count,
        )

    def move(
        self,
        entity: str = "executions",
        *,
        mapping: str | None = None,
        stop: threading.Event | None = None,
        cancel: threading.Event | None = None,
        report: Callable[[Progress], None] | None = None,
        url: str | None = None,
        prepare: Prepare | None = None,
        observer: Observer = NOBODY,
        **options: Any,
    ) -> Outcome:
        """One run of the engine; ``options`` as in ``Options``. Progress is collected in ``progress``."""
        self.progress.clear()

        def collect(progress: Progress) -> None:
            self.progress.append(progress)
            if report is not None:
                report(progress)

        return run(
            url or self.url,
            load(mapping or f"capture-spine/{entity}"),
            options=Options(**options),
            stop=stop or threading.Event(),
            cancel=cancel,
            report=collect,
            observer=observer,
            source_schema=self.source_schema,
            target_schema=self.target_schema,
            prepare=prepare,
        )

    def quarantine(self) -> list[TupleRow]:
        """(source_key, reason, field, sqlstate, constraint_name) in the order of keys."""
        return self.rows(
            "SELECT source_key, reason, field, sqlstate, constraint_name FROM spine_migrate.quarantine"
            " ORDER BY migration_id, source_key"
        )

    def prove(self, *entities: str) -> None:
        with self.connect() as connection:
            prove(connection, *(entities or ("executions",)))


def build(place: Database | str, *, source_schema: str = "public", target_schema: str = "public") -> Legacy:
    """Empty legacy tables and an upgraded target, in a test's database or at a URL of another server."""
    if isinstance(place, str):
        _make(place, source_schema, target_schema)
        return Legacy(place, source_schema, target_schema)
    place.arrange(_make, source_schema, target_schema)
    return Legacy(place.url, source_schema, target_schema, database=place)


def filled(database: Database, fill: Callable[[Legacy], object]) -> Legacy:
    """What ``build`` makes, after ``fill``, a function of a module: done once and copied for each test."""
    database.arrange(_fill, fill)
    return Legacy(database.url, database=database)


def arranged(fill: Callable[[Legacy], None]) -> Any:
    """``filled`` as a fixture of the name of ``fill``."""

    @pytest.fixture(name=fill.__name__)
    def fixture(database: Database) -> Legacy:
        return filled(database, fill)

    return fixture


def _fill(url: str, fill: Callable[[Legacy], object]) -> None:
    fill(build(url))


def _make(url: str, source_schema: str, target_schema: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(target_schema)))
        create_legacy(connection, schema=source_schema)
    schema.upgrade(url, target_schema=target_schema)
