"""A place where executors are held to their contract: one worker, the handlers of tests/handlers.py, a folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spine_migrate.execution import RunRecord, RunStatus, SyncDispatcher
from spine_migrate.execution.executors.local import LocalExecutor
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.executors.protocol import Executor
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.relay import Relay
from spine_migrate.execution.runs import FINAL
from tests.handlers import registry
from tests.waiting import until

#: Seconds after which something that does not happen has failed.
#: Seconds of a lease that nobody lets run out: a busy machine keeps a thread from renewing it for longer than a moment,
#: and ``ended`` reaps. A worker hears within a third of it that its run is cancelled.
LEASE = 10.0


@dataclass(frozen=True)
class Bench:
    """``executor`` works off one run at a time, all by itself; ``ledger`` is its workers'."""

    executor: Executor
    ledger: Ledger
    folder: Path

    @property
    def dispatcher(self) -> SyncDispatcher:
        return SyncDispatcher(self.executor, self.ledger, registry)

    def submit(self, name: str, /, **fields: Any) -> str:
        """Tried again at once."""
        params = {"folder": str(self.folder), "value": fields.pop("value", None)}
        return self.dispatcher.submit_task(name, params, retry_delay_seconds=0, **fields)

    def executions(self, run_id: str) -> int:
        ran = self.folder / f"ran-{run_id}"
        return len(ran.read_text().splitlines()) if ran.exists() else 0

    def began(self, run_id: str) -> None:
        """Once a waiting handler runs."""
        until((self.folder / f"began-{run_id}").exists, lambda: f"The run {run_id} does not begin: {self.run(run_id)}")

    def go(self) -> None:
        """Let those that wait go on."""
        (self.folder / "go").touch()

    def run(self, run_id: str) -> RunRecord:
        run = self.ledger.get(run_id)
        assert run is not None
        return run

    def reference(self, run_id: str) -> str:
        """A worker that is faster than the submitter leaves none in the ledger; a test that hands over again has it."""
        return self.run(run_id).external_ref or self.executor.submit(self.run(run_id))

    def ended(self, run_id: str, status: RunStatus | None = None) -> RunRecord:
        """The run once it has come to ``status``, or to any final one; a relay works meanwhile."""
        relay = Relay(self.ledger, self.executor, backoff_seconds=0)

        def has_ended() -> bool:
            relay.run_once()
            now = self.run(run_id).status
            return now in FINAL if status is None else now is status

        until(has_ended, lambda: f"The run {run_id} does not end: {self.run(run_id)}")
        return self.run(run_id)


@contextmanager
def memory_bench(folder: Path) -> Iterator[Bench]:
    """With a thread that says all the time what a test says once."""
    executor, ended = MemoryExecutor(MemoryLedger(), registry), threading.Event()

    def drive() -> None:
        while not ended.wait(0.002):
            executor.run_next()

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        yield Bench(executor, executor.ledger, folder)
    finally:
        ended.set()
        driver.join()


@contextmanager
def local_bench(folder: Path, ledger: Ledger | None = None, **options: Any) -> Iterator[Bench]:
    ledger = MemoryLedger() if ledger is None else ledger
    with LocalExecutor(ledger, registry, **{"workers": 1, "lease_seconds": LEASE, **options}) as executor:
        yield Bench(executor, ledger, folder)
