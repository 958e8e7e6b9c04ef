"""Cutover, rollback, cutover again: both sides say the same at every step, and no write is lost."""

from __future__ import annotations

import pytest

from tests.cutting import BOTH, Pair
from tests.database import Database
from tests.legacy import Legacy, build, uuid


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database.url)


@pytest.fixture
def pair(legacy: Legacy) -> Pair:
    """Ten executions with an event each, moved, their changes captured."""
    legacy.many_executions(10)
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type, timestamp)"
        " SELECT gen_random_uuid(), execution_id, 'started', now() FROM executions"
    )
    pair = Pair(legacy)
    pair.begin()
    return pair


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
