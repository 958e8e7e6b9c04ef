"""What the parity gate says while the application writes, and nobody has applied what there is to apply."""

from __future__ import annotations

import threading

from spine_migrate.cli.cutover_parity import parity_of
from spine_migrate.cutover.gates import Gate
from spine_migrate.cutover.group import group
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.mapping.load import load
from spine_migrate.sync.appliers import form_of
from spine_migrate.sync.settle import settle
from tests.cutting import BOTH, Pair
from tests.legacy import Legacy, arranged, uuid
from tests.syncing import prepare

_NAMES = [f"capture-spine/{entity}" for entity in BOTH]


@arranged
def moved(legacy: Legacy) -> None:
    """Ten executions with an event each, moved; their changes are captured since, and nothing is applied yet."""
    legacy.many_executions(10)
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type, timestamp)"
        " SELECT gen_random_uuid(), execution_id, 'created', created_at FROM executions"
    )
    for entity in BOTH:
        legacy.move(entity)
    with connect(legacy.url, settings=PINNED) as connection:
        for one in group(connection, [load(name) for name in _NAMES]):
            prepare(connection, one.tables, one.migration.migration_id)


def parity(legacy: Legacy) -> Gate:
    with connect(legacy.url, settings=PINNED) as connection:
        members = group(connection, [load(name) for name in _NAMES])
    return parity_of(legacy.url, members, _NAMES, cancel=threading.Event())


def to_be_looked_through(legacy: Legacy) -> int:
    """Tables in which the applier is to look for rows without a legacy row."""
    count: int = legacy.value("SELECT count(*) FROM spine_migrate.pending WHERE why = 'all'")
    return count


def test_writes_after_sync_start_are_on_their_way(moved: Legacy) -> None:
    """The applier has not looked yet for rows without a legacy row; that is about no row that has one."""
    assert to_be_looked_through(moved) == 2
    moved.execute("UPDATE executions SET error = 'late' WHERE execution_id = %s", uuid(1))
    moved.execute("UPDATE execution_events SET event_type = 'started' WHERE execution_id = %s", uuid(2))
    gate = parity(moved)
    assert gate.ok, gate.evidence
    assert "but for 2 rows that are on their way" in gate.evidence
    moved.execute("UPDATE runs SET name = 'other' WHERE run_id = %s", uuid(3))
    gate = parity(moved)
    assert f"capture-spine/executions: 1 differences (field {uuid(3)})" in gate.evidence
    assert not gate.ok


def test_writes_after_a_rollback_are_on_their_way(moved: Legacy) -> None:
    pair = Pair(moved)
    pair.apply()
    pair.switch()
    pair.back(settled=False)
    with connect(moved.url, settings=PINNED) as connection:
        members = group(connection, [load(name) for name in _NAMES])
        for one in members:
            settle(connection, one.tables, form_of(connection, one, members))
    assert to_be_looked_through(moved) == 2
    moved.execute("UPDATE executions SET error = 'late' WHERE execution_id = %s", uuid(1))
    gate = parity(moved)
    assert gate.ok, gate.evidence


def test_a_history_is_told_while_rows_without_a_legacy_row_are_looked_for(moved: Legacy) -> None:
    """Events that go are on their way, and with them what is wrong with the histories that they are in."""
    moved.execute("UPDATE execution_events SET event_type = 'started' WHERE execution_id = %s", uuid(2))
    moved.execute("INSERT INTO run_events (run_id, event_type) VALUES (%s, 'completed')", uuid(2))
    gate = parity(moved)
    assert gate.ok, gate.evidence
    moved.execute("INSERT INTO run_events (run_id, event_type) VALUES (%s, 'completed')", uuid(3))
    gate = parity(moved)
    assert "the histories of capture-spine/executions differ" in gate.evidence
    assert not gate.ok


def test_what_a_truncate_leaves_is_waited_for(moved: Legacy) -> None:
    """It is on its way, and may yet have to stay: a foreign key of others can point to it."""
    Pair(moved).apply()
    moved.execute("TRUNCATE execution_events")
    gate = parity(moved)
    assert "capture-spine/execution_events: 10 differences" in gate.evidence
    assert "10 have no legacy row and wait to be removed" in gate.evidence
    assert not gate.ok
    Pair(moved).apply()
    gate = parity(moved)
    assert gate.ok, gate.evidence
