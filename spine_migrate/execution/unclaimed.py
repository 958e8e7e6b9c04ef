"""Runs that were published and that no worker has claimed, before they are published again.

The message of a run that stands for an old task (``Delivery.message``) can be executed by a worker that knows nothing
of runs: one of the version before, that came back after the deploy. It claims nothing, but its result is stored where
the executor can see it. Such a run is marked with that result in place of being executed a second time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from spine_migrate.execution.errors import BackendError, ExecutionNotFoundError, TransitionError
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.executors.protocol import Executor, KnowsOutcomes, Outcome
from spine_migrate.execution.jsonable import plain_or_none
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.storable import describe

_log = logging.getLogger(__name__)

#: Who claims such a run, for the moment that the mark takes.
WORKER = "one that does not claim"
_LEASE_SECONDS = 60.0


def mark_ended(ledger: Ledger, executor: Executor, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Those that did not end elsewhere; the others are marked. Where the executor cannot be asked, all that are left:
    a run is claimed once, and nothing may wait for its result backend. Raises BackendError where the ledger is away.
    """
    if not isinstance(executor, KnowsOutcomes):
        return list(runs)
    left: list[RunRecord] = []
    for number, run in enumerate(runs):
        try:
            found = executor.outcome(run)
        except BackendError as error:
            _log.warning("Runs are published again without a look at what became of their tasks: %s", error)
            return [*left, *runs[number:]]
        if found is None or not _belongs_to(run, found):
            left.append(run)
        else:
            _mark(ledger, run, found)
    return left


def _belongs_to(run: RunRecord, found: Outcome) -> bool:
    """Not what came of something else under the same id: an attempt before, or a call before this one."""
    return run.started_at is None and found.at > run.created_at


def _mark(ledger: Ledger, run: RunRecord, found: Outcome) -> None:
    try:
        claim = ledger.claim(run.run_id, WORKER, lease_seconds=_LEASE_SECONDS, attempt=run.attempt)
        why = f"the task ended at {found.at.isoformat()}, executed by a worker that did not claim its run"
        ledger.record(RunEvent(run.run_id, EventType.ALERT_TRIGGERED, {"executing": why}))
        if found.status is RunStatus.COMPLETED:
            ledger.complete(run.run_id, plain_or_none(found.result), fence=claim.fence)
        elif found.status is RunStatus.CANCELLED:
            ledger.cancel(run.run_id, "revoked", fence=claim.fence)
        else:
            error = found.result if isinstance(found.result, Exception) else RuntimeError(str(found.result))
            ledger.fail(run.run_id, *describe(error), fence=claim.fence)
    except (TransitionError, ExecutionNotFoundError):
        # Somebody else was faster, whose it is now.
        return
