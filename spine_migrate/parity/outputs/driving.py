"""Executing one run on a backend, to its end or until nobody waits for it any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from spine_migrate.execution.core import SyncDispatcher
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.ledgers.protocol import Delivery
from spine_migrate.execution.publishing import PUBLISH_GRACE
from spine_migrate.execution.runs import FINAL, RunRecord, RunStatus
from spine_migrate.execution.spec import WorkSpec
from spine_migrate.parity.outputs.observation import Observation, of_run

#: Seconds between the first two looks at the ledger, and at most; the durations that are told are the ledger's own.
_LOOK, _SELDOM = 0.01, 0.25
#: Seconds between looks for an attempt that is due again, which is part of what a run takes.
_AGAIN = 0.02
#: Seconds that a handler has that is asked to stop, and no more than it had before.
_STOPPING = 5.0
#: Seconds by which the clocks of this machine and of the ledger may be apart.
_CLOCKS = 60.0
_REASON = "compare-backends does not wait any longer"


class Backend(Protocol):
    @property
    def name(self) -> str: ...

    def observe(self) -> Observation:
        """Execute once. Raises BackendError where the ledger, the broker or the executor cannot be reached."""
        ...


@dataclass(frozen=True)
class Dispatched:
    """A backend of the runtime: a run of ``spec`` goes through ``dispatcher``, and is waited for ``timeout`` seconds.

    Attempts that are due again are published here, and those of this run alone: no relay need be there. ``what_to_do``
    is for people whose run no worker has taken. A run that is given up is cancelled; one that waits while this process
    is killed expires.
    """

    name: str
    dispatcher: SyncDispatcher
    spec: WorkSpec
    timeout: float
    what_to_do: str = ""

    def observe(self) -> Observation:
        wanted = RunRecord(replace(self.spec))
        expires_at = datetime.now(UTC) + timedelta(seconds=self.timeout + _CLOCKS)
        delivery = Delivery(expires_at=expires_at, publish_in_seconds=PUBLISH_GRACE)
        run = _unpublished(self.dispatcher).submit_run(wanted, delivery)
        carrying = _Carrying(self.dispatcher, run)
        try:
            ended = self._wait(run, carrying)
        except BaseException:
            # Ctrl-C, or a ledger that is away: what is not over is called off, where anybody can still be told.
            self._call_off(run)
            raise
        finally:
            carrying.stop()
        if ended.status is RunStatus.CANCELLED and ended.started_at is None:
            return Observation("cancelled", {}, run.run_id, gave_up=self._not_ours(run))
        return of_run(self.dispatcher, ended) if ended.status in FINAL else self._given_up(run)

    def _wait(self, run: RunRecord, carrying: _Carrying) -> RunRecord:
        """The run as it is when it has ended, or when the time is over."""
        carrying.start()
        return self._look(run, self.timeout, carrying.check)

    def _look(self, run: RunRecord, seconds: float, check: Callable[[], None] = lambda: None) -> RunRecord:
        """The run as it is when it has ended, or after so long. The longer it takes, the less often the ledger is
        asked.
        """
        end, pause = time.monotonic() + seconds, _LOOK
        while True:
            check()
            found = self.dispatcher.get_run(run.run_id) or run
            left = end - time.monotonic()
            if found.status in FINAL or left <= 0:
                return found
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _SELDOM)

    def _given_up(self, run: RunRecord) -> Observation:
        self._call_off(run)
        found = self._look(run, min(_STOPPING, self.timeout))
        return Observation("timed out", {}, run.run_id, gave_up=self._sentence(found))

    def _sentence(self, run: RunRecord) -> str:
        within = f"within {self.timeout:g} seconds"
        if run.started_at is None:
            return f"No worker has taken the run {run.run_id} of {self.name} {within}; it was cancelled.{self._todo}"
        if run.status is RunStatus.CANCELLED:
            became = "was cancelled"
        else:
            became = "ended after that" if run.status in FINAL else "is asked to stop, and has not yet"
        return f"The run {run.run_id} of {self.name} did not end {within}; it {became}."

    def _not_ours(self, run: RunRecord) -> str:
        return (
            f"The run {run.run_id} of {self.name} was cancelled before a worker began: by somebody else, or because the"
            f" database's clock is more than {_CLOCKS:g} seconds ahead of this machine's."
        )

    @property
    def _todo(self) -> str:
        return f" {self.what_to_do}" if self.what_to_do else ""

    def _call_off(self, run: RunRecord) -> None:
        self.dispatcher.cancel(run.run_id, _REASON)


class _Carrying:
    """A thread in which a run is published, and executed where the executor does that while it is handed over. It dies
    with the process: a handler in this process that does not stop cannot be ended otherwise.
    """

    def __init__(self, dispatcher: SyncDispatcher, run: RunRecord) -> None:
        self._dispatcher = dispatcher
        self._run = run
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="spine-compare", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raises what the thread came to."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """A handler that does not stop is not waited for; what asks the ledger is, so that it is not closed before."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_SELDOM)

    def _work(self) -> None:
        try:
            self._publish(self._run)
            attempt = self._run.attempt
            while self._run.spec.max_retries and not self._stopped.wait(_AGAIN):
                found = self._dispatcher.get_run(self._run.run_id)
                if found is None or found.status in FINAL:
                    return
                # A worker that is told too early refuses, so it is told again until it has begun.
                if found.attempt > attempt and found.status is RunStatus.PENDING:
                    self._publish(found)
        except BaseException as error:  # noqa: BLE001 it is raised where somebody waits
            self._error = error

    def _publish(self, run: RunRecord) -> None:
        self._dispatcher.publish(run)
        executor = self._dispatcher.executor
        if isinstance(executor, MemoryExecutor):
            executor.run_all()


def _unpublished(dispatcher: SyncDispatcher) -> SyncDispatcher:
    """Publishing is done apart, so that an executor that cannot be reached is an error and not the relay's affair."""
    return SyncDispatcher(
        dispatcher.executor, dispatcher.ledger, dispatcher.registry, dispatcher.concurrency, publish=False
    )
