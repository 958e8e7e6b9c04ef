"""Repair beside an application that writes, and killed between its batches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from spine_migrate.backfill import repair as repairing
from spine_migrate.backfill import repair_batch
from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.repaired import Options, Repaired
from spine_migrate.db.connect import connect
from spine_migrate.mapping.load import load
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Verdict
from tests.legacy import Legacy, arranged, uuid
from tests.waiting import until

EXECUTIONS = "capture-spine/executions"


@arranged
def moved(legacy: Legacy) -> None:
    legacy.many_executions(60)
    legacy.move("executions")


def repair(
    legacy: Legacy, *, report: Callable[[Progress], None] = lambda _: None, stop: threading.Event | None = None
) -> Repaired:
    (found,) = repairing.repair(
        legacy.url,
        mappings=[load(EXECUTIONS)],
        options=Options(batch_size=20),
        stop=stop or threading.Event(),
        report=report,
    ).migrations
    return found


def verdict(legacy: Legacy) -> Verdict:
    with connect(legacy.url) as connection:
        return compare(connection).verdict


def test_a_row_that_the_application_changes_in_between_is_left_alone_and_told(moved: Legacy) -> None:
    """After the comparison, before its batch: on the target, and in the legacy table."""
    moved.execute("UPDATE runs SET error = 'x'")

    def write(at: Progress) -> None:
        if at.rows == 20:
            moved.execute("UPDATE runs SET error = 'the application', attempt = 5 WHERE run_id = %s", uuid(50))
            moved.execute("UPDATE executions SET error = 'the application' WHERE execution_id = %s", uuid(55))
            moved.execute("UPDATE runs SET error = repeat('e', 20) WHERE run_id = %s", uuid(58))
            moved.execute("DELETE FROM runs WHERE run_id = %s", uuid(60))

    result = repair(moved, report=write)
    assert result.rows == {"differing": 56}
    assert result.kept == {"changed": 4}
    assert [one.key for one in result.examples] == [uuid(50), uuid(55), uuid(58), uuid(60)]
    assert moved.rows("SELECT error, attempt FROM runs WHERE run_id = %s", uuid(50)) == [("the application", 5)]
    assert moved.value("SELECT error FROM runs WHERE run_id = %s", uuid(55)) == "x"
    assert repair(moved).rows == {"differing": 2, "missing": 1}
    assert verdict(moved) is Verdict.EQUAL


def test_a_row_that_is_written_while_its_batch_runs_is_not_overwritten(
    moved: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write commits between the batch's snapshot and its own; the batch fails, is done again, and then sees it."""
    moved.execute("UPDATE runs SET error = 'x' WHERE run_id IN (%s, %s)", uuid(1), uuid(2))
    differing = repair_batch._Batch.differing  # noqa: SLF001 - the moment between looking and writing
    wrote = threading.Event()

    def late(batch: Any, still: list[dict[str, Any]]) -> None:
        if not wrote.is_set():
            wrote.set()
            moved.execute("UPDATE runs SET error = 'the application' WHERE run_id = %s", uuid(1))
        differing(batch, still)

    monkeypatch.setattr(repair_batch._Batch, "differing", late)  # noqa: SLF001
    result = repair(moved)
    assert wrote.is_set()
    assert (result.rows, result.kept) == ({"differing": 1}, {"changed": 1})
    assert moved.value("SELECT error FROM runs WHERE run_id = %s", uuid(1)) == "the application"
    assert moved.value("SELECT count(*) FROM spine_migrate.repair") == 1


def test_with_writers_at_work_nothing_of_theirs_is_lost(moved: Legacy) -> None:
    """Dual writes in one transaction, and writes to the target alone in columns that the mapping does not write."""
    moved.execute("UPDATE runs SET error = 'x'")
    over, writes = threading.Event(), [0]

    def write() -> None:
        with psycopg.connect(moved.url) as connection:
            while not over.is_set():
                number = uuid(1 + writes[0] % 60)
                with connection.transaction():
                    connection.execute("UPDATE executions SET retry_count = 3 WHERE execution_id = %s", [number])
                    connection.execute("UPDATE runs SET attempt = 4 WHERE run_id = %s", [number])
                    connection.execute("UPDATE runs SET executor_name = 'celery' WHERE run_id = %s", [number])
                writes[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: writes[0], "nobody writes")
        results = [repair(moved) for _ in range(3)]
    finally:
        over.set()
        writer.join()
    repair(moved)
    assert sum(sum(one.rows.values()) for one in results) <= 180
    assert writes[0]
    assert verdict(moved) is Verdict.EQUAL
    touched = min(writes[0], 60)
    assert moved.value("SELECT count(*) FROM runs WHERE executor_name = 'celery' AND attempt = 4") == touched


class Killed(BaseException):
    """Ends the work at once, as a signal would: no handler of the tool's catches it."""


def _killed_after(batches: int, done: list[int], kind: str) -> Callable[[Any, list[dict[str, Any]]], None]:
    """The work of a batch, and an end before its transaction commits once so many have."""
    work = getattr(repair_batch._Batch, kind)  # noqa: SLF001

    def killed(batch: Any, still: list[dict[str, Any]]) -> None:
        work(batch, still)
        if done[0] == batches:
            raise Killed
        done[0] += 1

    return killed


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_killed_between_two_batches_the_ledger_still_adds_up(
    moved: Legacy, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    moved.execute("DELETE FROM runs WHERE run_id < %s", uuid(25))
    moved.execute("UPDATE runs SET error = 'x' WHERE run_id > %s", uuid(40))
    moved.execute("DELETE FROM executions WHERE execution_id > %s", uuid(55))
    done = [0]
    with monkeypatch.context() as patched:
        for kind in ("missing", "differing", "extra"):
            patched.setattr(repair_batch._Batch, kind, _killed_after(batches, done, kind))  # noqa: SLF001
        with pytest.raises(Killed):
            repair(moved)
    with connect(moved.url) as connection:
        (comparison,) = compare(connection).comparisons
    assert {one.name: one.holds for one in comparison.equations}["checkpoints"]
    repair(moved)
    assert verdict(moved) is Verdict.EQUAL
    moved.prove("executions")


def test_stopped_it_goes_on_where_it_was(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET error = 'x'")
    stop = threading.Event()
    first = repair(moved, report=lambda _: stop.set(), stop=stop)
    assert first.rows == {"differing": 20}
    assert repair(moved).rows == {"differing": 40}
    assert verdict(moved) is Verdict.EQUAL
