"""The applier: after any change of the legacy table the target is what the table says."""

from __future__ import annotations

import pytest

from spine_migrate.carry.known import chosen, known
from spine_migrate.db.connect import connect
from spine_migrate.sync import applier, loop
from spine_migrate.sync.appliers import applier_of
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid
from tests.syncing import apply, capture_of, logged, move_live


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@arranged
def live(legacy: Legacy) -> None:
    """Ten executions, moved, their changes captured."""
    legacy.many_executions(10)
    move_live(legacy)


def test_insert_update_delete(live: Legacy) -> None:
    live.executions(11, 12)
    live.execute("UPDATE executions SET status = 'failed', error = 'boom' WHERE execution_id = %s", uuid(3))
    live.execute("DELETE FROM executions WHERE execution_id = %s", uuid(4))
    (done,) = apply(live)
    live.prove()
    assert (done.applied.inserted, done.applied.updated, done.applied.deleted) == (2, 1, 1)
    assert done.lag.nothing
    assert not logged(live)


def test_a_key_that_changes(live: Legacy) -> None:
    live.execute("UPDATE executions SET execution_id = %s WHERE execution_id = %s", uuid(99), uuid(1))
    assert sorted(filter(None, logged(live))) == [uuid(1), uuid(99)]
    apply(live)
    live.prove()
    assert live.value("SELECT count(*) FROM runs") == 10


def test_keys_that_change_places(live: Legacy) -> None:
    """Both keys are there before and after, with each other's rows."""
    live.execute("UPDATE executions SET execution_id = %s, error = 'was 1' WHERE execution_id = %s", uuid(50), uuid(1))
    live.execute("UPDATE executions SET execution_id = %s WHERE execution_id = %s", uuid(1), uuid(2))
    live.execute("UPDATE executions SET execution_id = %s WHERE execution_id = %s", uuid(2), uuid(50))
    apply(live)
    live.prove()


def test_delete_and_insert_again_in_one_transaction(live: Legacy) -> None:
    with live.connect() as connection, connection.transaction():
        connection.execute("DELETE FROM executions WHERE execution_id = %s", (uuid(5),))
        connection.execute(
            "INSERT INTO executions (execution_id, pipeline_name, status) VALUES (%s, 'other', 'running')", (uuid(5),)
        )
    apply(live)
    live.prove()
    assert live.value("SELECT name FROM runs WHERE run_id = %s", uuid(5)) == "other"


def test_what_is_not_committed_is_not_applied(live: Legacy) -> None:
    with live.connect() as connection:
        with connection.transaction(force_rollback=True):
            connection.execute("UPDATE executions SET status = 'failed'")
            apply(live)
        assert live.value("SELECT count(*) FROM runs WHERE status = 'failed'") == 0
    live.prove()


def test_an_older_entry_that_commits_later(live: Legacy) -> None:
    """Its number in the log is lower than that of entries which are long applied."""
    with live.connect() as slow:
        with slow.transaction():
            slow.execute("UPDATE executions SET error = 'slow' WHERE execution_id = %s", (uuid(1),))
            live.execute("UPDATE executions SET error = 'quick' WHERE execution_id = %s", uuid(2))
            apply(live)
            assert live.value("SELECT error FROM runs WHERE run_id = %s", uuid(2)) == "quick"
        apply(live)
    live.prove()


def test_truncate(live: Legacy) -> None:
    live.execute("TRUNCATE executions CASCADE")
    live.executions(3, 77)
    apply(live)
    live.prove()
    assert live.value("SELECT count(*) FROM runs") == 2


def test_truncate_where_a_row_must_stay(live: Legacy) -> None:
    """Something of the application's points to it; those behind it go all the same, and so does it in the end."""
    live.execute("CREATE TABLE kept (run_id uuid REFERENCES runs)")
    live.execute("INSERT INTO kept SELECT run_id FROM runs ORDER BY run_id LIMIT 4")
    live.execute("TRUNCATE executions CASCADE")
    with connect(live.url, settings=loop.APPLIER_SETTINGS) as session:
        (one,) = [known(session, migration) for migration in chosen(session)]
        made = applier_of(session, one, capture_of(live), [])
        made.next(session, limit=100)
        assert made.remove_all_extra(session, limit=2).deleted == 6
        assert live.value("SELECT count(*) FROM runs") == 4
        assert not made.awaits_everything(session)
        live.execute("DROP TABLE kept")
        assert made.deferred(session, limit=100, patient=True).deleted == 4
    assert not live.rows("TABLE spine_migrate.pending")


