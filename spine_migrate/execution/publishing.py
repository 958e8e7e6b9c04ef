"""From a run that is stored to its message: what the submitter does at once, and leaves to the relay where it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.executors.protocol import Executor
from spine_migrate.execution.ledgers.protocol import Delivery, Ledger
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


@dataclass(frozen=True)
class Published:
    """Runs with their references, and those that failed with their errors; the rest was not tried."""

    published: list[tuple[RunRecord, str]]
    failed: list[tuple[RunRecord, BackendError]]


def publish_all(executor: Executor, runs: Iterable[RunRecord]) -> Published:
    """Until the executor cannot be reached ``PATIENCE`` times in a row. Nothing is marked."""
    outcome, in_a_row = Published([], []), 0
    for run in runs:
        try:
            outcome.published.append((run, executor.submit(run)))
            in_a_row = 0
        except BackendError as error:
            outcome.failed.append((run, error))
            in_a_row += 1
            if in_a_row == PATIENCE:
                break
    return outcome


class Publishing:
    """``at_once`` False leaves everything to the relay."""

    def __init__(self, executor: Executor, ledger: Ledger, *, at_once: bool) -> None:
        self._executor = executor
        self._ledger = ledger
        self.at_once = at_once

    def delivering(self, delivery: Delivery, connection: Any) -> tuple[bool, Delivery]:
        """Whether a run is published as soon as it is stored; the relay leaves it alone for a while then. One of the
        caller's transaction is not: it is not committed yet.
        """
        if not self.at_once or connection is not None or delivery.due_at is not None:
            return False, delivery
        return True, replace(delivery, publish_in_seconds=PUBLISH_GRACE)

    def publish(self, run: RunRecord) -> None:
        """Hand a run to the executor. Raises BackendError; the relay tries again then."""
        reference = self._executor.submit(run)
        self._ledger.mark_queued(
            run.run_id, reference, self._executor.name, claim_within_seconds=CLAIM_WITHIN, attempt=run.attempt
        )

    def publish_or_leave(self, run: RunRecord) -> bool:
        """Whether it is published. It is stored, so that an error would only make its submitter submit it again."""
        try:
            self.publish(run)
        except BackendError as error:
            self.alert(run.run_id, "publishing", error)
            return False
        return True

    def publish_many(self, runs: Sequence[RunRecord]) -> None:
        """What cannot be published is left to the relay."""
        outcome = publish_all(self._executor, runs)
        try:
            self._ledger.mark_many_queued(outcome.published, self._executor.name, claim_within_seconds=CLAIM_WITHIN)
        except BackendError as unmarked:
            # They are stored and published; an error would only make their submitter submit them again.
            _log.warning("%d published runs are not marked: %s", len(outcome.published), unmarked)
        for run, error in outcome.failed:
            self.alert(run.run_id, "publishing", error)

    def alert(self, run_id: str, doing: str, error: BackendError) -> None:
        try:
            self._ledger.record(RunEvent(run_id, EventType.ALERT_TRIGGERED, {doing: as_text(str(error))}))
        except BackendError as unrecorded:
            _log.warning("Run %s: %s failed (%s), and was not recorded: %s", run_id, doing, error, unrecorded)
