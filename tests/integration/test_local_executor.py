"""The executor of threads and processes: what is killed, what is deaf, what forks, and what is left at the end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import BackendError, EventType, HandlerRegistry, RunRecord, RunStatus, SyncDispatcher
from spine_migrate.execution.executors.local import LocalExecutor
from spine_migrate.execution.guards.memory import MemoryGuard
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.runs import FINAL
from spine_migrate.execution.spec import task_spec
from tests.database import Database
from tests.executors import Bench, local_bench
from tests.handlers import registry
from tests.processes import lives
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["dies_once", "forks"])
def test_a_killed_process_takes_neither_run_nor_pool_with_it(tmp_path: Path, name: str) -> None:
    """Even where a process of its own keeps the pipe open."""
    with local_bench(tmp_path, processes=True) as bench:
        run = bench.ended(bench.submit(name))
        assert (run.status, run.attempt) == (RunStatus.COMPLETED, 2)
        retried = [event.data for event in bench.ledger.events(run.run_id) if event.event_type == "retry_scheduled"]
        assert [data["error_type"] for data in retried] == ["WorkerProcessDied"]
        assert "exit code -9" in retried[0]["error"]
        assert bench.ended(bench.submit("quick")).status is RunStatus.COMPLETED
        bench.go()


def test_a_deaf_handler_is_killed_when_it_takes_too_long(tmp_path: Path) -> None:
    with local_bench(tmp_path, processes=True, kill_after_seconds=0.05) as bench:
        run = bench.ended(bench.submit("deaf", timeout_seconds=0.05, max_retries=0))
        assert (run.status, run.error_type) == (RunStatus.DEAD_LETTERED, "RunTimeout")
        assert bench.ended(bench.submit("quick")).status is RunStatus.COMPLETED


def test_a_deaf_handler_is_killed_when_it_is_cancelled(tmp_path: Path) -> None:
    with local_bench(tmp_path, processes=True, kill_after_seconds=0.05) as bench:
        run_id = bench.submit("deaf")
        bench.began(run_id)
        assert bench.dispatcher.cancel(run_id)
        assert bench.ended(run_id).status is RunStatus.CANCELLED
        assert bench.ledger.events(run_id)[-1].data == {"reason": "killed, as it did not stop when asked to"}
        assert bench.ended(bench.submit("quick")).status is RunStatus.COMPLETED


def test_a_deaf_handler_in_a_thread_keeps_its_run_and_timed_out_when_it_ends(tmp_path: Path) -> None:
    """Nobody else may start it meanwhile: the lease is renewed."""
    with local_bench(tmp_path, lease_seconds=0.03) as bench:
        run_id = bench.submit("deaf", timeout_seconds=0.01, max_retries=0)
        bench.began(run_id)
        renewed = threading.Event()
        renew = bench.ledger.renew

        def seen(*given: object, **named: object) -> bool:
            renewed.set()
            return renew(*given, **named)  # type: ignore[arg-type]  # passed on as they are

        bench.ledger.renew = seen  # type: ignore[method-assign]  # to wait for it, nothing else
        assert renewed.wait(60)
        assert bench.run(run_id).status is RunStatus.RUNNING
        bench.go()
        # Without a relay: so short a lease runs out whenever a busy machine keeps its thread waiting.
        until(lambda: bench.run(run_id).status in FINAL, "It does not end")
        assert bench.run(run_id).error_type == "RunTimeout"
        assert bench.executions(run_id) == 1


@pytest.mark.parametrize("processes", [False, True])
def test_sys_exit_in_a_handler_ends_its_run_and_not_the_pool(tmp_path: Path, processes: bool) -> None:  # noqa: FBT001
    with local_bench(tmp_path, processes=processes) as bench:
        run = bench.ended(bench.submit("leaves", max_retries=0))
        assert (run.status, run.error_type, run.error) == (RunStatus.DEAD_LETTERED, "SystemExit", "leaving")
        assert bench.ended(bench.submit("quick")).status is RunStatus.COMPLETED


def test_a_handler_that_cannot_be_sent_to_a_process_fails_for_good() -> None:
    own = HandlerRegistry()
    own.register("task", "here", lambda params: params)
    with LocalExecutor(registry=own, processes=True) as executor:
        dispatcher = SyncDispatcher(executor)
        run_id = dispatcher.submit_task("here")
    run = dispatcher.get_run(run_id)
    assert run is not None
    assert (run.status, run.error_type) == (RunStatus.FAILED, "HandlerNotPortable")
    assert run.error is not None
    assert run.error.endswith("it must be importable by name.")


def test_shutdown_waits_for_what_it_was_given(tmp_path: Path) -> None:
    with local_bench(tmp_path) as bench:
        submitted = [bench.submit("quick") for _ in range(5)]
    assert {bench.run(run_id).status for run_id in submitted} == {RunStatus.COMPLETED}


def test_after_shutdown_a_run_is_left_to_the_relay(tmp_path: Path) -> None:
    with local_bench(tmp_path) as bench:
        pass
    run_id = bench.submit("quick")
    assert bench.run(run_id).status is RunStatus.PENDING
    (alert,) = [event for event in bench.ledger.events(run_id) if event.event_type == EventType.ALERT_TRIGGERED]
    assert alert.data["publishing"].startswith("The executor 'local' takes no more runs")
    with pytest.raises(BackendError):
        bench.executor.submit(bench.run(run_id))


def test_what_has_not_started_can_be_dropped_and_stays_queued(tmp_path: Path) -> None:
    # Marks of another test's dispatcher are waited for by a thread that goes on for seconds.
    before = set(threading.enumerate())
    ended = LocalExecutor(registry=registry, workers=1)
    bench = Bench(ended, ended.ledger, tmp_path)
    first = bench.submit("waits")
    bench.began(first)
    waiting = bench.submit("quick")
    ended.shutdown(wait=False, cancel_futures=True)
    bench.go()
    ended.shutdown()
    assert (bench.run(first).status, bench.run(waiting).status) == (RunStatus.COMPLETED, RunStatus.QUEUED)

    def left() -> set[str]:
        """The alarm is not the executor's: it ends by itself, when the last one who slept would have been woken."""
        started = {thread.name for thread in set(threading.enumerate()) - before}
        return {name for name in started if name.startswith("spine-")} - {"spine-alarm"}

    until(lambda: not left(), lambda: f"Still there: {left()}")


