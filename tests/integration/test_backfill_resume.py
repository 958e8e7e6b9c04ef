"""Going on after an interruption, whatever became of the source meanwhile: nothing lost, nothing doubled."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.sweep import account, find
from spine_migrate.carry.control import WORKER_SETTINGS
from spine_migrate.carry.known import chosen, known
from spine_migrate.carry.rows import Carrier
from spine_migrate.carry.statements import Statements
from spine_migrate.carry.tables import guard_of
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.errors import Refused
from spine_migrate.resources import mappings_dir
from spine_migrate.sync import capture
from tests.database import Database
from tests.legacy import Connection, Legacy, build, uuid
from tests.syncing import PATIENCE, apply, capture_of, move_live
from tests.waiting import LONGEST, WAITING, until


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@pytest.fixture
def half(legacy: Legacy) -> Legacy:
    """600 executions, of which the first 250 were moved by a run that was cut short."""
    legacy.many_executions(600)
    assert legacy.move(limit=250, batch_rows=50).moved == 250
    return legacy


# CLUSTER mixes the rows: as many that were moved come to stand ahead of the scan as others behind it, so that no count
# tells; their versions are as old as before.
REWRITES = pytest.mark.parametrize("rewrite", ["VACUUM FULL executions", "CLUSTER executions USING shuffle"])


def vacuum(legacy: Legacy) -> None:
    """Until no deleted row takes room any more: what autovacuum or the checkpointer looks at just then is kept."""

    def gone() -> bool:
        legacy.execute("VACUUM executions")
        return bool(legacy.value("SELECT relallvisible = relpages FROM pg_class WHERE oid = 'executions'::regclass"))

    until(gone, "deleted rows take room")


def shuffle(legacy: Legacy) -> None:
    legacy.execute("CREATE INDEX shuffle ON executions (md5(execution_id::text))")


@REWRITES
def test_a_rewrite_between_two_runs(half: Legacy, rewrite: LiteralString) -> None:
    shuffle(half)
    half.execute("DELETE FROM executions WHERE execution_id = %s", uuid(3))
    half.execute(rewrite)

    outcome = half.move(workers=2, batch_rows=50)

    assert (outcome.state, outcome.rows, outcome.moved) == ("done", 350, 600)
    # 3 was moved before it was deleted; that it is too much on the target now is for compare to say.
    half.execute("DELETE FROM runs WHERE run_id = %s", uuid(3))
    half.prove()


@REWRITES
@pytest.mark.parametrize("workers", [1, 3])
def test_a_rewrite_during_a_run(legacy: Legacy, workers: int, rewrite: LiteralString) -> None:
    legacy.many_executions(2000)
    shuffle(legacy)
    rewritten = threading.Event()

    def interfere(progress: Progress) -> None:
        if progress.rows > 500 and not rewritten.is_set():
            rewritten.set()
            legacy.execute(rewrite)

    # The report is called between two batches of one worker; the batches of others hold up the rewrite till they end.
    outcome = legacy.move(batch_rows=40, workers=workers, report=interfere)

    assert rewritten.is_set()
    assert (outcome.state, outcome.moved) == ("done", 2000)
    legacy.prove()


@pytest.mark.parametrize("look", [lambda session, carrier: account(session, carrier.statements.binding, 1), find])
def test_a_sweep_does_not_take_a_table_that_is_being_rewritten_for_an_empty_one(
    half: Legacy, look: Callable[[Connection, Carrier], object]
) -> None:
    """It waits for ALTER TABLE with a snapshot from before, which sees nothing of the new file."""
    settings = {**WORKER_SETTINGS, "lock_timeout": "60s"}
    with connect(half.url, settings=settings) as session, half.connect() as connection:
        (one,) = [known(session, migration) for migration in chosen(session)]
        statements = Statements(one.tables.binding, None)
        carrier = Carrier(one.migration.migration_id, statements, guard_of(session, one.tables), lock=one.lock)
        with ThreadPoolExecutor(1) as pool:
            with connection.transaction():
                connection.execute("ALTER TABLE executions ADD COLUMN rewritten uuid DEFAULT gen_random_uuid()")
                looking = pool.submit(look, session, carrier)
                until(lambda: session.info.backend_pid in _waiting(half), "the sweep to wait for the table")
            with pytest.raises(psycopg.errors.SerializationFailure, match="rewritten"):
                looking.result(timeout=LONGEST)
        assert len(find(session, carrier)) == 350


def _waiting(half: Legacy) -> list[int]:
    return [pid for (pid,) in half.rows(WAITING + " AND l.locktype = 'relation'")]


def test_rows_that_move_to_a_block_the_scan_has_passed(half: Legacy) -> None:
    """Space in front is freed, then rows from the back are updated into it."""
    half.execute("DELETE FROM executions WHERE execution_id IN (SELECT execution_id FROM executions"
                 " ORDER BY ctid LIMIT 40)")  # fmt: skip
    vacuum(half)
    half.execute("UPDATE executions SET error = 'later', created_at = now() WHERE execution_id::text > %s", uuid(580))
    assert half.value(
        "SELECT count(*) FROM executions WHERE error = 'later' AND ctid < (SELECT position::tid"
        " FROM spine_migrate.checkpoint WHERE segment = 0)"
    ), "the premise: some rows stand where the scan has been"

    outcome = half.move(batch_rows=50)

    assert outcome.state == "done"
    half.execute("DELETE FROM runs WHERE NOT EXISTS (SELECT FROM executions WHERE execution_id = run_id)")
    half.prove()


def test_a_missed_row_is_found_although_the_counts_agree(half: Legacy) -> None:
    """As many moved rows were deleted as rows were missed: counting alone would call it even."""
    half.execute("DELETE FROM executions WHERE execution_id IN (SELECT execution_id FROM executions"
                 " ORDER BY ctid LIMIT 40)")  # fmt: skip
    vacuum(half)
    half.execute("INSERT INTO executions (execution_id, pipeline_name, status) SELECT"
                 " ('10000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'late', 'completed'"
                 " FROM generate_series(1, 40) n")  # fmt: skip
    assert half.value("SELECT count(*) FROM executions WHERE pipeline_name = 'late' AND ctid < (SELECT position::tid"
                      " FROM spine_migrate.checkpoint WHERE segment = 0)") == 40  # fmt: skip

    outcome = half.move(batch_rows=50)

    assert outcome.state == "done"
    assert half.value("SELECT count(*) FROM runs WHERE name = 'late'") == 40
    half.execute("DELETE FROM runs WHERE NOT EXISTS (SELECT FROM executions WHERE execution_id = run_id)")
    half.prove()


def test_rows_that_come_after_the_end(legacy: Legacy) -> None:
    legacy.many_executions(100)
    legacy.move()
    legacy.many_executions(40, first=1000)
    legacy.executions(2000, status="zombie")

    outcome = legacy.move(workers=2)

    assert (outcome.rows, outcome.moved, outcome.quarantined) == (41, 140, {"unknown_value": 1})
    assert legacy.move().state == "nothing-to-do"
    legacy.prove()


def test_rows_appended_while_the_scan_runs_are_met_by_it(legacy: Legacy) -> None:
    legacy.many_executions(500)
    added = threading.Event()

    def add(progress: Progress) -> None:
        if not added.is_set():
            added.set()
            legacy.many_executions(500, first=1000)

    outcome = legacy.move(batch_rows=50, report=add)

    assert (outcome.state, outcome.moved) == ("done", 1000)
    legacy.prove()


@pytest.mark.parametrize("fate", ["still bad", "mended"])
def test_a_quarantined_row_that_is_updated_and_met_again(legacy: Legacy, fate: str) -> None:
    """The update puts the row's new version ahead of the scan's position, so it comes along a second time."""
    legacy.executions(1, status="zombie")
    legacy.many_executions(300, first=2)
    legacy.move(limit=100, batch_rows=50)
    assert [key for key, *_ in legacy.quarantine()] == [uuid(1)]
    legacy.execute(
        "UPDATE executions SET status = %s, lane = 'seen to', error = repeat('e', 1500) WHERE execution_id = %s",
        "zombie" if fate == "still bad" else "failed",
        uuid(1),
    )
    assert legacy.value("SELECT ctid >= '(3,0)' FROM executions WHERE lane = 'seen to'"), "the premise"

    outcome = legacy.move(batch_rows=50)

    assert outcome.state == "done"
    if fate == "still bad":
        assert outcome.quarantined == {"unknown_value": 1}
        assert legacy.value("SELECT source_row ->> 'lane' FROM spine_migrate.quarantine") == "seen to"
    else:
        assert outcome.quarantined == {}
    legacy.prove()


def test_truncate_and_reload_between_two_runs(half: Legacy) -> None:
    half.execute("TRUNCATE executions CASCADE")
    half.many_executions(300, first=5000)

    outcome = half.move(workers=2)

    assert outcome.state == "done"
    half.execute("DELETE FROM runs WHERE NOT EXISTS (SELECT FROM executions WHERE execution_id = run_id)")
    assert half.value("SELECT count(*) FROM runs") == 300
    half.prove()


def test_truncate_during_a_run(legacy: Legacy) -> None:
    legacy.many_executions(500)
    gone = threading.Event()

    def truncate(progress: Progress) -> None:
        if not gone.is_set():
            gone.set()
            legacy.execute("TRUNCATE executions CASCADE")
            legacy.many_executions(20, first=5000)

    outcome = legacy.move(batch_rows=50, report=truncate)

    assert outcome.state == "done"
    legacy.execute("DELETE FROM runs WHERE NOT EXISTS (SELECT FROM executions WHERE execution_id = run_id)")
    assert legacy.value("SELECT count(*) FROM runs") == 20
    legacy.prove()


def test_a_changed_mapping_is_refused_and_the_old_one_goes_on(legacy: Legacy, tmp_path: Path) -> None:
    legacy.many_executions(20)
    shutil.copytree(mappings_dir(), tmp_path / "mappings")
    copy = tmp_path / "mappings" / "capture-spine" / "executions.toml"
    legacy.move(mapping=str(copy), limit=5)
    original = copy.read_text()
    copy.write_text(original.replace('constant = "pipeline"', 'constant = "workflow"'))

    with pytest.raises(Refused, match="has changed since migration") as refused:
        legacy.move(mapping=str(copy))

    assert refused.value.precondition == "mapping-changed"
    assert legacy.value("SELECT count(*) FROM runs") == 5
    copy.write_text("# A comment is no change.\n" + original)
    assert legacy.move(mapping=str(copy)).moved == 20
    legacy.prove()


def test_another_number_of_workers_and_batch_size_on_resumption(half: Legacy) -> None:
    assert half.move(limit=101, workers=4, batch_rows=7).moved == 351
    assert half.move(workers=2, batch_rows=1).moved == 600
    half.prove()


@REWRITES
def test_a_missed_row_is_found_although_the_counts_agree_after_a_rewrite(half: Legacy, rewrite: LiteralString) -> None:
    """What was moved is deleted, and of the rest as many stay as were moved: none of them was written since."""
    shuffle(half)
    half.execute("DELETE FROM executions WHERE execution_id IN (SELECT execution_id FROM executions"
                 " ORDER BY ctid LIMIT 350)")  # fmt: skip
    half.execute(rewrite)

    assert half.move(batch_rows=50).state == "done"

    half.execute("DELETE FROM runs WHERE NOT EXISTS (SELECT FROM executions WHERE execution_id = run_id)")
    half.prove()


def test_a_row_that_was_given_up_with_its_capture_is_found(legacy: Legacy) -> None:
    """It was handed over to an applier, which was ended before it came to it; the counts agree all the same."""
    legacy.execute("INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'x', 'k')", uuid(900))
    legacy.executions(1, idempotency_key="k")
    legacy.many_executions(19, first=2)
    move_live(legacy, limit=10, batch_rows=5)
    assert legacy.value("SELECT array_agg(row_key) FROM spine_migrate.pending") == [uuid(1)]
    with connect(legacy.url, settings=PINNED) as connection:
        capture.remove(connection, capture_of(legacy), patience=PATIENCE, stop=threading.Event())
    legacy.execute("DELETE FROM runs WHERE run_id = %s", uuid(900))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(3))
    move_live(legacy, batch_rows=5)
    apply(legacy)
    legacy.prove()
    assert legacy.value("SELECT count(*) FROM runs") == 19
