"""The rules of the legacy table hold for what is written through the view, and nothing but what changes is written."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from spine_migrate.carry.tables import find_tables
from spine_migrate.cutover.writers import writers
from spine_migrate.db.connect import connect
from spine_migrate.mapping.load import load
from tests.database import Database, Role, fresh_database
from tests.legacy import build, uuid
from tests.views import switch

Connection = psycopg.Connection[Any]

_STRICT: LiteralString = """
    CREATE TABLE feeds (feed_id uuid PRIMARY KEY);
    INSERT INTO feeds VALUES ('f0000000-0000-4000-8000-000000000001');
    ALTER TABLE executions ALTER COLUMN pipeline_name SET NOT NULL, ALTER COLUMN lane TYPE varchar(10),
        ADD CONSTRAINT ends_after_start CHECK (completed_at >= started_at),
        ADD CONSTRAINT of_feed FOREIGN KEY (feed_id) REFERENCES feeds,
        ADD CONSTRAINT of_parent FOREIGN KEY (parent_execution_id) REFERENCES executions;
    COMMENT ON TABLE executions IS 'what ran';
    COMMENT ON COLUMN executions.lane IS 'where it ran';
    ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey,
        ADD FOREIGN KEY (execution_id) REFERENCES executions ON DELETE CASCADE;
"""


@pytest.fixture(scope="module")
def database(server_url: str, owner: Role) -> Iterator[Database]:
    """Executions with rules of their own; events and jobs as the demo has them."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as created:
        build(created.url).execute(_STRICT)
        with connect(created.url) as tool:
            events = find_tables(
                tool, load("capture-spine/execution_events"), source_schema="public", target_schema=None
            )
            executions = switch(tool, "capture-spine/executions", others=[events])
            switch(tool, "capture-spine/execution_events", parent=executions.facts)
            switch(tool, "capture-spine/jobs")
        yield created


@pytest.fixture
def application(database: Database) -> Iterator[Connection]:
    """Whatever a test does is rolled back."""
    with psycopg.connect(database.url) as connection:
        # From here on, a further transaction is a savepoint.
        connection.execute("SELECT")
        yield connection
        connection.rollback()


def _refused(connection: Connection, statement: LiteralString, *values: object) -> tuple[str | None, str, str | None]:
    """SQLSTATE, message and constraint."""
    with pytest.raises(psycopg.Error) as caught, connection.transaction():
        connection.execute(statement, values)
    diag = caught.value.diag
    return caught.value.sqlstate, diag.message_primary or "", diag.constraint_name


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
    state, message, name = _refused(application, statement)
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
    assert _refused(application, "UPDATE executions SET completed_at = started_at - '2s'::interval")[0] == "23514"
    assert _refused(application, "UPDATE executions SET feed_id = 'f0000000-0000-4000-8000-000000000008'")[0] == "23503"
    assert _refused(application, "UPDATE executions SET status = 'odd'")[0] == "23514"
    assert _refused(application, "UPDATE executions SET pipeline_name = NULL")[0] == "23502"
    application.execute("UPDATE executions SET completed_at = NULL, feed_id = NULL, status = 'failed'")


_NATIVE: dict[str, object] = {
    "run_id": uuid(7),
    "kind": "pipeline",
    "name": "native",
    "params": Jsonb([1]),
    "priority": "high",
    "correlation_id": "c",
    "executor_name": "celery",
    "status": "suspended",
    "error_type": "T" * 90,
    "attempt": -(2**31),
    "metadata": Jsonb({"entity_type": "doc", "entity_id": "9", "feed_id": 17, "legacy": [1], "mine": {"a": 1.50}}),
    "tags": Jsonb({"t": None}),
}


def _native(connection: Connection, **values: object) -> None:
    row = {**_NATIVE, **values}
    connection.execute(
        sql.SQL("INSERT INTO runs ({}) VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(sql.Placeholder() * len(row))
        ),
        list(row.values()),
    )


def _runs(connection: Connection) -> list[Any]:
    return connection.execute("SELECT r.*::text FROM runs AS r ORDER BY run_id").fetchall()


def test_an_update_that_changes_nothing_leaves_the_run_as_it_is(application: Connection) -> None:
    """Whoever made it: all that the mapping would write otherwise stays."""
    _native(application)
    before = _runs(application)
    application.execute(
        "UPDATE executions SET pipeline_name = pipeline_name, status = status, feed_id = feed_id,"
        " retry_count = retry_count, params = params, error_type = error_type"
    )
    assert _runs(application) == before


