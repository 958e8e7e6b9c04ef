"""The applier beside an application that writes the same rows of the target without a pause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from spine_migrate.sync import members
from spine_migrate.sync.loop import follow
from spine_migrate.sync.members import Options
from spine_migrate.sync.work import Work
from tests.cutting import Pair
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid
from tests.syncing import apply, lag_of, logged, move_live
from tests.waiting import until


@arranged
def live(legacy: Legacy) -> None:
    """Forty executions, moved, their changes captured."""
    legacy.many_executions(40)
    move_live(legacy)


def is_locked(legacy: Legacy, number: int) -> bool:
    try:
        legacy.execute("SELECT FROM runs WHERE run_id = %s FOR UPDATE NOWAIT", uuid(number))
    except psycopg.errors.LockNotAvailable:
        return True
    return False


def between(monkeypatch: pytest.MonkeyPatch, act: Callable[[Sequence[str]], None]) -> None:
    """``act`` with the keys, each time between the applier's look at rows and what it writes."""
    write, tries = Work._write, [0]  # noqa: SLF001

    def late(work: Any, seen: Any) -> None:
        tries[0] += 1
        assert tries[0] < 200, "the same is tried again and again"
        act(seen.here)
        write(work, seen)

    monkeypatch.setattr(Work, "_write", late)


def test_a_row_that_is_written_all_the_time_is_applied_with_all_behind_it(
    live: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.execute("UPDATE executions SET error = 'new'")

    def write(keys: Sequence[str]) -> None:
        if uuid(3) in keys and not is_locked(live, 3):
            live.execute("UPDATE runs SET executor_name = 'celery' WHERE run_id = %s", uuid(3))

    between(monkeypatch, write)
    (done,) = apply(live)
    assert done.lag.nothing
    assert done.applied.updated == 40
    assert live.value("SELECT count(*) FROM runs WHERE error = 'new'") == 40
    assert live.value("SELECT executor_name FROM runs WHERE run_id = %s", uuid(3)) == "celery"


def test_many_entries_of_one_hot_row_are_applied_as_one(live: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dual writer makes an entry with each of its writes: one by one they would never be caught up with."""
    for number in range(1, 31):
        live.execute("UPDATE executions SET error = %s WHERE execution_id = %s", str(number), uuid(3))
        live.execute("UPDATE executions SET error = %s WHERE execution_id = %s", str(number), uuid(number + 5))
    held: list[int] = []

    def write(keys: Sequence[str]) -> None:
        if uuid(3) in keys:
            if is_locked(live, 3):
                held.append(len(logged(live)))
            else:
                live.execute("UPDATE runs SET executor_name = 'celery' WHERE run_id = %s", uuid(3))

    between(monkeypatch, write)
    (done,) = apply(live)
    assert done.lag.nothing
    assert (done.applied.entries, len(held)) == (60, 1)
    live.execute("UPDATE runs SET executor_name = NULL")
    live.prove()


def test_a_row_that_cannot_be_held_is_put_off_and_comes_when_it_can(
    live: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both its sides are written all the time, each by somebody else."""
    live.execute("UPDATE executions SET error = 'new'")
    stop = threading.Event()

    def write(keys: Sequence[str]) -> None:
        if uuid(3) not in keys or stop.is_set():
            return
        if is_locked(live, 3):
            live.execute("UPDATE executions SET retry_count = retry_count WHERE execution_id = %s", uuid(3))
        else:
            live.execute("UPDATE runs SET executor_name = 'celery' WHERE run_id = %s", uuid(3))
        if live.rows("SELECT FROM spine_migrate.pending WHERE row_key = %s AND attempts > 1", uuid(3)):
            stop.set()

    between(monkeypatch, write)
    (done,) = apply(live)
    assert stop.is_set()
    assert done.lag.nothing
    assert live.value("SELECT count(*) FROM runs WHERE error = 'new'") == 40
    assert not live.quarantine()


def test_what_cannot_be_held_keeps_nothing_else_in_the_log(live: Legacy) -> None:
    """Somebody holds the row of the target for as long as it pleases him."""
    live.execute("UPDATE executions SET error = 'new'")
    given = members.Members.find

    def find(self: Any, connection: Any, url: str | None) -> Any:
        connection.execute("SET lock_timeout = '100ms'")
        return given(self, connection, url)

    with pytest.MonkeyPatch.context() as patched, live.connect() as holder:
        patched.setattr(members.Members, "find", find)
        with holder.transaction():
            holder.execute("SELECT FROM runs WHERE run_id = %s FOR UPDATE", (uuid(3),))
            stop = threading.Event()
            applying = threading.Thread(target=lambda: stop.set() if apply(live) else None)
            applying.start()
            until(lambda: not logged(live), "the log is not emptied")
            until(lambda: lag_of(live).deferred == 1, "the row is not put off")
            assert live.value("SELECT count(*) FROM runs WHERE error = 'new'") == 39
        applying.join()
    assert stop.is_set()
    live.prove()


def test_beside_dual_writers_that_never_rest_the_log_is_emptied(live: Legacy) -> None:
    over, writes = threading.Event(), [0, 0]

    def write(which: int) -> None:
        with psycopg.connect(live.url, autocommit=True) as connection:
            while not over.is_set():
                number = uuid(1 + writes[which] % 3)
                with connection.transaction():
                    connection.execute("UPDATE executions SET retry_count = 3 WHERE execution_id = %s", [number])
                    connection.execute("UPDATE runs SET attempt = 4 WHERE run_id = %s", [number])
                writes[which] += 1

    writers = [threading.Thread(target=write, args=(which,)) for which in range(len(writes))]
    for writer in writers:
        writer.start()
    stop = threading.Event()
    applying = threading.Thread(target=_follow, args=(live, stop))
    applying.start()
    try:
        for text in ("one", "two", "three"):
            live.execute("UPDATE executions SET error = %s WHERE execution_id > %s", text, uuid(20))
            _comes(live, text)
    finally:
        over.set()
        for thread in writers:
            thread.join()
        stop.set()
        applying.join()
    assert all(writes), "a writer has failed"
    apply(live)
    live.prove()


def _follow(live: Legacy, stop: threading.Event) -> None:
    follow(live.url, options=Options(), stop=stop, report=lambda _: None)


def _comes(live: Legacy, text: str) -> None:
    until(
        lambda: live.value("SELECT count(*) FROM runs WHERE error = %s", text) == 20,
        f"{text} does not come, behind rows that are written all the time",
    )


def test_a_cutover_catches_up_beside_a_hot_row(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    legacy = build(database)
    legacy.many_executions(20)
    pair = Pair(legacy)
    pair.begin()
    legacy.execute("UPDATE executions SET error = 'new'")

    def write(keys: Sequence[str]) -> None:
        if uuid(3) in keys and not is_locked(legacy, 3):
            legacy.execute("UPDATE runs SET executor_name = 'celery' WHERE run_id = %s", uuid(3))

    between(monkeypatch, write)
    pair.switch()
    assert legacy.value("SELECT count(*) FROM runs WHERE error = 'new'") == 20
