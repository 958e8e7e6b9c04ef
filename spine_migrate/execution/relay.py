"""The relay: what brings a run to a worker when its submitter, the broker or a worker was lost on the way.

Three rules, each about another kind of loss (they are not one query, and none stands in for another):

- a run that was committed and never published is published;
- a run that was published and never claimed is published again, each time after a longer while, unless a worker that
  does not claim has executed it meanwhile: then it is marked (see ``unclaimed``);
- a run whose worker let its lease run out is cancelled where that was asked for, else tried again, else a dead letter.

Publishing twice is harmless, a run is claimed once. So several relays may work at the same time; the ledger gives each
run to one of them (SKIP LOCKED).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from spine_migrate.execution.backoff import delay
from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.executors.protocol import Executor
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.publishing import CLAIM_WITHIN, PUBLISH_GRACE, publish_all
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.unclaimed import mark_ended

#: Seconds. How long the relay waits at most when the ledger or the broker is down.
LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Pass:
    """What one pass came to, in runs. ``failed`` could not be published, for the last time because of ``error``;
    ``ended_elsewhere`` were executed by a worker that does not claim; ``more`` says that a batch was full, so that
    there may be more to do at once.
    """

    published: int = 0
    published_again: int = 0
    cancelled: int = 0
    tried_again: int = 0
    dead_lettered: int = 0
    failed: int = 0
    ended_elsewhere: int = 0
    error: str | None = None
    more: bool = False

    @property
    def idle(self) -> bool:
        return self == Pass()

    @property
    def counts(self) -> dict[str, int]:
        """By name, in the order above."""
        return {name: getattr(self, name) for name in _COUNTS}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __add__(self, other: Pass) -> Pass:
        """Both together; what is left is what the later one left."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        return Pass(**counts, error=other.error or self.error, more=other.more)


_COUNTS = (
    "published", "published_again", "cancelled", "tried_again", "dead_lettered", "failed", "ended_elsewhere",
)  # fmt: skip


class Relay:
    """``publish_again_seconds`` after a publication failed, ``claim_within_seconds`` after one that nobody has claimed,
    it is made again; both double from one time to the next, 64-fold at most. A run whose worker was lost is tried
    again ``backoff_seconds`` after that was noticed.
    """

    def __init__(
        self,
        ledger: Ledger,
        executor: Executor,
        *,
        batch: int = 100,
        publish_again_seconds: float = PUBLISH_GRACE,
        claim_within_seconds: float = CLAIM_WITHIN,
        backoff_seconds: float = 10.0,
    ) -> None:
        self._ledger = ledger
        self._executor = executor
        self._batch = batch
        self._publish_again = publish_again_seconds
        self._claim_within = claim_within_seconds
        self._backoff = backoff_seconds

    def run_once(self) -> Pass:
        """Each rule once, one batch at most. Raises BackendError where the ledger cannot be reached; the broker's
        failures are in the outcome.
        """
        reaped = self._ledger.reap(self._batch, backoff_seconds=self._backoff)
        new = self._ledger.publishable(self._batch, again_in_seconds=self._publish_again)
        first = publish_all(self._executor, new, self._mark)
        # Where something cannot be published, what is taken here would only be put off.
        late = [] if first.failed else self._ledger.unclaimed(self._batch, again_in_seconds=self._claim_within)
        old = mark_ended(self._ledger, self._executor, late)
        # Not marked once more, which would begin their pauses anew: ``unclaimed`` has made the next one longer.
        again = publish_all(self._executor, old, lambda _: None)
        statuses = [run.status for run in reaped]
        failed = [*first.failed, *again.failed]
        return Pass(
            published=first.runs,
            published_again=again.runs,
            cancelled=statuses.count(RunStatus.CANCELLED),
            tried_again=statuses.count(RunStatus.PENDING),
            dead_lettered=statuses.count(RunStatus.DEAD_LETTERED),
            failed=len(failed),
            ended_elsewhere=len(late) - len(old),
            error=str(failed[-1][1]) if failed else None,
            more=any(
                len(taken) == self._batch and not left
                for taken, left in ((reaped, []), (new, first.failed), (late, again.failed))
            ),
        )

    def drain(self) -> Pass:
        """Passes until nothing more is to be done at this moment. Raises as ``run_once``."""
        done = self.run_once()
        while done.more and done.error is None:
            done += self.run_once()
        return done

    def run(
        self,
        stop: threading.Event,
        *,
        poll_seconds: float = 1.0,
        tell: Callable[[Pass], None] = lambda _: None,
        chance: random.Random | None = None,
    ) -> None:
        """Pass after pass until ``stop`` is set, ``poll_seconds`` apart where there is nothing more to do.

        Outlives the ledger and the broker: a pass that failed is followed by a longer pause each time, at most
        ``LONGEST_PAUSE``. ``tell`` is given every pass; one in which the ledger was lost has its ``error``.
        """
        failures = 0
        while not stop.is_set():
            try:
                done = self.run_once()
            except BackendError as error:
                done = Pass(error=str(error))
            failures = 0 if done.error is None else failures + 1
            tell(done)
            if failures:
                stop.wait(delay(poll_seconds, failures + 1, longest=LONGEST_PAUSE, chance=chance))
            elif not done.more:
                stop.wait(poll_seconds)

    def _mark(self, handed: list[tuple[RunRecord, str]]) -> None:
        self._ledger.mark_many_queued(handed, self._executor.name, claim_within_seconds=self._claim_within)