def test_one_ends_and_another_begins_on_the_same_feed(live: Legacy) -> None:
    """In one transaction, whatever their order: the target allows one active run per feed."""
    feed = uuid(7000)
    live.executions(20, status="running", feed_id=feed)
    live.executions(21, status="completed", feed_id=feed)
    apply(live)
    with live.connect() as connection, connection.transaction():
        connection.execute("UPDATE executions SET status = 'completed' WHERE execution_id = %s", (uuid(20),))
        connection.execute("UPDATE executions SET status = 'running' WHERE execution_id = %s", (uuid(21),))
        connection.execute("UPDATE executions SET status = 'completed' WHERE execution_id = %s", (uuid(21),))
        connection.execute(
            "INSERT INTO executions (execution_id, pipeline_name, status, feed_id) VALUES (%s, 'x', 'running', %s)",
            (uuid(19), feed),
        )
    (done,) = apply(live)
    assert done.applied.deferred == 0
    live.prove()


def test_values_of_a_unique_index_that_change_places(live: Legacy) -> None:
    """Neither of the two rows can be first."""
    live.executions(30, idempotency_key="a")
    live.executions(31, idempotency_key="b")
    apply(live)
    with live.connect() as connection, connection.transaction():
        connection.execute("UPDATE executions SET idempotency_key = NULL WHERE execution_id = %s", (uuid(30),))
        connection.execute("UPDATE executions SET idempotency_key = 'a' WHERE execution_id = %s", (uuid(31),))
        connection.execute("UPDATE executions SET idempotency_key = 'b' WHERE execution_id = %s", (uuid(30),))
    (done,) = apply(live)
    assert done.applied.deferred == 0
    live.prove()


