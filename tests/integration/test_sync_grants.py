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
from spine_migrate.sync.loop import follow
from spine_migrate.sync.members import Options
from spine_migrate.sync.run_events import run_events
from spine_migrate.sync.start import start, stop_capture
from tests.cutting import Pair
from tests.database import Database, Role
from tests.grants import SCHEMAS, Fresh, apart, give
from tests.legacy import Legacy, uuid
from tests.syncing import PATIENCE, prepare

# What takes the events of a run that goes along.
_ASIDE = ("set_aside", "run_events")


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
    fresh = Fresh(database, lambda: fill(legacy))
    for held in give(database, role, "sync", "--mapping", "capture-spine/executions", *SCHEMAS):
        if '"old"' in held.name:
            continue  # membership in the owner gives it too, where the owner has it
        if any(table in held.name for table in _ASIDE):
            continue  # without it a row is put off
        fresh.again()
        with database.connect_admin(autocommit=True) as owner:
            owner.execute(held.revoke)
        assert _fails(database, role, legacy), f"not needed: {held.name}"
        with database.connect_admin(autocommit=True) as owner:
            owner.execute(held.grant)
            _forget_capture(owner, legacy)
    fresh.again()
    _everything(database, role, legacy)


def test_what_is_noted_of_a_run_is_taken_with_all_of_its_grants(database: Database, legacy: Legacy) -> None:
    fill(legacy)
    role = database.add_role("role")
    held = give(database, role, "sync", "--mapping", "capture-spine/executions", *SCHEMAS)
    grants = [one for one in held if any(table in one.name for table in _ASIDE)]
    assert len(grants) == 3

    def taken() -> bool:
        with connect(database.url_as(role), settings=PINNED) as connection:
            (one,) = [known(connection, migration) for migration in chosen(connection)]
            return run_events(connection, one, []) is not None

    with database.connect_admin(autocommit=True) as admin:
        for one in grants:
            assert taken()
            admin.execute(one.revoke)
            assert not taken(), one.name
            admin.execute(one.grant)


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


def test_the_way_back(database: Database, legacy: Legacy) -> None:
    """After a cutover: the same command prints what it takes then, on the tables as they are called since."""
    fill(legacy)
    legacy.executions(7, status="odd")
    pair = Pair(legacy, ("executions",))
    with database.connect_admin(autocommit=True) as admin:
        owner = sql.Identifier(database.owner.name)
        admin.execute(sql.SQL("ALTER TABLE old.executions OWNER TO {}").format(owner))
    pair.begin()
    pair.accept()
    pair.switch()
    with database.connect_admin(autocommit=True) as admin:
        keeper = sql.Identifier(database.add_role("after").name)
        admin.execute(sql.SQL("ALTER TABLE old.executions_legacy OWNER TO {}").format(keeper))
        admin.execute(sql.SQL("GRANT ALL ON old.executions_legacy TO {}").format(owner))
    role = database.add_role("role")
    held = give(database, role, "sync", "--mapping", "capture-spine/executions", *SCHEMAS)
    # What stood in quarantine is what the application says now.
    legacy.execute("INSERT INTO executions (execution_id, pipeline_name, status) VALUES (%s, 'x', 'failed')", uuid(7))
    legacy.execute("UPDATE executions SET error = 'back' WHERE execution_id = %s", uuid(2))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(3))
    (aside,) = [one for one in held if "set_aside" in one.name]
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(aside.revoke)
        with pytest.raises((SpineMigrateError, psycopg.Error)):
            _follow(database, role)
        admin.execute(aside.grant)
    _follow(database, role)
    rows: dict[str, str] = dict(
        legacy.rows("SELECT execution_id::text, coalesce(error, status) FROM executions_legacy")
    )
    assert (rows[uuid(7)], rows[uuid(2)], uuid(3) in rows) == ("failed", "back", False)


def test_a_move_beside_the_applier(database: Database) -> None:
    """It hands rows over that something stands in the way of."""
    legacy = apart(database)
    legacy.executions(*range(1, 6))
    legacy.move(limit=2, batch_rows=1, prepare=prepare)
    legacy.execute(
        "INSERT INTO spine.runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'x', 'k')", uuid(900)
    )
    legacy.execute("UPDATE executions SET idempotency_key = 'k' WHERE execution_id = %s", uuid(5))
    role = database.add_role("mover")
    held = give(database, role, "executions-to-runs", *SCHEMAS)
    (into,) = [one for one in held if one.name.startswith("INSERT") and "pending" in one.name]
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(into.revoke)
        with pytest.raises((SpineMigrateError, psycopg.Error)):
            legacy.move(url=database.url_as(role), retry_seconds=0)
        admin.execute(into.grant)
    assert legacy.move(url=database.url_as(role), retry_seconds=0).state == "done"
    assert legacy.value("SELECT row_key FROM spine_migrate.pending WHERE why = 'deferred'") == uuid(5)
