"""The triggers: what they log, on which kinds of tables, and what they cost nobody."""

from __future__ import annotations

import threading
from typing import LiteralString

import psycopg
import pytest

from spine_migrate.db import captures, catalog, schema
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.db.patience import Patience
from spine_migrate.errors import Interrupted, Refused
from spine_migrate.mapping.emit.capture import Key
from spine_migrate.sync import capture
from tests.database import Database
from tests.legacy import Connection, Legacy, build, uuid
from tests.partitions import partition_executions
from tests.syncing import PATIENCE, apply, capture_of, in_another_session, logged, move_live
from tests.waiting import LONGEST


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def keys(legacy: Legacy) -> set[str | None]:
    """What is in the log, which is then emptied."""
    found = set(logged(legacy))
    legacy.execute("DELETE FROM spine_migrate.change_log")
    return found


def write(legacy: Legacy, *statements: LiteralString) -> None:
    for statement in statements:
        legacy.execute(statement)


def test_every_kind_of_write_is_logged(legacy: Legacy) -> None:
    legacy.many_executions(3)
    move_live(legacy)
    legacy.executions(4)
    assert keys(legacy) == {uuid(4)}
    legacy.execute("UPDATE executions SET error = 'x' WHERE execution_id <> %s", uuid(4))
    assert keys(legacy) == {uuid(1), uuid(2), uuid(3)}
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(4))
    assert keys(legacy) == {uuid(4)}
    legacy.execute(
        "INSERT INTO executions (execution_id, pipeline_name, status) VALUES (%s, 'a', 'pending'), (%s, 'b', 'pending')"
        " ON CONFLICT (execution_id) DO UPDATE SET error = 'met'",
        uuid(1),
        uuid(5),
    )
    assert keys(legacy) == {uuid(1), uuid(5)}
    with (
        legacy.connect() as connection,
        connection.cursor() as cursor,
        cursor.copy("COPY executions (execution_id, pipeline_name, status) FROM STDIN") as rows,
    ):
        rows.write_row((uuid(6), "copied", "pending"))
    assert keys(legacy) == {uuid(6)}
    write(legacy, "TRUNCATE executions CASCADE")
    assert keys(legacy) == {None}


def test_a_statement_logs_once_and_a_rollback_nothing(legacy: Legacy) -> None:
    legacy.many_executions(50)
    move_live(legacy)
    assert capture_of(legacy).style == "statement"
    with legacy.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("UPDATE executions SET error = 'x'")
    assert not logged(legacy)


def test_what_a_kill_has_left_in_the_log_goes_with_the_next_start(legacy: Legacy) -> None:
    """Entries of a capture that is over, of which nobody else knows."""
    legacy.many_executions(1)
    legacy.execute("INSERT INTO spine_migrate.change_log (capture_id, row_key) VALUES (999, 'left')")
    move_live(legacy)
    assert not logged(legacy)


def test_a_key_is_spelled_alike_whatever_the_session_has_set(legacy: Legacy) -> None:
    """As the applier spells it, which would otherwise take a row that it does not find for one that is gone."""
    legacy.many_executions(1)
    move_live(legacy)
    write(legacy, "CREATE TABLE odd (at timestamptz PRIMARY KEY)")
    with connect(legacy.url) as connection, connection.transaction():
        odd = catalog.find(connection, "odd", None)
        capture.put(
            connection,
            migration_id=capture_of(legacy).migration_id,
            direction=captures.REVERSE,
            relation=odd.name,
            oid=odd.oid,
            key=Key.column("at"),
        )
    with legacy.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.execute("SET DateStyle = 'German'")
        connection.execute("INSERT INTO odd VALUES ('02.01.2026 12:04:05+09')")
        assert connection.execute("SELECT at::text FROM odd").fetchall() == [("02.01.2026 12:04:05 JST",)]
    assert keys(legacy) == {"2026-01-02 03:04:05+00"}


