"""Keys, and what points to them, through the view."""

from __future__ import annotations

from secrets import token_hex
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from tests.database import Role, fresh_database
from tests.legacy import build, uuid
from tests.views import refused, switch

Connection = psycopg.Connection[Any]


def test_deleting_takes_along_what_the_legacy_schema_says(application: Connection) -> None:
    application.execute(
        "INSERT INTO executions (execution_id, pipeline_name) VALUES (%s, 'p'), (%s, 'p')", (uuid(1), uuid(2))
    )
    application.execute("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", (uuid(1), uuid(2)))
    application.execute(
        "INSERT INTO execution_events (execution_id, event_type) SELECT execution_id, 'started' FROM executions"
    )
    # The parent has a foreign key in the legacy table, without an action; the other link has none.
    assert refused(application, "DELETE FROM executions WHERE execution_id = %s", uuid(1))[0] == "23503"
    assert application.execute("DELETE FROM executions WHERE execution_id = %s", (uuid(2),)).rowcount == 1
    assert application.execute("SELECT execution_id::text FROM execution_events").fetchall() == [(uuid(1),)]


def test_a_key_changes_where_nothing_points_to_it(application: Connection) -> None:
    application.execute("INSERT INTO executions (execution_id, pipeline_name) VALUES (%s, 'p')", (uuid(1),))
    change: LiteralString = "UPDATE executions SET execution_id = %s RETURNING execution_id::text"
    assert application.execute(change, (uuid(2),)).fetchall() == [(uuid(2),)]
    application.execute("INSERT INTO execution_events (execution_id, event_type) VALUES (%s, 'started')", (uuid(2),))
    state, message, constraint = refused(application, change, uuid(3))
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
        build(database).execute(
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
                assert refused(application, "DELETE FROM executions WHERE execution_id = %s", uuid(1))[0] == left
                return
            assert application.execute("DELETE FROM executions WHERE execution_id = %s", (uuid(1),)).rowcount == 1
            assert (
                application.execute(
                    "SELECT execution_id::text, parent_execution_id::text FROM executions ORDER BY 1"
                ).fetchall()
                == left
            )
            assert application.execute("SELECT FROM spine_migrate.link").fetchall() == []


def test_rows_that_point_to_each_other_are_deleted_by_one_statement(server_url: str, owner: Role) -> None:
    """The first clears what the second points to, which is deleted all the same; what has really changed stays."""
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        connect(database.url) as tool,
    ):
        build(database).execute(
            "ALTER TABLE executions ADD FOREIGN KEY (parent_execution_id) REFERENCES executions ON DELETE SET NULL"
        )
        switch(tool, "capture-spine/executions")
        with psycopg.connect(database.url) as application:
            application.execute(
                "INSERT INTO executions (execution_id, pipeline_name, parent_execution_id)"
                " VALUES (%s, 'p', NULL), (%s, 'p', %s), (%s, 'p', %s)",
                (uuid(1), uuid(2), uuid(1), uuid(3), uuid(2)),
            )
            assert application.execute("DELETE FROM executions RETURNING parent_execution_id::text").fetchall() == [
                (None,),
                (uuid(1),),
                (uuid(2),),
            ]
            assert application.execute("SELECT count(*) FROM runs").fetchall() == [(0,)]
            # What the gate dependents says of such a foreign key.
            pair: LiteralString = (
                "INSERT INTO executions (execution_id, pipeline_name, parent_execution_id)"
                " VALUES (%s, 'p', %s), (%s, 'p', NULL)"
            )
            assert refused(application, pair, uuid(4), uuid(5), uuid(5))[0] == "23503"
