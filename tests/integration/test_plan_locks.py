"""The locks that a plan prints are those that are taken: the real install and the real switch are held against it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.cli.locking import of_capture, of_cutover
from spine_migrate.cutover import foreign_keys, switch
from spine_migrate.db import patience
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.db.lock_modes import LockMode
from spine_migrate.db.patience import Patience
from spine_migrate.plan.locking import Locking, Taking
from spine_migrate.sync import capture
from tests.carried import tables_of
from tests.cutting import BOTH, Pair
from tests.database import Database
from tests.legacy import Legacy, build
from tests.partitions import partition_executions, partition_runs
from tests.syncing import in_another_session
from tests.waiting import WAITING

Locks = set[tuple[Name, LockMode]]

# The strongest mode of each table, view and partition that is there when the transaction begins.
_TAKEN: LiteralString = """
    SELECT l.relation, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND n.nspname NOT IN ('pg_catalog', 'pg_toast')"""
_NAMES: LiteralString = """
    SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"""


@pytest.fixture
def legacy(database: Database) -> Legacy:
    """With a table that points to executions, twice, and views, one over the other."""
    legacy = build(database)
    legacy.many_executions(3)
    for statement in (
        "CREATE TABLE side (id serial PRIMARY KEY)",
        "CREATE VIEW seen AS SELECT execution_id, status FROM executions",
        "CREATE VIEW seen_again AS SELECT status, count(*) AS n FROM seen, side GROUP BY status",
        "CREATE VIEW events_seen AS SELECT e.event_id FROM execution_events e JOIN executions x USING (execution_id)",
    ):
        legacy.execute(sql.SQL(statement))
    return legacy


def point(legacy: Legacy) -> None:
    legacy.execute(
        "CREATE TABLE feeds (last uuid REFERENCES executions, first uuid REFERENCES executions ON DELETE SET NULL)"
    )
    legacy.execute("INSERT INTO feeds SELECT execution_id, execution_id FROM executions")
    legacy.execute("CREATE TABLE old_feeds (last uuid)")
    legacy.execute("ALTER TABLE old_feeds ADD FOREIGN KEY (last) REFERENCES executions NOT VALID")


class Watch:
    """What transactions under ``patiently`` hold at their end, by the names that things had before."""

    def __init__(self, legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.legacy = legacy
        self.found: list[Locks] = []
        self.names: dict[int, Name] = {}
        for module in (capture, switch, foreign_keys):
            monkeypatch.setattr(module, "patiently", self.patiently)

    def patiently(self, connection: Any, work: Callable[[Any], Any], **given: Any) -> Any:
        def watched(connection: Any) -> Any:
            done = work(connection)
            self.look(connection)
            return done

        self.names = {oid: Name(schema, name) for oid, schema, name in self.legacy.rows(_NAMES)}
        return patience.patiently(connection, watched, **given)

    def look(self, connection: Any) -> None:
        held: dict[Name, LockMode] = {}
        for oid, found in connection.execute(_TAKEN).fetchall():
            name, mode = self.names.get(oid), LockMode.of_catalog(found)
            if name is None or mode.ordinary:
                continue
            assert name.schema != "spine_migrate", "the ledger is locked against its other users"
            held[name] = max(mode, held.get(name, mode), key=list(LockMode).index)
        self.found.append(set(held.items()))


def told(found: list[Taking]) -> Locks:
    return {(one.table, one.mode) for one in found}


def expected(legacy: Legacy, of: Callable[..., Locking]) -> list[Taking]:
    with connect(legacy.url, settings=PINNED) as connection:
        found = of(connection, tables_of(connection, *BOTH), Patience())
    assert found.ready
    return list(found.takings)


@pytest.mark.parametrize("shape", ["ordinary", "partitioned", "partitioned target", "inherited"])
def test_what_is_printed_is_what_is_taken(legacy: Legacy, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install, switch and validation; then the plan says that nothing is left to install."""
    if shape == "partitioned":
        partition_executions(legacy)
    if shape == "partitioned target":
        partition_runs(legacy)
    if shape == "inherited":
        legacy.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_pkey")
        legacy.execute("CREATE UNIQUE INDEX ON execution_events (event_id)")
        legacy.execute("CREATE TABLE audit_of_runs () INHERITS (runs)")
    point(legacy)
    watch = Watch(legacy, monkeypatch)

    installing = expected(legacy, of_capture)
    pair = Pair(legacy)
    pair.begin()
    assert told([one for one in installing if one.lock_timeout is not None]) == set().union(*watch.found)
    assert expected(legacy, of_capture) == []

    switching = expected(legacy, of_cutover)
    legacy.many_executions(3, first=7)
    watch.found.clear()
    pair.switch(remade=True)
    switched, *validated = watch.found
    at_once = [one for one in switching if one.mode is not LockMode.SHARE_UPDATE_EXCLUSIVE]
    assert told(at_once) == switched
    assert len(validated) == 2
    assert told([one for one in switching if one not in at_once]) == set().union(*validated)


_BUILDING: LiteralString = WAITING + " AND a.query LIKE 'CREATE INDEX CONCURRENTLY%%'"


def test_an_index_is_built_with_the_lock_that_is_printed(legacy: Legacy) -> None:
    """It waits for a transaction that is older, and writers of the target go on meanwhile."""
    index, *_ = (one for one in expected(legacy, of_capture) if one.lock_timeout is None)
    pair = Pair(legacy)
    with legacy.connect() as older:
        older.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        older.execute("SELECT count(*) FROM runs")
        beginning = in_another_session(legacy, lambda _: pair.begin())
        while not (found := legacy.rows(_BUILDING)):
            assert beginning.is_alive()
        held = legacy.rows(
            "SELECT n.nspname, c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE l.pid = %s AND c.relkind = 'r' AND l.granted"
            " AND n.nspname <> 'pg_catalog'",
            found[0][0],
        )
        legacy.execute("INSERT INTO runs (kind, name) VALUES ('task', 'theirs')")
        older.execute("COMMIT")
        beginning.join()
    strong = {(Name(schema, name), LockMode.of_catalog(mode)) for schema, name, mode in held}
    assert {one for one in strong if not one[1].ordinary} == {(index.table, index.mode)}


def test_the_table_of_conflicts_is_the_server_s(legacy: Legacy) -> None:
    statement = sql.SQL("LOCK TABLE side IN {} MODE NOWAIT")
    wrong = []
    with ExitStack() as sessions:
        one, other = (sessions.enter_context(legacy.connect()) for _ in range(2))
        for mode in LockMode:
            with one.transaction():
                one.execute(statement.format(sql.SQL(mode.value)))
                for asked in LockMode:
                    try:
                        with other.transaction():
                            other.execute(statement.format(sql.SQL(asked.value)))
                        waits = False
                    except psycopg.errors.LockNotAvailable:
                        waits = True
                    if waits != mode.conflicts(asked):
                        wrong.append((mode, asked))
    assert not wrong
    assert LockMode.SHARE_ROW_EXCLUSIVE.stops == ("writes", "VACUUM and ANALYZE", "CREATE INDEX", "DDL")
