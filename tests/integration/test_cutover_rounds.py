"""Cutover, rollback, cutover again: both sides say the same at every step, and no write is lost."""

from __future__ import annotations

import threading
from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.cutover.group import group
from spine_migrate.db.captures import FORWARD
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.errors import Interrupted
from spine_migrate.sync import turn
from tests.cutting import BOTH, Pair
from tests.database import Database
from tests.legacy import Legacy, filled, uuid


@pytest.fixture
def pair(database: Database) -> Pair:
    return Pair(filled(database, _begun))


def _begun(legacy: Legacy) -> None:
    """Ten executions with an event each, moved, their changes captured."""
    legacy.many_executions(10)
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type, timestamp)"
        " SELECT gen_random_uuid(), execution_id, 'started', now() FROM executions"
    )
    Pair(legacy).begin()


def test_the_application_goes_on_by_the_same_names(pair: Pair) -> None:
    """Reads and writes as before; a row goes in, changes, and goes, with its events."""
    legacy = pair.legacy
    pair.switch()
    assert legacy.value("SELECT count(*) FROM executions") == 10
    legacy.executions(11, status="running")
    legacy.execute("UPDATE executions SET status = 'failed', error = 'boom' WHERE execution_id = %s", uuid(3))
    legacy.execute("DELETE FROM execution_events WHERE execution_id = %s", uuid(4))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(4))
    assert legacy.value("SELECT status FROM runs WHERE run_id = %s", uuid(11)) == "running"
    assert legacy.value("SELECT error FROM runs WHERE run_id = %s", uuid(3)) == "boom"
    assert legacy.value("SELECT count(*) FROM runs WHERE run_id = %s", uuid(4)) == 0


def test_what_is_written_after_the_switch_is_carried_back(pair: Pair) -> None:
    legacy = pair.legacy
    pair.switch()
    legacy.executions(11, status="running")
    legacy.execute("UPDATE executions SET status = 'failed', error = 'boom' WHERE execution_id = %s", uuid(3))
    legacy.execute("DELETE FROM execution_events WHERE execution_id = %s", uuid(4))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(4))
    pair.apply()
    seen = legacy.rows("SELECT execution_id, status, error FROM executions ORDER BY 1")
    assert legacy.rows("SELECT execution_id, status, error FROM executions_legacy ORDER BY 1") == seen
    assert len(seen) == 10
    assert legacy.rows("TABLE execution_events_legacy ORDER BY 1") == legacy.rows("TABLE execution_events ORDER BY 1")


@pytest.mark.parametrize("with_view", [True, False])
def test_three_rounds(pair: Pair, *, with_view: bool) -> None:
    """Writes before, between and after; each switch drains what is left."""
    legacy = pair.legacy
    table = "executions" if with_view else "runs"
    for number in (20, 30, 40):
        legacy.executions(number)
        legacy.execute("UPDATE executions SET error = 'before' WHERE execution_id = %s", uuid(1))
        pair.switch(with_view=with_view)
        if with_view:
            legacy.executions(number + 1)
            legacy.execute("UPDATE executions SET error = 'between' WHERE execution_id = %s", uuid(2))
        else:
            legacy.execute("UPDATE runs SET error = 'between' WHERE run_id = %s", uuid(2))
        pair.back()
        legacy.prove(*BOTH)
        assert legacy.value("SELECT error FROM executions WHERE execution_id = %s", uuid(2)) == "between"
    assert legacy.value("SELECT count(*) FROM executions") == (16 if with_view else 13)
    assert table


@pytest.mark.parametrize("cascading", [False, True])
def test_events_leave_and_come_with_their_run(pair: Pair, *, cascading: bool) -> None:
    """Nobody writes to them, so that nothing logs them, and the legacy table may take them away or hold the run."""
    legacy = pair.legacy
    if cascading:
        legacy.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey")
        legacy.execute(
            "ALTER TABLE execution_events ADD FOREIGN KEY (execution_id) REFERENCES executions ON DELETE CASCADE"
        )
    pair.switch()
    legacy.execute("UPDATE runs SET kind = 'task' WHERE run_id = ANY(%s::uuid[])", [uuid(1), uuid(2)])
    pair.apply()
    assert legacy.value("SELECT count(*) FROM executions_legacy") == 8
    assert legacy.value("SELECT count(*) FROM execution_events_legacy") == 8
    legacy.execute("UPDATE runs SET kind = 'pipeline' WHERE run_id = %s", uuid(1))
    pair.back()
    assert legacy.value("SELECT count(*) FROM executions JOIN execution_events USING (execution_id)") == 9
    assert legacy.value("SELECT count(*) FROM run_events") == 10
    legacy.execute("UPDATE executions SET error = 'after' WHERE execution_id = %s", uuid(1))
    pair.apply()
    assert legacy.value("SELECT error FROM runs WHERE run_id = %s", uuid(1)) == "after"
    legacy.prove(*BOTH)


