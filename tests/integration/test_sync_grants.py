"""What ``spine-migrate grants sync`` prints is enough to capture and to apply, and nothing of it is too much."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

from spine_migrate.carry.known import chosen, known
from spine_migrate.db import captures
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.errors import SpineMigrateError
from spine_migrate.sync.loop import Options, follow
from spine_migrate.sync.start import start, stop_capture
from tests.database import Database, Role
from tests.grants import SCHEMAS, apart, give
from tests.legacy import Legacy, uuid
from tests.syncing import PATIENCE


@pytest.fixture
def legacy(database: Database) -> Legacy:
    """The executions belong to a role of their own, so that membership in it gives nothing else."""
    built = apart(database)
    keeper = sql.Identifier(database.add_role("keeper").name)
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA old TO {}").format(keeper))
        admin.execute(sql.SQL("ALTER TABLE old.executions OWNER TO {}").format(keeper))
        admin.execute(sql.SQL("GRANT ALL ON old.executions TO {}").format(sql.Identifier(database.owner.name)))
    return built


def fill(legacy: Legacy) -> None:
    legacy.execute("TRUNCATE spine.runs, spine.run_events, spine_migrate.migration, spine_migrate.audit CASCADE")
    legacy.execute("TRUNCATE executions, execution_events")
    legacy.executions(*range(1, 6))
    legacy.executions(6, parent_execution_id=uuid(1))
    legacy.move("executions")


def _everything(database: Database, role: Role, legacy: Legacy) -> None:
    """Capture, then every kind of change, applied; then capture no more."""
    with connect(database.url_as(role), settings=PINNED) as connection:
        (one,) = [known(connection, migration) for migration in chosen(connection)]
        begun = start(connection, one.tables, one.migration.migration_id, patience=PATIENCE, stop=threading.Event())
        legacy.executions(7, status="odd")
        legacy.executions(8, parent_execution_id=uuid(99))
        legacy.execute("UPDATE executions SET error = 'x' WHERE execution_id = %s", uuid(2))
        legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(1))
        _follow(database, role)
        legacy.execute("UPDATE executions SET status = 'failed' WHERE execution_id = %s", uuid(7))
        legacy.executions(1)
        _follow(database, role)
        legacy.execute("TRUNCATE executions CASCADE")
        legacy.executions(3)
        _follow(database, role)
        assert legacy.value("SELECT count(*) FROM spine.runs") == 1
        stop_capture(connection, one.tables, begun, patience=PATIENCE, stop=threading.Event())
        assert captures.captures(connection, [one.migration.migration_id]) == []


def _follow(database: Database, role: Role) -> None:
    follow(
        database.url_as(role),
        options=Options(once=True, retry_seconds=0),
        stop=threading.Event(),
        report=lambda _: None,
    )


def test_each_grant_is_needed_and_all_are_enough(database: Database, legacy: Legacy) -> None:
    role = database.add_role("role")
    for held in give(database, role, "sync", "--mapping", "capture-spine/executions", *SCHEMAS):
        if '"old"' in held.name:
            continue  # membership in the owner gives it too, where the owner has it
        fill(legacy)
        with database.connect_admin(autocommit=True) as owner:
            owner.execute(held.revoke)
        assert _fails(database, role, legacy), f"not needed: {held.name}"
        with database.connect_admin(autocommit=True) as owner:
            owner.execute(held.grant)
            _forget_capture(owner, legacy)
    fill(legacy)
    _everything(database, role, legacy)


def _fails(database: Database, role: Role, legacy: Legacy) -> bool:
    try:
        _everything(database, role, legacy)
    except (SpineMigrateError, psycopg.Error):
        return True
    return False


def _forget_capture(owner: psycopg.Connection[TupleRow], legacy: Legacy) -> None:
    """The triggers that a refused attempt has left."""
    for (name,) in owner.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'spine_capture%'").fetchall():
        table = sql.Identifier(legacy.source_schema, "executions")
        owner.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(name), table))