def test_an_update_writes_what_it_changes_and_no_more(application: Connection) -> None:
    _native(application, attempt=3)
    application.execute("UPDATE executions SET retry_count = NULL, lane = 'slow'")
    found = application.execute(
        "SELECT lane, attempt, metadata, status, priority, correlation_id, executor_name, tags, params FROM runs"
    ).fetchone()
    metadata = {"entity_type": "doc", "entity_id": "9", "feed_id": 17, "mine": {"a": 1.5}}
    kept = {**metadata, "legacy": {"retry_count": None}}
    rest = ("suspended", "high", "c", "celery", {"t": None}, [1])
    assert found == ("slow", 1, kept, *rest)
    application.execute("UPDATE executions SET retry_count = 4, feed_id = 'f0000000-0000-4000-8000-000000000001'")
    feed = "f0000000-0000-4000-8000-000000000001"
    fed = {"entity_type": "feed", "entity_id": feed, "feed_id": feed, "mine": {"a": 1.5}}
    assert application.execute("SELECT attempt, metadata FROM runs").fetchone() == (5, fed)
    application.execute("UPDATE executions SET feed_id = NULL")
    assert application.execute("SELECT metadata FROM runs").fetchone() == ({"mine": {"a": 1.5}},)


def test_what_a_legacy_column_cannot_hold_is_null(application: Connection) -> None:
    """One run that somebody wrote otherwise does not make the view fail for all, whatever is asked of it."""
    _native(application, lane="x" * 11)
    row = application.execute("SELECT status, feed_id, retry_count, lane, params FROM executions").fetchone()
    assert row == (None, None, None, None, [1])
    assert application.execute("SELECT FROM executions WHERE feed_id = gen_random_uuid()").fetchall() == []
    assert application.execute("SELECT FROM jobs WHERE job_id = 1").fetchall() == []


def test_runs_without_a_legacy_form_are_not_shown(application: Connection) -> None:
    """Neither another kind, nor a task that was never a job, nor events of either; nothing of theirs can be written."""
    _native(application, kind="task")
    application.execute("INSERT INTO run_events (run_id, event_type) SELECT run_id, 'started' FROM runs")
    for table in ("executions", "jobs", "execution_events"):
        assert application.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(table))).fetchall() == []
        assert application.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table))).rowcount == 0
    assert application.execute("UPDATE executions SET error = 'e'").rowcount == 0
    assert _refused(application, "INSERT INTO executions (execution_id, pipeline_name) VALUES (%s, 'p')", uuid(7))[
        ::2
    ] == ("23505", "runs_pkey")


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
        assert (_refused(application, statement)[0] or "")[:2] in ("42", "0A", "23"), statement
    assert application.execute("SELECT pg_get_serial_sequence('jobs', 'job_id')").fetchone() == (None,)


def test_deleting_takes_along_what_the_legacy_schema_says(application: Connection) -> None:
    application.execute(
        "INSERT INTO executions (execution_id, pipeline_name) VALUES (%s, 'p'), (%s, 'p')", (uuid(1), uuid(2))
    )
    application.execute("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", (uuid(1), uuid(2)))
    application.execute(
        "INSERT INTO execution_events (execution_id, event_type) SELECT execution_id, 'started' FROM executions"
    )
    # The parent has a foreign key in the legacy table, without an action; the other link has none.
    assert _refused(application, "DELETE FROM executions WHERE execution_id = %s", uuid(1))[0] == "23503"
    assert application.execute("DELETE FROM executions WHERE execution_id = %s", (uuid(2),)).rowcount == 1
    assert application.execute("SELECT execution_id::text FROM execution_events").fetchall() == [(uuid(1),)]


def test_an_event_belongs_to_a_row_that_is_shown(application: Connection) -> None:
    """A run of another kind takes events, but none through the view: the legacy table had no such row to point to."""
    _native(application, kind="task")
    state, _, _ = _refused(
        application, "INSERT INTO execution_events (execution_id, event_type) VALUES (%s, 'started')", uuid(7)
    )
    assert state == "23503"


def test_a_key_changes_where_nothing_points_to_it(application: Connection) -> None:
    application.execute("INSERT INTO executions (execution_id, pipeline_name) VALUES (%s, 'p')", (uuid(1),))
    change: LiteralString = "UPDATE executions SET execution_id = %s RETURNING execution_id::text"
    assert application.execute(change, (uuid(2),)).fetchall() == [(uuid(2),)]
    application.execute("INSERT INTO execution_events (execution_id, event_type) VALUES (%s, 'started')", (uuid(2),))
    state, message, constraint = _refused(application, change, uuid(3))
    assert (state, constraint) == ("23503", "run_events_run_id_fkey")
    assert message.startswith('update or delete on table "runs" violates foreign key constraint')


def test_a_link_to_nowhere_is_shown_as_it_was_written(application: Connection) -> None:
    """retry_of_execution_id has no foreign key: the target has NULL, the ledger what is wanted, the view shows it."""
    application.execute(
        "INSERT INTO executions (execution_id, pipeline_name, retry_of_execution_id) VALUES (%s, 'p', %s)",
        (uuid(2), uuid(1)),
    )
    shown: LiteralString = "SELECT retry_of_execution_id::text FROM executions WHERE execution_id::text = %s"
    assert application.execute(shown, (uuid(2),)).fetchall() == [(uuid(1),)]
    wanted: LiteralString = "SELECT target_key, field, wanted, state FROM spine_migrate.link"
    assert application.execute(wanted).fetchall() == [(uuid(2), "retry_of_run_id", uuid(1), "waiting")]
    application.execute("UPDATE executions SET retry_of_execution_id = NULL")
    assert application.execute(wanted).fetchall() == []
    application.execute("INSERT INTO executions (execution_id, pipeline_name) VALUES (%s, 'p')", (uuid(1),))
    application.execute("UPDATE executions SET retry_of_execution_id = %s WHERE execution_id = %s", (uuid(1), uuid(2)))
    assert application.execute(wanted).fetchall() == []
    application.execute("DELETE FROM executions WHERE execution_id = %s", (uuid(1),))
    assert application.execute(shown, (uuid(2),)).fetchall() == [(uuid(1),)]
    assert application.execute(wanted).fetchall() == [(uuid(2), "retry_of_run_id", uuid(1), "broken")]
    application.execute("DELETE FROM executions")
    assert application.execute(wanted).fetchall() == []


