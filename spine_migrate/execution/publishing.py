"""From a run that is stored to its message: what the submitter does at once, and leaves to the relay where it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.executors.protocol import Executor
from spine_migrate.execution.ledgers.protocol import Delivery, Ledger
from spine_migrate.execution.marking import Handed, LaterMarks
from spine_migrate.execution.runs import RunRecord
from spine_migrate.execution.storable import as_text

_log = logging.getLogger(__name__)

#: Seconds that the relay leaves a run to its submitter, who is about to publish it.
PUBLISH_GRACE = 30.0
#: Seconds after which a published run that nobody claimed is published again.
CLAIM_WITHIN = 300.0
#: Publications in a row that fail before the rest of a batch is left for later: the broker is down, and every one of
#: them takes as long as its timeout.
PATIENCE = 3
#: Runs that are marked together.
_SLICE = 100
#: Seconds by which the relay leaves each of many runs longer to its submitter.
_EACH = 0.01


@dataclass
class Published:
    """How many runs were handed over, and those that could not be, with their errors; the rest was not tried."""

    runs: int = 0
    failed: list[tuple[RunRecord, BackendError]] = field(default_factory=list)


def publish_all(executor: Executor, runs: Sequence[RunRecord], mark: Callable[[list[Handed]], object]) -> Published:
    """Until the executor cannot be reached ``PATIENCE`` times in a row; whatever else it raises is about one run, and
    no reason to leave the others. ``mark`` is given runs with their references, a slice at a time, before others may
    think that nobody has published them.
    """
    outcome, in_a_row = Published(), 0
    for first in range(0, len(runs), _SLICE):
        handed: list[Handed] = []
        try:
            for run in runs[first : first + _SLICE]:
                try:
                    handed.append((run, executor.submit(run)))
                    in_a_row = 0
                except BackendError as error:
                    outcome.failed.append((run, error))
                    in_a_row += 1
                    if in_a_row == PATIENCE:
                        return outcome
                except Exception as error:  # noqa: BLE001 - a message that cannot be made, for one
                    outcome.failed.append((run, _unpublishable(run, error)))
        finally:
            outcome.runs += len(handed)
            if handed:
                mark(handed)
    return outcome


def _unpublishable(run: RunRecord, error: Exception) -> BackendError:
    """Its text may hold a value of the call."""
    _log.debug("The run %s cannot be published.", run.run_id, exc_info=error)
    return BackendError(f"The run {run.run_id} cannot be published: the executor raised {type(error).__qualname__}.")


class Publishing:
    """``at_once`` False leaves everything to the relay; ``mark_later`` lets nobody wait for the mark of one run."""

    def __init__(self, executor: Executor, ledger: Ledger, *, at_once: bool, mark_later: bool) -> None:
        self._executor = executor
        self._ledger = ledger
        self.at_once = at_once
        self._later = LaterMarks(self._mark) if mark_later else None

    def delivering(self, delivery: Delivery, connection: Any, runs: int = 1) -> tuple[bool, Delivery]:
        """Whether so many runs are published as soon as they are stored; the relay leaves them alone for a while then.
        Those of the caller's transaction are not: it is not committed yet.
        """
        if not self.at_once or connection is not None or delivery.due_at is not None:
            return False, delivery
        return True, replace(delivery, publish_in_seconds=PUBLISH_GRACE + _EACH * (runs - 1))

    def publish(self, run: RunRecord) -> None:
        """Hand a run to the executor. Raises BackendError; the relay tries again then."""
        reference = self._executor.submit(run)
        self._ledger.mark_queued(
            run.run_id, reference, self._executor.name, claim_within_seconds=CLAIM_WITHIN, attempt=run.attempt
        )

    def publish_or_leave(self, run: RunRecord) -> bool:
        """Whether it is published. It is stored, so that an error would only make its submitter submit it again."""
        try:
            if self._later is None:
                self.publish(run)
            else:
                self._later.add(run, self._executor.submit(run))
        except BackendError as error:
            self.alert(run.run_id, "publishing", error)
            return False
        except Exception as error:  # noqa: BLE001 - as in publish_all
            self.alert(run.run_id, "publishing", _unpublishable(run, error))
            return False
        return True

    def publish_many(self, runs: Sequence[RunRecord]) -> None:
        """What cannot be published is left to the relay."""
        for run, error in publish_all(self._executor, runs, self._mark).failed:
            self.alert(run.run_id, "publishing", error)

    def _mark(self, handed: list[Handed]) -> None:
        try:
            self._ledger.mark_many_queued(handed, self._executor.name, claim_within_seconds=CLAIM_WITHIN)
        except BackendError as error:
            # They are stored and published; an error would only make their submitter submit them again.
            _log.warning("%d published runs are not marked: %s", len(handed), error)

    def alert(self, run_id: str, doing: str, error: BackendError) -> None:
        try:
            self._ledger.record(RunEvent(run_id, EventType.ALERT_TRIGGERED, {doing: as_text(str(error))}))
        except BackendError as unrecorded:
            _log.warning("Run %s: %s failed (%s), and was not recorded: %s", run_id, doing, error, unrecorded)
