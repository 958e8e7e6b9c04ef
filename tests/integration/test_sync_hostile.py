"""The applier among a target and writers that do what they may: nothing is lost, doubled, or kept waiting for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from spine_migrate.backfill import sweep
from spine_migrate.backfill.batch import Batches
from spine_migrate.carry.control import WORKER_SETTINGS
from spine_migrate.carry.known import chosen, known
from spine_migrate.carry.rows import Carrier
from spine_migrate.carry.statements import Statements
from spine_migrate.carry.tables import guard_of
from spine_migrate.db.connect import connect
from spine_migrate.errors import Refused
from spine_migrate.mapping.load import load
from spine_migrate.sync.appliers import applier_of
from spine_migrate.sync.loop import APPLIER_SETTINGS
from spine_migrate.sync.work import Applied
from tests.cutting import BOTH, Pair, ten_followed
from tests.database import Database
from tests.legacy import Legacy, arranged, build, filled, uuid
from tests.syncing import apply, capture_of, lag_of, logged, move_live
from tests.undoing import back


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@arranged
def live(legacy: Legacy) -> None:
    """Ten executions, moved, their changes captured."""
    legacy.many_executions(10)
    move_live(legacy)


def _next(legacy: Legacy, *entities: str) -> list[Applied]:
    """One transaction of the applier for each."""
    with closing(connect(legacy.url, settings=APPLIER_SETTINGS)) as session:
        every = [known(session, migration) for migration in chosen(session)]
        return [
            applier_of(session, one, capture_of(legacy, entity), [other for other in every if other is not one]).next(
                session, limit=1000
            )
            for entity in entities
            for one in every
            if one.mapping.name == f"capture-spine/{entity}"
        ]


def test_a_constraint_of_the_target_that_waits_for_the_commit_refuses_its_own_rows_alone(legacy: Legacy) -> None:
    """As the foreign keys of some frameworks do: what it refuses is put off, and keeps no other row from following."""
    legacy.many_executions(2)
    move_live(legacy, *BOTH)
    legacy.execute("ALTER TABLE run_events ALTER CONSTRAINT run_events_run_id_fkey DEFERRABLE INITIALLY DEFERRED")
    legacy.execute("INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'x', 'k')", uuid(900))
    legacy.executions(41, idempotency_key="k")
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type, timestamp)"
        " SELECT gen_random_uuid(), execution_id, 'started', now() FROM executions"
    )
    runs, events = _next(legacy, *BOTH)
    assert (runs.deferred, events.inserted, events.deferred) == (1, 2, 1)
    legacy.execute("UPDATE runs SET idempotency_key = NULL WHERE run_id = %s", uuid(900))
    apply(legacy, *BOTH)
    legacy.prove(*BOTH)


@pytest.mark.parametrize("event", ["INSERT", "DELETE"])
def test_a_trigger_that_takes_rows_away_is_told(live: Legacy, event: str) -> None:
    """What it keeps from the target, or on it, stays in the log."""
    live.execute("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    live.execute(
        psycopg.sql.SQL("CREATE TRIGGER swallow BEFORE {} ON runs FOR EACH ROW EXECUTE FUNCTION swallow()").format(
            psycopg.sql.SQL(event)
        )
    )
    live.executions(11)
    live.execute("DELETE FROM executions WHERE execution_id = %s", uuid(3))
    with pytest.raises(Refused, match="a trigger or rule"):
        apply(live)
    assert {uuid(3), uuid(11)} <= set(logged(live))
    live.execute("DROP TRIGGER swallow ON runs")
    apply(live)
    live.prove()


def test_a_key_that_is_equal_and_spelled_otherwise_is_another(
    legacy: Legacy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server can, under a collation that does not tell A from a: what the old one has become goes."""
    file = tmp_path / "capture-spine" / "jobs.toml"
    file.parent.mkdir()
    text = Path("mappings/capture-spine/jobs.toml").read_text()
    file.write_text(text.replace('job_id = { type = "bigint"', 'job_id = { type = "text"'))
    for module in ("tests.syncing", "tests.legacy"):
        monkeypatch.setattr(f"{module}.load", lambda _: load(str(file)))
    legacy.execute("ALTER TABLE jobs ALTER job_id DROP IDENTITY")
    legacy.execute("ALTER TABLE jobs ALTER job_id TYPE text")
    with suppress(psycopg.errors.FeatureNotSupported):
        legacy.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        legacy.execute("ALTER TABLE jobs ALTER job_id TYPE text COLLATE loose")
    legacy.execute("INSERT INTO jobs (job_id, job_type) VALUES ('a', 'one'), ('b', 'two'), ('c', 'three')")
    move_live(legacy, "jobs")
    legacy.execute("UPDATE jobs SET job_id = 'A' WHERE job_id = 'a'")
    with legacy.connect() as connection, connection.transaction():
        connection.execute("DELETE FROM jobs WHERE job_id = 'b'")
        connection.execute("INSERT INTO jobs (job_id, job_type) VALUES ('B', 'two again')")
    assert {"a", "A", "b", "B"} == set(logged(legacy))
    apply(legacy, "jobs")
    names = "SELECT array_agg(metadata #>> '{legacy,job_id}' ORDER BY 1) FROM runs"
    assert sorted(legacy.value(names)) == ["A", "B", "c"]
    legacy.prove("jobs")