def test_an_executor_that_owns_its_ledger_is_its_own_relay(tmp_path: Path) -> None:
    with LocalExecutor(registry=registry, relay_every=0.01) as executor:
        bench = Bench(executor, executor.ledger, tmp_path)
        retried, due = bench.submit("fails_once"), bench.submit("quick", due_at=datetime.now(UTC))

        def completed() -> bool:
            return all(bench.run(run_id).status is RunStatus.COMPLETED for run_id in (retried, due))

        until(completed, "Nobody relays")
        assert bench.executions(retried) == 2


def test_a_ledger_whose_connections_are_cut_again_and_again(database: Database, tmp_path: Path) -> None:
    """Under runs that are claimed, renewed, and marked: each ends, and is executed once."""
    database.arrange(schema.upgrade)
    with ConnectionPool(database.url, min_size=1, max_size=8) as pool:
        ledger = PostgresLedger(pool)
        with local_bench(tmp_path, ledger, workers=4) as bench:
            waiting = [bench.submit("waits") for _ in range(4)]
            for run_id in waiting:
                bench.began(run_id)
            with database.connect_admin(autocommit=True) as admin:
                for _ in range(5):
                    admin.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                    bench.go()
            statuses = [_patient(bench, run_id).status for run_id in waiting]
        assert set(statuses) == {RunStatus.COMPLETED}
        assert {bench.executions(run_id) for run_id in waiting} == {1}


def _patient(bench: Bench, run_id: str) -> RunRecord:
    """Once a run has ended; the test's own questions meet cut connections, too."""
    found: list[RunRecord] = []

    def ended() -> bool:
        try:
            found.append(bench.run(run_id))
        except BackendError:
            return False
        return found[-1].status is RunStatus.COMPLETED

    until(ended, f"The run {run_id} does not end")
    return found[-1]


_SCRIPT = """
import os, sys, time
from pathlib import Path
from spine_migrate.execution import SyncDispatcher
from spine_migrate.execution.executors.local import LocalExecutor
from tests.handlers import registry

def main(folder, processes):
    executor = LocalExecutor(registry=registry, workers=2, processes=processes, kill_after_seconds=0.1)
    dispatcher = SyncDispatcher(executor)

    def submit(name):
        return dispatcher.submit_task(name, {"folder": folder})

    def ended(run_id):
        while dispatcher.get_run(run_id).status != "completed":
            time.sleep(0.005)

    def began(run_id):
        while not Path(folder, "began-" + run_id).exists():
            time.sleep(0.005)

{body}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "True")
"""


