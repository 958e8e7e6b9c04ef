"""Repair of rows that others write without a pause, or hold: it comes through, and overwrites nothing of theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from spine_migrate.backfill import repair as repairing
from spine_migrate.backfill import repair_batch, repair_rows
from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.repair_rows import Repairing
from spine_migrate.backfill.repaired import Options, Repaired
from spine_migrate.db.connect import connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.load import load
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Verdict
from tests.legacy import Legacy, arranged, uuid
from tests.waiting import until

_Batch = repair_batch._Batch  # noqa: SLF001 - the moment between looking and writing


@arranged
def moved(legacy: Legacy) -> None:
    legacy.many_executions(60)
    legacy.move("executions")


def repair(legacy: Legacy, *, retry_seconds: float = 60.0, stop: threading.Event | None = None) -> Repaired:
    (found,) = repairing.repair(
        legacy.url,
        mappings=[load("capture-spine/executions")],
        options=Options(batch_size=20, retry_seconds=retry_seconds),
        stop=stop or threading.Event(),
        report=lambda _: None,
    ).migrations
    return found


def is_equal(legacy: Legacy) -> bool:
    with connect(legacy.url) as connection:
        return compare(connection).verdict is Verdict.EQUAL


def is_locked(legacy: Legacy, number: int) -> bool:
    try:
        legacy.execute("SELECT FROM runs WHERE run_id = %s FOR UPDATE NOWAIT", uuid(number))
    except psycopg.errors.LockNotAvailable:
        return True
    return False


def between(monkeypatch: pytest.MonkeyPatch, kind: str, act: Any) -> None:
    """``act`` with the keys of a batch, each time between its look at the rows and what it writes."""
    work = getattr(_Batch, kind)

    def late(batch: Any, still: list[dict[str, Any]]) -> None:
        act({row["target_key"] for row in still})
        work(batch, still)

    monkeypatch.setattr(_Batch, kind, late)


@pytest.mark.parametrize("hot", [[7], [1, 2, 25, 60]])
def test_rows_that_are_written_in_every_batch_are_repaired(
    moved: Legacy, monkeypatch: pytest.MonkeyPatch, hot: list[int]
) -> None:
    """By whoever writes columns that the mapping does not, all the time. Once its row is held, that waits."""
    moved.execute("UPDATE runs SET error = 'x'")
    tries: list[int] = []

    def write(keys: set[str]) -> None:
        tries.append(len(keys))
        assert len(tries) < 200
        for number in hot:
            if uuid(number) in keys and not is_locked(moved, number):
                moved.execute("UPDATE runs SET executor_name = 'celery' WHERE run_id = %s", uuid(number))

    between(monkeypatch, "differing", write)
    result = repair(moved)
    assert (result.rows, result.kept) == ({"differing": 60}, {})
    assert moved.value("SELECT count(*) FROM runs WHERE executor_name = 'celery'") == len(hot)
    assert moved.value("SELECT count(*) FROM spine_migrate.repair") == 60
    assert is_equal(moved)


def test_rows_without_a_legacy_row_that_are_written_all_the_time_are_removed(
    moved: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.execute("DELETE FROM executions WHERE execution_id > %s", uuid(50))

    def write(keys: set[str]) -> None:
        if uuid(55) in keys and not is_locked(moved, 55):
            moved.execute("UPDATE runs SET executor_name = 'celery' WHERE run_id = %s", uuid(55))

    between(monkeypatch, "extra", write)
    assert repair(moved).rows == {"extra": 10}
    assert is_equal(moved)


def test_missing_rows_come_where_a_trigger_writes_what_everybody_writes(
    moved: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.execute("CREATE TABLE tally (runs int)")
    moved.execute("INSERT INTO tally VALUES (0)")
    moved.execute(
        "CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql SET search_path = public"
        " AS 'BEGIN UPDATE tally SET runs = runs + 1; RETURN NULL; END'"
    )
    moved.execute("CREATE TRIGGER tally AFTER INSERT ON runs FOR EACH STATEMENT EXECUTE FUNCTION tally()")
    moved.execute("DELETE FROM runs WHERE run_id <= %s", uuid(5))
    tries: list[int] = []

    def write(keys: set[str]) -> None:
        tries.append(len(keys))
        assert len(tries) < 50
        moved.execute("UPDATE tally SET runs = runs + 1")

    between(monkeypatch, "missing", write)
    assert repair(moved).rows == {"missing": 5}
    assert is_equal(moved)


def test_a_row_whose_legacy_row_is_written_while_it_is_held_is_left(
    moved: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked at is not what would be written."""
    moved.execute("UPDATE runs SET error = 'x'")

    def write(keys: set[str]) -> None:
        if uuid(7) not in keys:
            return
        if is_locked(moved, 7):
            moved.execute("UPDATE executions SET error = error WHERE execution_id = %s", uuid(7))
        else:
            moved.execute("UPDATE runs SET executor_name = 'celery' WHERE run_id = %s", uuid(7))

    with monkeypatch.context() as patched:
        between(patched, "differing", write)
        result = repair(moved, retry_seconds=0)
    assert (result.rows, result.kept) == ({"differing": 59}, {"busy": 1})
    assert [(one.key, one.reason) for one in result.examples] == [(uuid(7), "busy")]
    assert moved.value("SELECT error FROM runs WHERE run_id = %s", uuid(7)) == "x"
    assert repair(moved).rows == {"differing": 1}