def test_places_in_an_index_over_expressions_that_are_exchanged(live: Legacy) -> None:
    """Two active runs that swap their feeds: neither can be first."""
    one, other = uuid(7001), uuid(7002)
    live.executions(20, status="running", feed_id=one)
    live.executions(21, status="running", feed_id=other)
    apply(live)
    _swap_feeds(live, one, other)
    (done,) = apply(live)
    assert done.applied.deferred == 0
    live.prove()


def _swap_feeds(legacy: Legacy, one: str, other: str) -> None:
    with legacy.connect() as connection, connection.transaction():
        for number, feed in ((20, None), (21, one), (20, other)):
            connection.execute("UPDATE executions SET feed_id = %s WHERE execution_id = %s", (feed, uuid(number)))


def test_places_that_are_exchanged_through_the_view_come_back(database: Database) -> None:
    """The legacy table has a guard of its own, in which neither row can be first."""
    pair = Pair(filled(database, ten_followed))
    legacy = pair.legacy
    one, other = uuid(7001), uuid(7002)
    legacy.executions(20, status="running", feed_id=one)
    legacy.executions(21, status="running", feed_id=other)
    pair.switch()
    _swap_feeds(legacy, one, other)
    pair.apply()
    assert lag_back(legacy) == 0
    pair.back()
    feeds = "SELECT feed_id::text FROM executions WHERE execution_id IN (%s, %s) ORDER BY execution_id"
    assert legacy.rows(feeds, uuid(20), uuid(21)) == [(other,), (one,)]
    legacy.prove(*BOTH)


def lag_back(legacy: Legacy) -> int:
    """Rows of the way back that are put off."""
    return int(legacy.value("SELECT count(*) FROM spine_migrate.pending WHERE why = 'deferred'"))


@contextmanager
def _batches(legacy: Legacy) -> Iterator[tuple[Any, Batches]]:
    with closing(connect(legacy.url, settings=WORKER_SETTINGS)) as session:
        (one,) = [known(session, migration) for migration in chosen(session)]
        statements = Statements(one.tables.binding, None)
        guard = guard_of(session, one.tables)
        number, captured = one.migration.migration_id, capture_of(legacy).capture_id
        yield session, Batches(number, statements, guard, lock=one.lock, capture_id=captured)


def _meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """``act``, once, after a batch has read its rows."""
    carry = Carrier.carry

    def interrupted(self: Carrier, *given: Any) -> Any:
        monkeypatch.setattr(Carrier, "carry", carry)
        act()
        return carry(self, *given)

    monkeypatch.setattr(Carrier, "carry", interrupted)


def test_a_row_that_is_mended_while_a_batch_takes_it_to_quarantine(
    live: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The applier has moved it before the entry is there, and looks at it once more."""
    live.executions(40, status="odd")

    def mend() -> None:
        live.execute("UPDATE executions SET status = 'completed' WHERE execution_id = %s", uuid(40))
        apply(live)

    with _batches(live) as (session, batches):
        _meanwhile(monkeypatch, mend)
        list(sweep.move_keys(session, batches.statements.binding, batches, [uuid(40)]))
    apply(live)
    assert not live.quarantine()
    live.prove()


def test_a_batch_by_key_and_the_applier_count_beside_each_other(live: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither fails because the other has counted meanwhile: beside an application that always inserts, one always
    would.
    """
    live.executions(40)
    live.execute("DELETE FROM spine_migrate.change_log")

    def insert() -> None:
        live.executions(41)
        apply(live)

    with _batches(live) as (session, batches):
        _meanwhile(monkeypatch, insert)
        (done,) = sweep.move_keys(session, batches.statements.binding, batches, [uuid(40)])
        assert done.moved == 1
        assert sweep.account(session, batches.statements.binding, 1).moved == 12
    apply(live)
    assert lag_of(live).nothing
    live.prove()


def test_a_row_that_an_earlier_migration_has_left_is_brought_up_to_date(legacy: Legacy) -> None:
    """It has our mark, and no change of it is in the log of this one."""
    legacy.many_executions(5)
    legacy.move()
    legacy.execute("UPDATE runs SET error = 'touched' WHERE run_id = %s", uuid(2))
    (done,) = back(legacy, leave=True)
    assert done.state == "undone"
    move_live(legacy)
    apply(legacy)
    legacy.prove()


def test_no_capture_begins_while_an_offline_load_is_unfinished(legacy: Legacy) -> None:
    """Without its keys the target would take the same row from both."""
    legacy.many_executions(20)
    assert legacy.move(offline=True, limit=5, batch_rows=5).state == "limit"
    with pytest.raises(Refused, match="offline load"):
        move_live(legacy)
    assert legacy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'spine%%'") == 0
    assert legacy.move(batch_rows=5).state == "done"
    move_live(legacy)
    legacy.prove()