def test_a_key_that_changes_takes_its_links_along(application: Connection) -> None:
    """What it wants goes on being wanted; what pointed to it by no foreign key points to what is not there."""
    application.execute(
        "INSERT INTO executions (execution_id, pipeline_name, retry_of_execution_id)"
        " VALUES (%s, 'p', %s), (%s, 'p', %s)",
        (uuid(1), uuid(9), uuid(2), uuid(1)),
    )
    application.execute("UPDATE executions SET execution_id = %s WHERE execution_id = %s", (uuid(3), uuid(1)))
    assert application.execute(
        "SELECT execution_id::text, retry_of_execution_id::text FROM executions ORDER BY 1"
    ).fetchall() == [(uuid(2), uuid(1)), (uuid(3), uuid(9))]
    assert application.execute("SELECT target_key, wanted, state FROM spine_migrate.link ORDER BY 1").fetchall() == [
        (uuid(2), uuid(1), "broken"),
        (uuid(3), uuid(9), "waiting"),
    ]


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


def test_writes_are_noted_once_per_backend_and_hour(database: Database, application: Connection) -> None:
    noted: LiteralString = "SELECT operation, role, application FROM spine_migrate.view_write"
    application.execute("SET LOCAL application_name = 'old app'")
    application.execute("SELECT * FROM executions")
    assert application.execute(noted).fetchall() == []
    for _ in range(3):
        application.execute("INSERT INTO executions (pipeline_name) VALUES ('p')")
    assert application.execute(noted).fetchall() == [("INSERT", database.owner.name, "old app")]
    ((migration,),) = application.execute("SELECT migration_id FROM spine_migrate.view_write").fetchall()
    (writer,) = writers(application, migration)
    assert (writer.role, writer.application, writer.operations) == (database.owner.name, "old app", ["INSERT"])
    assert writers(application, migration + 1) == []
    # What was rolled back was not written, and is noted again.
    application.rollback()
    application.execute("INSERT INTO executions (pipeline_name) VALUES ('p')")
    assert len(application.execute(noted).fetchall()) == 1


def test_dropping_leaves_nothing(server_url: str, owner: Role) -> None:
    """And may be done again, when the legacy table has its name back."""
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        connect(database.url) as tool,
    ):
        build(database.url)
        ours: LiteralString = (
            "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'spine_migrate'::regnamespace"
            " AND proname NOT LIKE '%old_snapshot'),"
            " to_regclass('public.jobs') IS NULL"
        )
        made = switch(tool, "capture-spine/jobs")
        assert tool.execute(ours).fetchone() == (4, False)
        made.drop()
        assert tool.execute(ours).fetchone() == (0, True)
        tool.execute("ALTER TABLE public.jobs_legacy RENAME TO jobs")
        made.drop()
        assert tool.execute(ours).fetchone() == (0, False)


@pytest.mark.parametrize(
    ("action", "left"),
    [
        ("ON DELETE CASCADE", []),
        ("ON DELETE SET NULL", [(uuid(2), None), (uuid(3), uuid(2))]),
        ("ON DELETE RESTRICT", "23503"),
        ("", "23503"),
    ],
)
def test_a_foreign_key_of_the_table_to_itself_acts_as_it_did(
    server_url: str, owner: Role, action: LiteralString, left: object
) -> None:
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        connect(database.url) as tool,
    ):
        build(database.url).execute(
            sql.SQL("ALTER TABLE executions ADD FOREIGN KEY (parent_execution_id) REFERENCES executions {}").format(
                sql.SQL(action)
            )
        )
        switch(tool, "capture-spine/executions")
        with psycopg.connect(database.url) as application:
            application.execute(
                "INSERT INTO executions (execution_id, pipeline_name, parent_execution_id)"
                " VALUES (%s, 'p', NULL), (%s, 'p', %s), (%s, 'p', %s)",
                (uuid(1), uuid(2), uuid(1), uuid(3), uuid(2)),
            )
            if isinstance(left, str):
                assert _refused(application, "DELETE FROM executions WHERE execution_id = %s", uuid(1))[0] == left
                return
            assert application.execute("DELETE FROM executions WHERE execution_id = %s", (uuid(1),)).rowcount == 1
            assert (
                application.execute(
                    "SELECT execution_id::text, parent_execution_id::text FROM executions ORDER BY 1"
                ).fetchall()
                == left
            )
            assert application.execute("SELECT FROM spine_migrate.link").fetchall() == []