def test_a_replica_s_session_is_captured_too(legacy: Legacy, database: Database) -> None:
    """Triggers of an ordinary kind do not fire where session_replication_role is replica."""
    legacy.many_executions(2)
    move_live(legacy)
    with database.connect_admin() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE executions SET error = 'x'")
        connection.commit()
    assert keys(legacy) == {uuid(1), uuid(2)}


def test_an_application_needs_no_right_on_the_log(legacy: Legacy, database: Database) -> None:
    """The role may write to its table, and nothing else."""
    legacy.many_executions(2)
    move_live(legacy)
    role = database.add_role("app")
    with database.connect() as connection:
        connection.execute(
            psycopg.sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON executions TO {}").format(
                psycopg.sql.Identifier(role.name)
            )
        )
        connection.commit()
    with psycopg.connect(database.url_as(role), autocommit=True) as connection:
        connection.execute("UPDATE executions SET error = 'x'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT FROM spine_migrate.change_log")
    assert keys(legacy) == {uuid(1), uuid(2)}


def test_a_partitioned_table(legacy: Legacy) -> None:
    """Row by row: through the parent, in a partition directly, across partitions, in one that is added later."""
    partition_executions(legacy)
    legacy.many_executions(3)
    move_live(legacy)
    found = capture_of(legacy)
    assert (found.style, "partition" in (found.why or "")) == ("row", True)
    legacy.execute("UPDATE parts_low SET error = 'x' WHERE execution_id = %s", uuid(1))
    assert keys(legacy) == {uuid(1)}
    legacy.execute("UPDATE executions SET execution_id = %s WHERE execution_id = %s", uuid(150), uuid(2))
    assert keys(legacy) == {uuid(2), uuid(150)}
    write(
        legacy,
        "CREATE TABLE parts_new PARTITION OF executions FOR VALUES FROM ('10000000-0000-4000-8000-000000000000')"
        " TO (MAXVALUE)",
        "INSERT INTO parts_new (execution_id, pipeline_name, status)"
        " VALUES ('20000000-0000-4000-8000-000000000000', 'x', 'pending')",
    )
    assert keys(legacy) == {"20000000-0000-4000-8000-000000000000"}
    write(legacy, "TRUNCATE parts_high")
    assert keys(legacy) == {None}


def test_a_partition_that_is_added_later_is_not_whole(legacy: Legacy) -> None:
    """It lacks the trigger for TRUNCATE, which is told."""
    partition_executions(legacy)
    legacy.many_executions(3)
    move_live(legacy)
    write(
        legacy,
        "CREATE TABLE parts_new PARTITION OF executions FOR VALUES FROM ('10000000-0000-4000-8000-000000000000')"
        " TO (MAXVALUE)",
    )
    with pytest.raises(Refused, match='"parts_new" are not all captured'):
        apply(legacy)


def test_a_table_that_others_inherit_from(legacy: Legacy) -> None:
    write(legacy, "CREATE TABLE child () INHERITS (executions)")
    legacy.many_executions(2)
    write(
        legacy,
        "INSERT INTO child (execution_id, pipeline_name, status)"
        " VALUES ('20000000-0000-4000-8000-000000000000', 'x', 'pending')",
        "ALTER TABLE child ADD PRIMARY KEY (execution_id)",
    )
    with pytest.raises(Refused, match="unique"):
        move_live(legacy)


@pytest.mark.parametrize("damage", ["DISABLE", "ENABLE"])
def test_a_trigger_that_does_not_fire_is_told(legacy: Legacy, damage: str) -> None:
    """ENABLE makes an ordinary one of it, which a replica's session passes by."""
    legacy.many_executions(2)
    move_live(legacy)
    name = f"spine_capture_{capture_of(legacy).capture_id}_update"
    legacy.execute(
        psycopg.sql.SQL("ALTER TABLE executions {} TRIGGER {}").format(
            psycopg.sql.SQL("DISABLE" if damage == "DISABLE" else "ENABLE"), psycopg.sql.Identifier(name)
        )
    )
    with pytest.raises(Refused, match=f"{name} is missing or does not fire"):
        apply(legacy)


