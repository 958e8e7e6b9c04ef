"""What ``spine-migrate grants repair`` prints is enough to repair, and nothing of it is too much."""

from __future__ import annotations

import threading

import psycopg
import pytest

from spine_migrate.backfill import repair
from spine_migrate.backfill.repaired import Options
from spine_migrate.db.connect import connect
from spine_migrate.errors import SpineMigrateError
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Verdict
from tests.database import Database, Role
from tests.grants import SCHEMAS, Fresh, apart, give
from tests.legacy import Legacy, uuid


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return apart(database)


def fill(legacy: Legacy) -> None:
    """From nothing: rows of every kind to repair, one that the rules refuse, a link that is recorded."""
    legacy.execute("TRUNCATE spine.runs, spine.run_events, spine_migrate.migration, spine_migrate.audit CASCADE")
    legacy.execute("TRUNCATE executions, execution_events")
    legacy.executions(*range(1, 7))
    legacy.executions(7, parent_execution_id=uuid(1))
    for number in range(1, 7):
        event = {"event_id": uuid(100 + number), "execution_id": uuid(number), "event_type": "created"}
        legacy.add("execution_events", event)
    legacy.move("executions")
    legacy.move("execution_events")
    legacy.execute("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", uuid(88), uuid(7))
    legacy.execute("UPDATE spine.runs SET error = 'x' WHERE run_id = %s", uuid(1))
    legacy.execute("UPDATE spine.run_events SET data = '{\"x\": 1}' WHERE event_id = %s", uuid(101))
    legacy.execute("DELETE FROM spine.run_events WHERE event_id IN (%s, %s)", uuid(102), uuid(103))
    legacy.execute("DELETE FROM spine.runs WHERE run_id IN (%s, %s)", uuid(2), uuid(3))
    legacy.execute("UPDATE executions SET status = 'limbo' WHERE execution_id = %s", uuid(3))
    legacy.execute("DELETE FROM execution_events WHERE execution_id = %s", uuid(4))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(4))


def _repair(database: Database, role: Role) -> None:
    """All that the command does: look, repair, compare."""
    url = database.url_as(role)
    repair.plan(url)
    done = repair.repair(
        url, options=Options(retry_seconds=0), stop=threading.Event(), report=lambda _: None
    ).migrations
    assert [dict(one.rows) for one in done] == [
        {"missing": 1, "quarantined": 1, "differing": 2, "extra": 1},
        {"missing": 1, "quarantined": 1, "differing": 1, "extra": 1},
    ]
    with connect(url) as connection:
        assert compare(connection).verdict is Verdict.EQUAL


def test_each_grant_is_needed_and_all_are_enough(database: Database, legacy: Legacy) -> None:
    role = database.add_role("role")
    fresh = Fresh(database, lambda: fill(legacy))
    for held in give(database, role, "repair", *SCHEMAS):
        if "jobs" in held.name:
            continue  # the mapping of jobs is not at work here
        fresh.again()
        with database.connect(autocommit=True) as owner:
            owner.execute(held.revoke)
        assert _fails(database, role), f"not needed: {held.name}"
        with database.connect(autocommit=True) as owner:
            owner.execute(held.grant)
    fresh.again()
    _repair(database, role)


def _fails(database: Database, role: Role) -> bool:
    try:
        _repair(database, role)
    except (SpineMigrateError, psycopg.Error):
        return True
    return False