def test_a_place_that_stays_taken(live: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a row of the runtime's: after some attempts it is quarantined beside that row; it moves when it is free."""
    monkeypatch.setattr(applier, "MOST_ATTEMPTS", 2)
    monkeypatch.setattr(applier, "LONGEST_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SOON", 0.0)
    monkeypatch.setattr(loop, "DEPENDENT", 0.0)
    live.execute("INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'x', 'k')", uuid(900))
    live.executions(41, idempotency_key="k")
    apply(live)
    assert live.quarantine() == [(uuid(41), "unique_conflict", None, "23505", "uq_idempotency")]
    assert live.value("SELECT colliding_row ->> 'run_id' FROM spine_migrate.quarantine") == uuid(900)
    live.execute("UPDATE runs SET idempotency_key = NULL WHERE run_id = %s", uuid(900))
    live.executions(42)
    apply(live)
    live.prove()
    assert not live.quarantine()


def test_a_unique_index_that_is_made_meanwhile(live: Legacy) -> None:
    """A collision in it puts the row off, and keeps nothing else from being applied."""
    with connect(live.url, settings=loop.APPLIER_SETTINGS) as session:
        (one,) = [known(session, migration) for migration in chosen(session)]
        made = applier_of(session, one, capture_of(live), [])
        live.execute("CREATE UNIQUE INDEX made_since ON runs (error) WHERE error = 'once'")
        live.execute(
            "UPDATE executions SET status = 'failed', error = 'once' WHERE execution_id IN (%s, %s)", uuid(1), uuid(2)
        )
        live.executions(11)
        done = made.next(session, limit=100)
    assert (done.inserted, done.updated, done.deferred) == (1, 1, 1)
    assert live.value("SELECT count(*) FROM runs") == 11


def test_a_row_that_cannot_be_carried_any_more_and_is_mended(live: Legacy) -> None:
    """Its last good state stays on the target."""
    live.execute("UPDATE executions SET status = 'odd' WHERE execution_id = %s", uuid(1))
    (done,) = apply(live)
    assert done.applied.quarantined == 1
    assert [row[:2] for row in live.quarantine()] == [(uuid(1), "unknown_value")]
    assert live.value("SELECT status FROM runs WHERE run_id = %s", uuid(1)) == "completed"
    live.execute("UPDATE executions SET status = 'failed' WHERE execution_id = %s", uuid(1))
    (done,) = apply(live)
    assert done.applied.released == 1
    live.prove()


def test_a_row_that_cannot_even_be_compared(legacy: Legacy) -> None:
    """The server refuses to compute what it would become. It keeps no other row from being applied."""
    legacy.execute("ALTER TABLE executions ALTER result TYPE json")
    legacy.many_executions(10)
    move_live(legacy)
    legacy.execute("UPDATE executions SET result = '[\"\\ud800\"]' WHERE execution_id = %s", uuid(1))
    legacy.execute("UPDATE executions SET result = '[2]' WHERE execution_id = %s", uuid(2))
    (done,) = apply(legacy)
    assert [row[:2] for row in legacy.quarantine()] == [(uuid(1), "server_refused")]
    assert (done.applied.updated, done.applied.quarantined) == (1, 1)
    assert done.lag.nothing


def test_a_row_in_quarantine_that_is_deleted(live: Legacy) -> None:
    live.executions(40, status="odd")
    apply(live)
    assert len(live.quarantine()) == 1
    live.execute("DELETE FROM executions WHERE execution_id = %s", uuid(40))
    apply(live)
    assert not live.quarantine()
    live.prove()


def test_links(live: Legacy) -> None:
    """A child before its parent, a parent that changes, a parent that goes and comes again."""
    live.executions(60, parent_execution_id=uuid(61))
    apply(live)
    live.executions(61)
    apply(live)
    live.execute("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", uuid(2), uuid(60))
    apply(live)
    assert str(live.value("SELECT parent_run_id FROM runs WHERE run_id = %s", uuid(60))) == uuid(2)
    live.execute("DELETE FROM executions WHERE execution_id = %s", uuid(2))
    apply(live)
    assert live.value("SELECT parent_run_id FROM runs WHERE run_id = %s", uuid(60)) is None
    live.executions(2)
    apply(live)
    assert str(live.value("SELECT parent_run_id FROM runs WHERE run_id = %s", uuid(60))) == uuid(2)
    assert not live.rows("SELECT FROM spine_migrate.link")


def test_links_to_a_row_that_is_not_ours_stay(live: Legacy) -> None:
    """Though its key was that of a legacy row, which is deleted."""
    live.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'task', 'x')", uuid(900))
    live.execute(
        "INSERT INTO runs (run_id, kind, name, parent_run_id) VALUES (%s, 'task', 'y', %s)", uuid(901), uuid(900)
    )
    live.executions(900)
    apply(live)
    assert [row[1] for row in live.quarantine()] == ["key_taken"]
    live.execute("DELETE FROM executions WHERE execution_id = %s", uuid(900))
    with connect(live.url, settings=loop.APPLIER_SETTINGS) as session:
        (one,) = [known(session, migration) for migration in chosen(session)]
        applier_of(session, one, capture_of(live), []).next(session, limit=100)
    assert str(live.value("SELECT parent_run_id FROM runs WHERE run_id = %s", uuid(901))) == uuid(900)


def test_links_of_a_target_that_was_empty_are_indexed(live: Legacy) -> None:
    """Else each row that goes would make the server read all of it."""
    assert live.value("SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'spine!_undo!_%%' ESCAPE '!'") == 2


def test_events_follow(legacy: Legacy) -> None:
    """Events of new runs, runs deleted with their events, events that come before their run is applied."""
    legacy.many_executions(5)
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type, timestamp)"
        " SELECT gen_random_uuid(), execution_id, 'started', now() FROM executions"
    )
    move_live(legacy, "executions", "execution_events")
    legacy.executions(6, 7)
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type, timestamp)"
        " SELECT gen_random_uuid(), execution_id, 'completed', now() FROM executions"
    )
    legacy.execute("DELETE FROM execution_events WHERE execution_id = %s", uuid(1))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(1))
    apply(legacy)
    legacy.prove("executions", "execution_events")
    assert legacy.value("SELECT count(*) FROM run_events") == 10