def _python(folder: Path, body: str, processes: bool) -> subprocess.Popen[str]:  # noqa: FBT001
    script = folder / "script.py"
    script.write_text(_SCRIPT.replace("{body}", "\n".join(f"    {line}" for line in body.strip().splitlines())))
    return subprocess.Popen(
        # A fork of a process with threads is what this is about.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", script, folder, str(processes)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("processes", [False, True])
def test_at_the_interpreters_end_runs_are_over_and_nothing_is_left(tmp_path: Path, processes: bool) -> None:  # noqa: FBT001
    """Without shutdown, as a script that just ends."""
    script = _python(tmp_path, "for _ in range(4): submit('quick')", processes)
    said, complained = script.communicate(timeout=60)
    assert (script.returncode, said, complained) == (0, "", "")
    ran = list(tmp_path.glob("ran-*"))
    assert len(ran) == 4
    pids = {int(path.read_text()) for path in ran}
    assert (pids == {script.pid}) is not processes
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


_FORK = """
ended(submit("quick"))
busy = submit("waits")
began(busy)
pid = os.fork()
if pid == 0:
    with executor:
        mine = submit("quick")
        ended(mine)
        assert executor.get_status(busy) is None and not executor.cancel(busy)
    print("child", flush=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
Path(folder, "go").touch()
ended(busy)
ended(submit("quick"))
executor.shutdown()
print("parent")
"""


@pytest.mark.parametrize("processes", [False, True])
def test_a_fork_starts_anew_and_leaves_the_parents_runs_alone(tmp_path: Path, processes: bool) -> None:  # noqa: FBT001
    script = _python(tmp_path, _FORK, processes)
    said, complained = script.communicate(timeout=60)
    assert (script.returncode, said, complained) == (0, "child\nparent\n", "")


def test_the_processes_of_a_killed_owner_end(tmp_path: Path) -> None:
    """One is idle, one is deaf; a fork of the owner, which has inherited their pipes, is still there."""
    body = """
ended(submit("quick"))
began(submit("deaf"))
ended(submit("quick"))
pid = os.fork()
if pid == 0:
    while not Path(folder, "go").exists():
        time.sleep(0.005)
    os._exit(0)
print(pid, flush=True)
while True:
    time.sleep(1)
"""
    script = _python(tmp_path, body, processes=True)
    assert script.stdout is not None
    fork = int(script.stdout.readline())
    # Beside them there is the tracker of multiprocessing, which lives as long as the fork.
    children = psutil.Process(script.pid).children()
    processes = [child for child in children if "spawn_main" in " ".join(child.cmdline()) and child.pid != fork]
    assert len(processes) == 2
    os.kill(script.pid, signal.SIGKILL)
    try:
        until(lambda: not any(map(lives, processes)), "A process outlives its owner")
    finally:
        (tmp_path / "go").touch()
        script.communicate(timeout=60)


def test_a_run_that_waits_already_is_not_taken_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with local_bench(tmp_path) as bench:
        first = bench.submit("waits")
        bench.began(first)
        waiting = bench.run(bench.submit("quick"))
        for _ in range(3):
            bench.executor.submit(waiting)
        bench.go()
    refused = [event for event in bench.ledger.events(waiting.run_id) if event.event_type == "transition_refused"]
    assert refused == []
    assert [record for record in caplog.records if record.name.startswith("spine_migrate")] == []


def test_a_run_nobody_knows_is_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unknown = RunRecord(task_spec("quick"))
    with local_bench(tmp_path) as bench:
        bench.executor.submit(unknown)
    assert f"There is no run {unknown.run_id}" in caplog.text


@pytest.mark.parametrize("processes", [False, True])
def test_a_handler_has_the_lock_on_its_entity(tmp_path: Path, processes: bool) -> None:  # noqa: FBT001
    """The process is told the lock's fence; the next run of the entity has a larger one."""
    guard = MemoryGuard()
    about = {"entity_type": "feed", "entity_id": "7"}
    with local_bench(tmp_path, processes=processes, guard=guard) as bench:
        fences = [bench.ended(bench.submit("fence", metadata=about)).result for _ in range(2)]
        free = bench.ended(bench.submit("fence")).result
    assert fences[0] < fences[1]
    assert free is None
    assert guard.held("feed", "7") is None
