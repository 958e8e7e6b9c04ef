"""The rules of the legacy table hold for what is written through the view."""

from __future__ import annotations

from secrets import token_hex
from typing import Any, LiteralString

import psycopg
import pytest

from spine_migrate.cutover.writers import writers
from spine_migrate.db.connect import connect
from spine_migrate.mapping.emit import trigger_bodies
from tests.database import Database, Role, fresh_database
from tests.legacy import build, uuid
from tests.views import refused, switch

Connection = psycopg.Connection[Any]


def test_columns_are_of_the_same_types(application: Connection) -> None:
    """Type, length and collation, in the same order; defaults and comments too."""
    for table in ("executions", "jobs", "execution_events"):
        found = [
            application.execute(
                "SELECT a.attname, a.atttypid, a.atttypmod, a.attcollation, col_description(a.attrelid, a.attnum),"
                " CASE WHEN a.attidentity = '' THEN pg_get_expr(d.adbin, d.adrelid) END IS NULL"
                "  AND a.attidentity = '' AND d.adbin IS NULL"
                " FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
                " WHERE a.attrelid = %s::regclass AND a.attnum > 0 ORDER BY a.attnum",
                (name,),
            ).fetchall()
            for name in (table, f"{table}_legacy")
        ]
        assert found[0] == found[1], table
    assert application.execute("SELECT obj_description('executions'::regclass)").fetchone() == ("what ran",)


@pytest.mark.parametrize(
    ("statement", "sqlstate", "said", "constraint"),
    [
        ("INSERT INTO executions (status) VALUES ('pending')", "23502", 'null value in column "pipeline_name"', None),
        (
            "INSERT INTO executions (pipeline_name, lane) VALUES ('p', 'longer than it may be')",
            "22001",
            "value too long for type character varying(10)",
            None,
        ),
        (
            "INSERT INTO executions (pipeline_name, started_at, completed_at) VALUES ('p', 'now', 'yesterday')",
            "23514",
            'violates check constraint "ends_after_start"',
            "ends_after_start",
        ),
        (
            "INSERT INTO executions (pipeline_name, feed_id) VALUES ('p', 'f0000000-0000-4000-8000-000000000009')",
            "23503",
            'violates foreign key constraint "of_feed"',
            "of_feed",
        ),
        (
            "INSERT INTO executions (pipeline_name, parent_execution_id) VALUES ('p', gen_random_uuid())",
            "23503",
            "violates foreign key constraint",
            "runs_parent_run_id_fkey",
        ),
        (
            "INSERT INTO executions (pipeline_name, status) VALUES ('p', 'odd')",
            "23514",
            "executions is a view by now and cannot hold this row: 'odd' is not in the value map",
            None,
        ),
        (
            "INSERT INTO executions (pipeline_name, idempotency_key) VALUES ('p', 'k'), ('p', 'k')",
            "23505",
            "duplicate key value",
            "uq_idempotency",
        ),
        (
            "INSERT INTO execution_events (execution_id, event_type) VALUES (gen_random_uuid(), 'started')",
            "23503",
            "violates foreign key constraint",
            "run_events_run_id_fkey",
        ),
    ],
)
def test_what_the_table_refused(
    application: Connection, statement: LiteralString, sqlstate: str, said: str, constraint: str | None
) -> None:
    """With the SQLSTATE that the application knows."""
    state, message, name = refused(application, statement)
    assert (state, name) == (sqlstate, constraint)
    assert said in message


def test_rules_hold_for_updates_of_what_they_are_about(application: Connection) -> None:
    """A run that another made and that breaks a rule of the old table is no reason to refuse other columns' update."""
    application.execute(
        "INSERT INTO runs (run_id, kind, name, status, started_at, completed_at, metadata) VALUES"
        " (%s, 'pipeline', 'p', 'suspended', now(), now() - '1s'::interval,"
        ' \'{"feed_id": "f0000000-0000-4000-8000-000000000009"}\')',
        (uuid(1),),
    )
    application.execute("UPDATE executions SET error = 'e'")
    assert refused(application, "UPDATE executions SET completed_at = started_at - '2s'::interval")[0] == "23514"
    assert refused(application, "UPDATE executions SET feed_id = 'f0000000-0000-4000-8000-000000000008'")[0] == "23503"
    assert refused(application, "UPDATE executions SET status = 'odd'")[0] == "23514"
    assert refused(application, "UPDATE executions SET pipeline_name = NULL")[0] == "23502"
    application.execute("UPDATE executions SET completed_at = NULL, feed_id = NULL, status = 'failed'")


def test_defaults_and_sequences_go_on(application: Connection) -> None:
    made = application.execute(
        "INSERT INTO executions (pipeline_name) VALUES ('p')"
        " RETURNING execution_id, status, max_retries, created_at = now()"
    ).fetchone()
    assert made is not None
    assert made[1:] == ("pending", 3, True)
    assert application.execute("SELECT run_id FROM runs").fetchone() == (made[0],)
    application.execute("INSERT INTO jobs_legacy (job_type) VALUES ('t')")
    first = application.execute("SELECT max(job_id) FROM jobs_legacy").fetchone()
    second = application.execute("INSERT INTO jobs (job_type) VALUES ('t') RETURNING job_id, lastval()").fetchone()
    assert first is not None
    assert second == (first[0] + 1, first[0] + 1)