@pytest.mark.parametrize("cascading", [False, True])
def test_quarantined_events_hold_no_rollback_and_are_not_lost(pair: Pair, *, cascading: bool) -> None:
    """Accepted, they stay in the legacy table, with a run that loses its form (1 and 2), or is deleted (3)."""
    legacy = pair.legacy
    if cascading:
        legacy.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey")
        legacy.execute(
            "ALTER TABLE execution_events ADD FOREIGN KEY (execution_id) REFERENCES executions ON DELETE CASCADE"
        )
    for number in (1, 2, 3, 4):
        legacy.execute(
            "INSERT INTO execution_events VALUES (%s, %s, 'odd', '2020-02-02 02:02:02.02+02', '{\"a\": 1.50}')",
            uuid(500 + number),
            uuid(number),
        )
    pair.apply()
    pair.accept()
    odd: LiteralString = "SELECT e::text FROM execution_events_legacy AS e WHERE event_type = 'odd' ORDER BY event_id"
    pair.switch()
    before = legacy.rows(odd)
    legacy.execute("UPDATE runs SET kind = 'task' WHERE run_id = ANY(%s::uuid[])", [uuid(1), uuid(2)])
    legacy.execute("DELETE FROM execution_events WHERE execution_id = %s", uuid(3))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(3))
    pair.apply()
    assert legacy.value("SELECT count(*) FROM executions_legacy") == 7
    assert legacy.rows(odd) == before[3:]
    assert legacy.value("SELECT count(*) FROM spine_migrate.quarantine") == 4
    legacy.execute("UPDATE runs SET kind = 'pipeline' WHERE run_id = %s", uuid(1))
    pair.apply()
    assert legacy.rows(odd) == [before[0], before[3]]
    pair.back()
    rows = legacy.rows("SELECT e::text FROM execution_events AS e WHERE event_type = 'odd' ORDER BY event_id")
    assert rows == [before[0], before[3]]
    assert legacy.rows("SELECT source_key FROM spine_migrate.quarantine ORDER BY 1") == [(uuid(501),), (uuid(504),)]
    kept = legacy.rows(
        "SELECT json_populate_record(NULL::execution_events, before)::text FROM spine_migrate.set_aside"
        " WHERE before ->> 'event_type' = 'odd' ORDER BY target_key"
    )
    assert kept == before[:3]
    pair.switch()


def test_a_link_is_completed_when_its_row_comes_again(pair: Pair) -> None:
    """Through the view, where the target has a foreign key; who holds a row is not waited for."""
    legacy = pair.legacy
    pair.switch()
    legacy.executions(11, 12, parent_execution_id=uuid(5))
    legacy.execute("DELETE FROM execution_events WHERE execution_id = %s", uuid(5))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(5))
    legacy.executions(5)
    with legacy.connect() as writer, writer.transaction():
        writer.execute("UPDATE executions SET error = 'held' WHERE execution_id = %s", (uuid(12),))
        pair.apply()
        links = legacy.rows(
            "SELECT run_id::text, parent_run_id::text FROM runs WHERE run_id = ANY(%s::uuid[]) ORDER BY 1",
            [uuid(11), uuid(12)],
        )
        assert links == [(uuid(11), uuid(5)), (uuid(12), None)]
    pair.apply()
    assert legacy.value("SELECT count(*) FROM runs WHERE parent_run_id = %s", uuid(5)) == 2
    assert not legacy.rows("TABLE spine_migrate.link")
    wanted = [(uuid(11), uuid(5)), (uuid(12), uuid(5))]
    for table in ("executions", "executions_legacy"):
        assert wanted == legacy.rows(
            sql.SQL(
                "SELECT execution_id::text, parent_execution_id::text FROM {}"
                " WHERE parent_execution_id IS NOT NULL ORDER BY 1"
            ).format(sql.Identifier(table))
        )


def test_what_is_applied_before_a_switch_is_broken_off(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two transactions by the wish to stop, though entries are left; within one by the second Ctrl-C."""
    legacy = pair.legacy
    monkeypatch.setattr(turn, "_ROWS", 1)
    monkeypatch.setattr(turn, "FEW", 0)
    legacy.execute("UPDATE executions SET error = 'late'")
    stop, cancel = threading.Event(), threading.Event()
    with connect(legacy.url, settings=PINNED) as connection, legacy.connect() as other:
        turning = turn.turn_of(connection, group(connection, []), FORWARD, cancel=cancel)
        stop.set()
        with pytest.raises(Interrupted, match="Stopped before the switch"):
            turning.drain(connection, seconds=60, stop=stop)
        # All that were logged in the same moment.
        assert 0 < sum(lag.entries for lag in turning.lag(connection).values()) < 10
        stop.clear()
        cancel.set()
        with other.transaction():
            other.execute("LOCK TABLE runs")
            with pytest.raises(Interrupted, match="Cancelled"):
                turning.drain(connection, seconds=60, stop=stop)