@contextmanager
def holding(legacy: Legacy, *numbers: int) -> Iterator[psycopg.Connection[Any]]:
    with legacy.connect() as connection:
        connection.execute("BEGIN")
        connection.execute(
            "SELECT FROM runs WHERE run_id = ANY(%s::uuid[]) FOR UPDATE", ([uuid(number) for number in numbers],)
        )
        yield connection


def test_rows_that_somebody_holds_keep_no_others_from_being_repaired(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET error = 'x'")
    with holding(moved, 3, 30):
        result = repair(moved, retry_seconds=0)
        assert (result.rows, result.kept) == ({"differing": 58}, {"busy": 2})
        assert {one.key for one in result.examples} == {uuid(3), uuid(30)}
    assert repair(moved).rows == {"differing": 2}
    assert is_equal(moved)


def test_rows_that_somebody_held_are_tried_again_at_the_end(moved: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    moved.execute("UPDATE runs SET error = 'x'")
    with holding(moved, 3) as holder:
        released = threading.Event()

        def release(self: Any, put_off: list[Any], since: float) -> bool:
            holder.rollback()
            released.set()
            return bool(put_off)

        monkeypatch.setattr(Repairing, "_worth_waiting", release)
        result = repair(moved)
    assert released.is_set()
    assert (result.rows, result.kept) == ({"differing": 60}, {})


def test_beside_writers_that_never_rest_it_comes_to_an_end(moved: Legacy) -> None:
    """Dual writes of few rows by several writers at once, and others to the target alone."""
    moved.execute("UPDATE runs SET error = 'x'")
    over, writes = threading.Event(), [0, 0, 0]

    def write(which: int) -> None:
        with psycopg.connect(moved.url, autocommit=True) as connection:
            while not over.is_set():
                number = uuid(1 + writes[which] % 10)
                with connection.transaction():
                    if which:
                        connection.execute("UPDATE executions SET retry_count = 3 WHERE execution_id = %s", [number])
                        connection.execute("UPDATE runs SET attempt = 4 WHERE run_id = %s", [number])
                    connection.execute("UPDATE runs SET executor_name = 'celery' WHERE run_id = %s", [number])
                writes[which] += 1

    writers = [threading.Thread(target=write, args=(which,)) for which in range(len(writes))]
    for writer in writers:
        writer.start()
    try:
        until(lambda: all(writes), "not all of them write")
        results = [repair(moved) for _ in range(2)]
        until(lambda: min(writes) >= 10, lambda: f"a writer has failed: {writes}")
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert sum(sum(one.rows.values()) for one in results) >= 50
    repair(moved)
    assert is_equal(moved)
    assert moved.value("SELECT count(*) FROM runs WHERE executor_name = 'celery' AND attempt = 4") == 10


def test_what_counts_the_ledger_anew_bears_an_applier_beside_it(moved: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows came behind the ledger's back, and its count is written between the look and the mending of it."""
    moved.execute("DELETE FROM runs WHERE run_id <= %s", uuid(2))
    counted = threading.Event()

    def late(connection: Any, *arguments: Any) -> Any:
        found = execute(connection, *arguments)
        if not counted.is_set():
            counted.set()
            moved.execute("UPDATE spine_migrate.checkpoint SET updated_at = now() WHERE segment = -1")
        return found

    monkeypatch.setattr(repair_rows, "execute", late)
    (moved_rows,) = moved.rows("SELECT sum(rows_moved)::int FROM spine_migrate.checkpoint")[0]
    assert moved_rows == 60
    result = repair(moved, retry_seconds=0)
    assert (result.recounted, result.rows) == (-2, {"missing": 2})
    assert is_equal(moved)


def test_a_stop_ends_the_waiting_for_rows_that_somebody_holds(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET error = 'x'")
    stop = threading.Event()

    def told(at: Progress) -> None:
        if at.rows == 59:
            stop.set()

    with holding(moved, 60):
        (found,) = repairing.repair(
            moved.url,
            mappings=[load("capture-spine/executions")],
            options=Options(batch_size=20, retry_seconds=3600),
            stop=stop,
            report=told,
        ).migrations
    assert found.rows == {"differing": 59}
