"""Links while rows are moved, completed and deleted at once: each is as it should be, or on record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg
import pytest
from psycopg.rows import TupleRow

from spine_migrate.backfill.pace import Progress
from spine_migrate.carry import links
from spine_migrate.carry.known import chosen, known
from spine_migrate.db.connect import connect
from spine_migrate.sync.appliers import applier_of
from spine_migrate.sync.loop import APPLIER_SETTINGS
from tests.legacy import Legacy, arranged, uuid
from tests.syncing import apply, capture_of, move_live, prepare
from tests.waiting import until

PARENT, CHILD = 2, 60


@arranged
def legacy(legacy: Legacy) -> None:
    legacy.many_executions(5)


@contextmanager
def _applying(legacy: Legacy) -> Iterator[None]:
    """The applier has applied one batch, which is committed at the end."""
    with closing(connect(legacy.url, settings=APPLIER_SETTINGS)) as session:
        (one,) = [known(session, migration) for migration in chosen(session)]
        made = applier_of(session, one, capture_of(legacy), [])
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with session.transaction():
            assert made.next(session, limit=100).deleted == 1
            yield


def _someone_waits(legacy: Legacy) -> bool:
    return bool(
        legacy.rows(
            "SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple')"
        )
    )


def _delete_parent(legacy: Legacy) -> None:
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(PARENT))


def _comes_again(legacy: Legacy) -> None:
    """The link of the child is open and on record, and complete once its row is there again."""
    wanted = "SELECT wanted FROM spine_migrate.link WHERE target_key = %s"
    linked = "SELECT parent_run_id::text FROM runs WHERE run_id = %s"
    assert legacy.value(linked, uuid(CHILD)) is None
    assert legacy.rows(wanted, uuid(CHILD)) == [(uuid(PARENT),)]
    apply(legacy)
    legacy.prove()
    legacy.executions(PARENT)
    apply(legacy)
    assert legacy.value(linked, uuid(CHILD)) == uuid(PARENT)
    legacy.prove()


@pytest.mark.parametrize("link", ["complete", "open"])
def test_links_are_completed_while_the_row_they_name_is_deleted(legacy: Legacy, link: str) -> None:
    """A record may stand beside a link that is complete, as older runs have left them; or the link is open."""
    move_live(legacy)
    legacy.executions(CHILD, parent_execution_id=uuid(PARENT))
    apply(legacy)
    legacy.execute(
        "INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted)"
        " SELECT migration_id, %s, 'parent_run_id', %s FROM spine_migrate.migration",
        uuid(CHILD),
        uuid(PARENT),
    )
    if link == "open":
        legacy.execute("UPDATE runs SET parent_run_id = NULL WHERE run_id = %s", uuid(CHILD))
    _delete_parent(legacy)

    def complete() -> None:
        with closing(connect(legacy.url, settings={"lock_timeout": "60s"})) as session:
            (one,) = [known(session, migration) for migration in chosen(session)]
            links.complete(session, one.tables.binding, one.migration.migration_id, everything_moved=True)

    with ThreadPoolExecutor(1) as pool:
        with _applying(legacy):
            completing = pool.submit(complete)
            until(lambda: _someone_waits(legacy) or completing.done(), "nobody waits for the applier")
        completing.result()

    _comes_again(legacy)


def test_a_row_that_was_brought_before_the_backfill_met_it(legacy: Legacy) -> None:
    """The backfill leaves its link to the applier, and so ends beside it without a word about it."""
    move_live(legacy, limit=1, batch_rows=1)
    legacy.executions(CHILD, parent_execution_id=uuid(PARENT))
    apply(legacy)
    legacy.execute("UPDATE executions SET error = 'anew' WHERE execution_id = %s", uuid(PARENT))
    apply(legacy)
    held, over = threading.Event(), threading.Event()
    seen: list[list[TupleRow]] = []
    deleting: list[Future[None]] = []

    def delete() -> None:
        with _applying(legacy):
            held.set()
            until(lambda: over.is_set() or _someone_waits(legacy), "neither does the backfill wait, nor is it over")

    def report(progress: Progress) -> None:
        if progress.stage == "links" and not seen:
            seen.append(legacy.rows("SELECT wanted FROM spine_migrate.link"))
            _delete_parent(legacy)
            deleting.append(pool.submit(delete))
            until(lambda: held.is_set() or deleting[0].done(), "the applier has not come as far")

    with ThreadPoolExecutor(1) as pool:
        try:
            outcome = legacy.move(prepare=prepare, report=report)
        finally:
            over.set()
        deleting[0].result()

    assert seen == [[]]
    assert outcome.state == "done"
    _comes_again(legacy)


def test_a_row_that_is_handed_over_takes_its_link_along(legacy: Legacy) -> None:
    """What the batch knew of it would outlive the link itself."""
    legacy.execute("INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'x', 'k')", uuid(900))
    legacy.executions(CHILD, idempotency_key="k", parent_execution_id=uuid(999))
    move_live(legacy)
    assert legacy.rows("SELECT row_key FROM spine_migrate.pending WHERE why = 'deferred'") == [(uuid(CHILD),)]
    assert not legacy.rows("SELECT FROM spine_migrate.link")

    legacy.execute("UPDATE runs SET idempotency_key = NULL WHERE run_id = %s", uuid(900))
    legacy.execute("UPDATE executions SET parent_execution_id = NULL WHERE execution_id = %s", uuid(CHILD))
    apply(legacy)
    legacy.executions(999)
    apply(legacy)

    assert legacy.rows("SELECT parent_run_id FROM runs WHERE run_id = %s", uuid(CHILD)) == [(None,)]
    legacy.prove()
