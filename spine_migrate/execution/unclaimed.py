"""Runs that were published and that no worker has claimed, before they are published again.

The message of a run that stands for an old task (``Delivery.message``) can be executed by a worker that knows nothing
of runs: one of the version before, that came back after the deploy. It claims nothing, but its result is stored where
the executor can see it. Such a run is marked with that result in place of being executed a second time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.executors.protocol import Executor, KnowsOutcomes, Outcome
from spine_migrate.execution.jsonable import plain_or_none
from spine_migrate.execution.ledgers.protocol import Ending, Ledger
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.storable import describe

_log = logging.getLogger(__name__)

#: By whom such a run was started, as far as its history knows.
WORKER = "one that does not claim"


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
        except Exception as error:  # noqa: BLE001 - a result that cannot be read here, for one; the others go on
            _log.warning(
                "The run %s is published again: what became of its task cannot be read (%s).",
                run.run_id,
                type(error).__qualname__,
            )
            found = None
        if found is None or not _belongs_to(run, found) or not _marked(ledger, run, found):
            left.append(run)
    return left


def _belongs_to(run: RunRecord, found: Outcome) -> bool:
    """Not what came of something else under the same id: an attempt before, or a call before this one."""
    return run.started_at is None and found.at > run.created_at


def _marked(ledger: Ledger, run: RunRecord, found: Outcome) -> bool:
    """False where somebody else was faster, whose it is now, or it has expired, which a worker is to find."""
    why = f"the task ended at {found.at.isoformat()}, executed by a worker that did not claim its run"
    return ledger.end_unclaimed(run, _ending(found), worker=WORKER, why=why)


def _ending(found: Outcome) -> Ending:
    if found.status is RunStatus.COMPLETED:
        return Ending(found.status, plain_or_none(found.result))
    if found.status is RunStatus.CANCELLED:
        return Ending(found.status, error="revoked")
    error = found.result if isinstance(found.result, Exception) else RuntimeError(str(found.result))
    return Ending(RunStatus.FAILED, None, *describe(error))