def test_many_rows_and_copy(application: Connection) -> None:
    with application.cursor().copy("COPY executions (execution_id, pipeline_name, retry_count) FROM STDIN") as copy:
        for number in range(20):
            copy.write_row((uuid(number), "p", number))
    application.execute("INSERT INTO jobs (job_type) SELECT pipeline_name FROM executions")
    assert application.execute("UPDATE executions SET status = 'queued' WHERE retry_count > 4").rowcount == 15
    assert application.execute(
        "SELECT (SELECT count(*) FROM executions WHERE status = 'queued'), (SELECT count(*) FROM jobs),"
        " (SELECT count(*) FROM runs)"
    ).fetchone() == (15, 20, 40)


def test_what_no_view_takes(application: Connection) -> None:
    """What cutover.sql_text looks for is refused for the reason that it gives."""
    for statement in (
        "INSERT INTO executions (pipeline_name) VALUES ('p') ON CONFLICT (execution_id) DO NOTHING",
        "INSERT INTO jobs (job_id, job_type) VALUES (1, 't'), (1, 't') ON CONFLICT DO NOTHING",
        "TRUNCATE executions",
        "COPY executions TO STDOUT",
        "SELECT ctid FROM executions",
        "SELECT * FROM executions TABLESAMPLE system (1)",
    ):
        assert (refused(application, statement)[0] or "")[:2] in ("42", "0A", "23"), statement
    assert application.execute("SELECT pg_get_serial_sequence('jobs', 'job_id')").fetchone() == (None,)


def test_settings_of_a_session_do_not_matter(application: Connection) -> None:
    """Nor does what a schema of the session's search_path calls by a name of the server's."""
    application.execute("CREATE SCHEMA trap")
    application.execute("CREATE FUNCTION trap.jsonb_typeof(jsonb) RETURNS text LANGUAGE sql AS 'SELECT ''trap'''")
    application.execute("SET LOCAL search_path = trap, pg_catalog, public")
    application.execute("SET LOCAL timezone = 'Pacific/Apia'")
    application.execute("SET LOCAL datestyle = 'German'")
    application.execute("INSERT INTO jobs (job_type, created_at) VALUES ('t', '2020-05-04 10:00:00')")
    application.execute("UPDATE jobs SET attempts = 2, started_at = '2020-05-04 11:00:00'")
    application.execute("SET LOCAL timezone = 'UTC'")
    application.execute("SET LOCAL datestyle = 'ISO'")
    assert application.execute(
        "SELECT created_at::text, started_at::text, metadata - 'legacy' FROM runs"
    ).fetchone() == (
        "2020-05-04 10:00:00+00",
        "2020-05-04 11:00:00+00",
        {"migrated_from": "capture-spine/jobs"},
    )


def test_writes_are_noted_once_per_backend_and_hour(strict: Database, application: Connection) -> None:
    noted: LiteralString = "SELECT operation, role, application FROM spine_migrate.view_write"
    application.execute("SET LOCAL application_name = 'old app'")
    application.execute("SELECT * FROM executions")
    assert application.execute(noted).fetchall() == []
    for _ in range(3):
        application.execute("INSERT INTO executions (pipeline_name) VALUES ('p')")
    # Another where the hour turns meanwhile.
    found = application.execute(noted).fetchall()
    assert set(found) == {("INSERT", strict.owner.name, "old app")}
    assert len(found) in (1, 2)
    ((migration,),) = application.execute("SELECT DISTINCT migration_id FROM spine_migrate.view_write").fetchall()
    (writer,) = writers(application, migration)
    assert (writer.role, writer.application, writer.operations) == (strict.owner.name, "old app", ["INSERT"])
    assert writers(application, migration + 1) == []
    # What was rolled back was not written, and is noted again.
    application.rollback()
    application.execute("INSERT INTO executions (pipeline_name) VALUES ('p')")
    assert len(application.execute(noted).fetchall()) in (1, 2)


def test_a_note_is_of_the_hour_by_the_clock(server_url: str, owner: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of that in which the transaction began, never of one that is still to come. The hour has a second here."""
    monkeypatch.setattr(trigger_bodies, "NOTE_SECONDS", 1)
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database:
        build(database)
        with connect(database.url) as tool:
            number = switch(tool, "capture-spine/executions").migration_id
        with psycopg.connect(database.url) as application:
            for _ in range(2):
                application.execute("INSERT INTO executions (pipeline_name) VALUES ('p')")
                application.execute("SELECT pg_sleep(1.1)")
            noted: LiteralString = "SELECT count(DISTINCT floor(extract(epoch FROM at))) FROM spine_migrate.view_write"
            assert application.execute(noted).fetchone() == (2,)
        for _ in range(10):
            with psycopg.connect(database.url) as application:
                application.execute("SELECT pg_sleep(0.1)")
                application.execute("INSERT INTO executions (pipeline_name) VALUES ('p')")
                held = application.execute(
                    "SELECT current_setting(%s)::numeric <= floor(extract(epoch FROM max(at)))"
                    " FROM spine_migrate.view_write",
                    (f"spine_migrate.view_{number}",),
                ).fetchone()
                assert held == (True,)


def test_dropping_leaves_nothing(server_url: str, owner: Role) -> None:
    """And may be done again, when the legacy table has its name back."""
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        connect(database.url) as tool,
    ):
        build(database)
        there: LiteralString = (
            "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'spine_migrate'::regnamespace)::int,"
            " to_regclass('public.jobs') IS NULL"
        )
        # The schema's own.
        ((functions, _),) = tool.execute(there).fetchall()
        made = switch(tool, "capture-spine/jobs")
        assert tool.execute(there).fetchone() == (functions + 4, False)
        made.drop()
        assert tool.execute(there).fetchone() == (functions, True)
        tool.execute("ALTER TABLE public.jobs_legacy RENAME TO jobs")
        made.drop()
        assert tool.execute(there).fetchone() == (functions, False)
