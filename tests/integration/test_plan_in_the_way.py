"""Who is in the way of a lock is named before it is asked for: sessions, autovacuum, prepared transactions."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg

from spine_migrate.cli.locking import of_capture, of_cutover
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.db.lock_holders import Holder
from spine_migrate.db.patience import Patience
from spine_migrate.plan.locking import Locking
from spine_migrate.report.locking import locking_text
from tests.carried import tables_of
from tests.conftest import StartServer
from tests.cutting import BOTH
from tests.database import Database, create_role, fresh_database
from tests.grants import give
from tests.legacy import Legacy, build
from tests.syncing import move_live

VALUE = "a value of the row"


@contextmanager
def doing(url: str, name: str, *statements: LiteralString) -> Iterator[int]:
    """A session that has executed these and goes on; its pid."""
    with psycopg.connect(url, autocommit=True, application_name=name) as connection:
        for statement in statements:
            connection.execute(statement)
        yield connection.info.backend_pid


def both(url: str) -> tuple[Locking, Locking]:
    with connect(url, settings=PINNED) as connection:
        tables = tables_of(connection, *BOTH)
        return of_capture(connection, tables, Patience()), of_cutover(connection, tables, Patience())


def by(found: Locking, pid: int) -> set[tuple[str, str]]:
    return {(one.table.table, one.mode) for one in found.in_the_way if one.pid == pid}


def test_sessions(database: Database) -> None:
    """A writer is in the way of the capture, a reader of the cutover alone; no value of a row is told."""
    legacy = build(database)
    legacy.executions(1)
    with (
        doing(legacy.url, "nightly import", "BEGIN", "UPDATE executions SET error = 'a value of the row'") as writer,
        doing(legacy.url, "report", "BEGIN", "SELECT count(*) FROM executions") as reader,
    ):
        capture, cutover = both(legacy.url)
        assert by(capture, writer) == {("executions", "RowExclusiveLock")}
        assert by(capture, reader) == set()
        assert ("executions", "AccessShareLock") in by(cutover, reader)
        assert by(cutover, writer) >= {("executions", "RowExclusiveLock")}
        (holder,) = capture.in_the_way
        assert (holder.what, holder.role, holder.application) == ("client", database.owner.name, "nightly import")
        assert (holder.state, holder.granted) == ("idle in transaction", True)
        text = locking_text(capture)
        assert f"session {writer} of {database.owner.name} (nightly import) has ROW EXCLUSIVE on" in text
        assert re.search(r"idle in transaction, in a transaction for \d+ s\b", text)
        assert VALUE not in text + json.dumps(capture.as_json()) + json.dumps(cutover.as_json())

        # A role that is not shown what others do is told so.
        stranger = database.add_role("stranger")
        give(database, stranger, "executions-to-runs")
        capture, _ = both(database.url_as(stranger))
        (hidden,) = capture.in_the_way
        assert (hidden.pid, hidden.what, hidden.state, hidden.seconds) == (writer, "client", None, None)
        assert "what it does is shown to members of pg_read_all_stats" in locking_text(capture)
    capture, cutover = both(legacy.url)
    assert (capture.in_the_way, cutover.in_the_way) == ((), ())
    assert locking_text(capture).endswith("Nobody is in the way of these now.")

    move_live(legacy, *BOTH)
    planner = database.add_role("planner")
    give(database, planner, "executions-to-runs", "--dry-run")
    capture, _ = both(database.url_as(planner))
    assert (capture.takings, capture.ready, len(capture.unknown)) == ((), True, 2)
    assert (
        'could not tell whether "public"."executions" is captured, and what that would lock: permission denied for'
        in (locking_text(capture))
    )


_USE_UP: LiteralString = "DO $$ BEGIN FOR n IN 1..100100 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"


def test_autovacuum_that_never_gives_way_and_a_prepared_transaction(start_server: StartServer) -> None:
    server = start_server(settings={"max_prepared_transactions": "2", "autovacuum_naptime": "1s"})
    owner = create_role(server.url(), "spine_owner")
    with fresh_database(server.url(), "in_the_way", owner) as database:
        legacy = build(database)
        legacy.many_executions(2000)
        legacy.execute(
            "ALTER TABLE executions SET (autovacuum_enabled = off, autovacuum_freeze_max_age = 100000,"
            " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
        )
        with doing(
            legacy.url,
            "two phases",
            "BEGIN",
            "INSERT INTO execution_events (execution_id, event_type)"
            " SELECT execution_id, 'started' FROM executions LIMIT 1",
            "PREPARE TRANSACTION 'left behind'",
        ):
            pass
        try:
            legacy.execute(_USE_UP)
            found = vacuuming(legacy, database)
            assert (found.mode, found.role) == ("ShareUpdateExclusiveLock", None)
            capture, _ = both(database.admin_url)
            text = locking_text(capture)
            assert "autovacuum to prevent wraparound (session " in text
            assert "it never gives way, let it end" in text
            (prepared,) = [
                one
                for one in capture.in_the_way
                if one.what == "prepared transaction" and one.table.table == "execution_events"
            ]
            assert (prepared.pid, prepared.role, prepared.mode) == (None, owner.name, "RowExclusiveLock")
            assert f"a prepared transaction of {owner.name} has ROW EXCLUSIVE on" in text
        finally:
            legacy.execute("ROLLBACK PREPARED 'left behind'")


def vacuuming(legacy: Legacy, database: Database) -> Holder:
    end = time.monotonic() + 100
    while True:
        capture, _ = both(database.admin_url)
        for one in capture.in_the_way:
            if one.what.startswith("autovacuum"):
                assert one.what == "autovacuum to prevent wraparound"
                return one
        assert time.monotonic() < end, "no autovacuum came"
        time.sleep(0.05)
