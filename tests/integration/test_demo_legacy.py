"""The legacy schema is the one that capture-spine has, gaps included."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from spine_migrate.demo.generate import create_legacy, generate
from tests.database import Database

INSERT_ACTIVE = "INSERT INTO executions (pipeline_name, status, feed_id) VALUES ('backfill', %s, %s)"
INSERT_EVENT = "INSERT INTO execution_events (execution_id, event_type) VALUES (%s, 'created')"


def test_the_old_guard_forbids_a_second_active_execution_but_does_not_know_queued(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        create_legacy(connection)
        feed = uuid4()
        connection.execute(INSERT_ACTIVE, ["running", feed])
        connection.execute(INSERT_ACTIVE, ["queued", feed])
        connection.execute(INSERT_ACTIVE, ["completed", feed])
        with pytest.raises(psycopg.errors.UniqueViolation) as violation:
            connection.execute(INSERT_ACTIVE, ["pending", feed])
    assert violation.value.diag.constraint_name == "ix_executions_one_active_per_feed"


def test_the_foreign_key_checks_new_events_and_leaves_the_old_orphans(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        generate(connection, executions=10, jobs=0, seed=1)
        orphans = connection.execute(
            "SELECT count(*) FROM execution_events AS v WHERE NOT EXISTS"
            " (SELECT FROM executions AS e WHERE e.execution_id = v.execution_id)"
        ).fetchone()
        assert orphans is not None
        assert orphans[0] > 0
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(INSERT_EVENT, [uuid4()])
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("ALTER TABLE execution_events VALIDATE CONSTRAINT execution_events_execution_id_fkey")


def test_generated_and_created_tables_have_the_same_shape(database: Database) -> None:
    """``generate`` builds constraints after its load and ``create_legacy`` before any; nothing else may differ."""
    shape = """
        SELECT 'column', c.table_name, c.column_name, c.data_type, c.is_nullable, c.column_default
        FROM information_schema.columns AS c WHERE c.table_schema = %(schema)s AND c.column_name <> 'job_id'
        UNION ALL
        SELECT 'index', tablename, indexname, replace(indexdef, schemaname || '.', ''), NULL, NULL
        FROM pg_indexes WHERE schemaname = %(schema)s
        UNION ALL
        SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated::text, NULL
        FROM pg_constraint WHERE connamespace = %(schema)s::regnamespace AND contype IN ('p', 'f', 'u', 'c')
        ORDER BY 1, 2, 3
    """
    shapes = []
    for schema in ("created", "generated"):
        with database.connect() as connection:
            if schema == "created":
                create_legacy(connection, schema=schema)
            else:
                generate(connection, executions=0, jobs=0, seed=1, schema=schema)
            connection.execute("SELECT set_config('search_path', %s, true)", [schema])
            shapes.append(connection.execute(shape, {"schema": schema}).fetchall())
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) > 40


def test_tables_that_are_there_already_are_left_alone(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        create_legacy(connection)
        connection.execute(INSERT_ACTIVE, ["running", None])
        with pytest.raises(psycopg.errors.DuplicateTable):
            generate(connection, executions=10, jobs=10, seed=1)
        assert connection.execute("SELECT count(*) FROM executions").fetchone() == (1,)
        assert connection.execute("SELECT to_regclass('spine_demo.awkward_row')").fetchone() == (None,)


def test_the_tables_go_into_a_schema_whose_name_needs_quoting(database: Database) -> None:
    with database.connect() as connection:
        before = connection.execute("SHOW search_path").fetchone()
        generate(connection, executions=5, jobs=5, seed=1, awkward=0, schema='Old "App"')
        assert connection.execute("SHOW search_path").fetchone() == before
        assert connection.execute('SELECT count(*) FROM "Old ""App""".executions').fetchone() == (5,)
        assert connection.execute('SELECT count(*) FROM "Old ""App""".jobs').fetchone() == (5,)


def test_the_application_can_add_jobs_after_the_generated_ones(database: Database) -> None:
    with database.connect() as connection:
        generate(connection, executions=0, jobs=1000, seed=1)
        added = connection.execute("INSERT INTO jobs (job_type) VALUES ('new') RETURNING job_id").fetchone()
        assert added is not None
        ordinary = connection.execute(
            "SELECT max(job_id) FROM jobs WHERE job_type <> 'new' AND job_id < 9007199254740993"
        ).fetchone()
        assert ordinary is not None
        assert added[0] > ordinary[0]
