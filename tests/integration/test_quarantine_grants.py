"""What ``spine-migrate grants`` prints is enough to retry and to undo, and nothing of it is too much."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from spine_migrate.backfill import retry, undo
from spine_migrate.backfill.quarantine import Selected, discard, entry, rows
from spine_migrate.carry.known import chosen
from spine_migrate.db.connect import connect
from spine_migrate.errors import SpineMigrateError
from tests.database import Database, Role
from tests.grants import SCHEMAS, Fresh, apart, give
from tests.legacy import Legacy, uuid


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return apart(database)


def fill(legacy: Legacy, *, digest: str | None) -> None:
    """From nothing: rows in quarantine that can be mended, a link that waits, an event that follows. Moved by a mapping
    of that digest.
    """
    legacy.execute("TRUNCATE spine.runs, spine.run_events, spine_migrate.migration, spine_migrate.audit CASCADE")
    legacy.execute("TRUNCATE executions, execution_events")
    legacy.executions(1, status="zombie", parent_execution_id=uuid(2))
    legacy.executions(2, status="zombie")
    legacy.executions(3, parent_execution_id=uuid(1))
    for number in (1, 2, 3):
        legacy.add(
            "execution_events",
            {"event_id": uuid(100 + number), "execution_id": uuid(number), "event_type": "created"},
        )
    legacy.move("executions")
    legacy.move("execution_events")
    legacy.execute("UPDATE executions SET status = 'failed' WHERE execution_id = %s", uuid(1))
    legacy.execute("UPDATE spine_migrate.migration SET mapping_digest = coalesce(%s, mapping_digest)", digest)


def _retry(database: Database, role: Role) -> None:
    """All that the group does: look, retry (the digest is another one, so that it is accepted), discard."""
    url = database.url_as(role)
    with connect(url) as connection:
        migrations = chosen(connection)
        listed = rows(connection, migrations, limit=10)
        entry(connection, migrations, listed[0].source_key)
    retry.retry(
        url,
        Selected(),
        options=retry.Options(accept_mapping=True, retry_seconds=0),
        stop=threading.Event(),
        report=lambda _: None,
    )
    with connect(url) as connection:
        discard(connection, migrations, Selected(reasons=["unknown_value"]))


def _undo(database: Database, role: Role) -> None:
    done = undo.undo(
        database.url_as(role), options=undo.Options(retry_seconds=0), stop=threading.Event(), report=lambda _: None
    )
    assert [one.state for one in done] == ["undone", "undone"]


@pytest.mark.parametrize(("command", "operation"), [("quarantine", _retry), ("undo", _undo)])
def test_each_grant_is_needed_and_all_are_enough(
    database: Database, legacy: Legacy, command: str, operation: Callable[[Database, Role], None]
) -> None:
    role = database.add_role("role")
    fresh = Fresh(database, lambda: fill(legacy, digest="x" if command == "quarantine" else None))
    for held in give(database, role, command, *SCHEMAS):
        if "jobs" in held.name:
            continue  # the mapping of jobs is not at work here
        fresh.again()
        with database.connect(autocommit=True) as owner:
            owner.execute(held.revoke)
        assert _fails(operation, database, role), f"not needed: {held.name}"
        with database.connect(autocommit=True) as owner:
            owner.execute(held.grant)
    fresh.again()
    operation(database, role)


def _fails(operation: Callable[[Database, Role], None], database: Database, role: Role) -> bool:
    try:
        operation(database, role)
    except (SpineMigrateError, psycopg.Error):
        return True
    return False