def test_writers_in_flight_are_waited_for_in_short_attempts(legacy: Legacy) -> None:
    """As long as one holds the table, nothing is installed, and nobody queues behind us for longer than an attempt."""
    legacy.many_executions(2)
    legacy.move()
    held, done = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        with connection.transaction():
            connection.execute("UPDATE executions SET error = 'x' WHERE execution_id = %s", (uuid(1),))
            held.set()
            assert done.wait(5 * LONGEST)

    writer = in_another_session(legacy, hold)
    assert held.wait(LONGEST)
    try:
        with (
            connect(legacy.url, settings=PINNED) as connection,
            pytest.raises(Interrupted, match="could not be locked"),
        ):
            _install(connection, legacy, Patience(lock_timeout=50, seconds=0.5))
    finally:
        done.set()
        writer.join()
    assert legacy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'spine%%'") == 0
    assert legacy.value("SELECT count(*) FROM spine_migrate.capture") == 0
    with connect(legacy.url, settings=PINNED) as connection:
        _install(connection, legacy, PATIENCE)
    legacy.executions(7)
    assert keys(legacy) == {uuid(7)}


def _install(connection: psycopg.Connection[tuple[object, ...]], legacy: Legacy, patience: Patience) -> None:
    source = catalog.find(connection, "executions", "public")
    capture.install(
        connection,
        migration_id=1,
        direction=captures.FORWARD,
        relation=source.name,
        oid=source.oid,
        key=Key.column("execution_id"),
        patience=patience,
        stop=threading.Event(),
    )


def test_capture_that_begins_late(legacy: Legacy) -> None:
    """What has changed between the move and the capture is found and brought up to date."""
    legacy.many_executions(10)
    legacy.move()
    legacy.execute("UPDATE executions SET error = 'later' WHERE execution_id = %s", uuid(1))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(2))
    legacy.executions(11)
    move_live(legacy)
    apply(legacy)
    legacy.prove()
    assert legacy.value("SELECT count(*) FROM runs") == 10


def test_removed_without_a_trace(legacy: Legacy) -> None:
    legacy.many_executions(2)
    move_live(legacy)
    legacy.executions(3)
    found = capture_of(legacy)
    with connect(legacy.url, settings=PINNED) as connection:
        capture.remove(connection, found, patience=PATIENCE, stop=threading.Event())
    assert legacy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'spine%%'") == 0
    assert legacy.value("SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture%%'") == 0
    assert legacy.value("SELECT count(*) FROM spine_migrate.change_log") == 0
    legacy.executions(4)
    with pytest.raises(Refused, match="No changes are captured"):
        apply(legacy)


def test_a_start_that_was_killed_before_it_compared_is_ended_by_the_next(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggers are committed by then, so that there being a capture proves nothing."""
    legacy.many_executions(3)
    legacy.move()
    legacy.execute("UPDATE executions SET error = 'later' WHERE execution_id = %s", uuid(1))
    with monkeypatch.context() as patched:
        patched.setattr("spine_migrate.sync.start.catch_up", _killed)
        with pytest.raises(KeyboardInterrupt):
            move_live(legacy)
    assert not capture_of(legacy).caught_up
    move_live(legacy)
    assert capture_of(legacy).caught_up
    apply(legacy)
    legacy.prove()


def _killed(*_: object, **_named: object) -> None:
    raise KeyboardInterrupt


def test_a_downgrade_is_refused_while_changes_are_captured(legacy: Legacy) -> None:
    """The log would be gone, and with it every write of the application."""
    legacy.many_executions(2)
    move_live(legacy)
    with pytest.raises(Refused, match="run spine-migrate sync stop"):
        schema.downgrade(legacy.url, revision="spine_0006", force=True)
    legacy.executions(9)
    assert uuid(9) in keys(legacy)
