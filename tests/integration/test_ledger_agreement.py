"""The ledgers agree on every sequence of operations: results, refusals, statuses, attempts, retries left, events.

Times are multiples of a minute, and time goes by in minutes and one second: no two moments that the ledgers compare
are so close that the time the test itself takes could make a difference, which on a busy machine is seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid5

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg_pool import ConnectionPool

from spine_migrate.execution import OrchestrationError, RunEvent, RunRecord, RunSummary, WorkSpec
from spine_migrate.execution.ledgers.protocol import Claim, Delivery
from tests.ledgers import Timed, emptied, in_memory, in_postgres

FULL = bool(os.environ.get("SPINE_CHAOS_FULL"))
SETTINGS = settings(
    max_examples=1500 if FULL else 60,
    stateful_step_count=50 if FULL else 30,
    deadline=None,
    derandomize=not FULL,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)

UNKNOWN = "12345678-1234-5678-1234-567812345678"
_NAMESPACE = UUID(UNKNOWN)
#: A claim's fence in each ledger; they need not be the same number.
Fences = tuple[int, int]


def rarely(*others: st.SearchStrategy[str]) -> st.SearchStrategy[str | None]:
    """None most of the time: a run that is refused is one less to go on with."""
    return st.one_of(*[st.none()] * 8, *others)


minutes = st.sampled_from([0, 60, 120])
MOST = 4
limits = st.sampled_from([1, 2, 10])


def told(value: Any) -> Any:
    """What of a result does not depend on the ledger's clock or on its numbers."""
    if isinstance(value, (list, tuple)):
        return [told(item) for item in value]
    if isinstance(value, Claim):
        return told(value.run), value.retries_left
    if isinstance(value, (RunRecord, RunSummary)):
        facts = value.to_dict()
        facts.pop("duration_seconds", None)
        if isinstance(value, RunRecord):
            facts |= {"timeout": value.timeout_seconds, "message": value.message}
        return {name: fact is not None if name.endswith("_at") else fact for name, fact in facts.items()}
    if isinstance(value, RunEvent):
        return value.run_id, str(value.event_type), value.data, value.source
    return value


class Agreement(RuleBasedStateMachine):
    runs = Bundle("runs")
    fences = Bundle("fences")

    pool: ClassVar[ConnectionPool[Any]]

    def __init__(self) -> None:
        super().__init__()
        emptied(self.pool)
        self.both = (in_memory(), in_postgres(self.pool))
        self.made = 0
        self.bound = 0

    def agree(self, act: Callable[[Timed, int], Any]) -> tuple[Any, Any]:
        """The results of both, or what both raised."""
        results: list[Any] = []
        for number, timed in enumerate(self.both):
            try:
                results.append(act(timed, number))
            except OrchestrationError as error:
                results.append(error)
        first, second = (
            (type(one), str(one), vars(one)) if isinstance(one, OrchestrationError) else told(one) for one in results
        )
        assert first == second
        return results[0], results[1]

    # Few runs, to each of which much happens.
    @precondition(lambda self: self.made < MOST)
    @rule(
        target=runs,
        key=st.sampled_from([None, None, "a", "b"]),
        entity=st.sampled_from([None, None, "1", "2"]),
        lane=st.sampled_from(["default", "bulk"]),
        bound=st.sampled_from([None, None, None, None, 1, 3]),
        due=st.sampled_from([None, None, None, 60]),
        expires=st.sampled_from([None, None, None, 120]),
        grace=st.sampled_from([0, 300]),
        retries=st.integers(0, 2),
        parent=rarely(st.just(UNKNOWN), runs),
        retried=rarely(st.just(UNKNOWN), runs),
    )
    def create(
        self,
        *,
        key: str | None,
        entity: str | None,
        lane: str,
        bound: int | None,
        due: int | None,
        expires: int | None,
        grace: int,
        retries: int,
        parent: str | None,
        retried: str | None,
    ) -> MultipleResults[str]:
        self.made += 1
        run_id = str(uuid5(_NAMESPACE, str(self.made)))
        metadata = {} if entity is None else {"entity_type": "feed", "entity_id": entity}
        spec = WorkSpec("task", f"work {self.made}", idempotency_key=key, lane=lane, parent_run_id=parent)
        spec.metadata, spec.max_retries = metadata, retries

        def act(timed: Timed, _: int) -> RunRecord:
            now = timed.now()
            delivery = Delivery(
                due_at=None if due is None else now + timedelta(seconds=due),
                expires_at=None if expires is None else now + timedelta(seconds=expires),
                publish_in_seconds=grace,
                timeout_seconds=None if due is None else 30,
                message=None if grace else {"run": self.made},
            )
            run = RunRecord(spec, run_id=run_id, retry_of_run_id=retried)
            return timed.ledger.create(run, delivery, lane_bound=bound)

        stored, _ = self.agree(act)
        return multiple(stored.run_id) if isinstance(stored, RunRecord) else multiple()

    @rule(target=fences, run_id=runs, lease=st.sampled_from([None, 60, 600]))
    def claim(self, run_id: str, lease: float | None) -> MultipleResults[Fences]:
        first, second = self.agree(lambda timed, _: timed.ledger.claim(run_id, "w", lease_seconds=lease))
        return multiple((first.fence, second.fence)) if isinstance(first, Claim) else multiple()

    @rule(run_id=runs, within=minutes)
    def mark_queued(self, run_id: str, within: float) -> None:
        self.agree(lambda timed, _: timed.ledger.mark_queued(run_id, "ref", "e", claim_within_seconds=within))

    @rule(run_id=runs, fences=fences, lease=st.sampled_from([60, 600]))
    def renew(self, run_id: str, fences: Fences, lease: float) -> None:
        self.agree(lambda timed, n: timed.ledger.renew(run_id, fences[n], lease_seconds=lease))

    @rule(run_id=runs, fences=st.none() | fences)
    def complete(self, run_id: str, fences: Fences | None) -> None:
        self.agree(lambda timed, n: timed.ledger.complete(run_id, {"n": 1}, fence=fences and fences[n]))

    @rule(run_id=runs, fences=st.none() | fences, dead=st.booleans())
    def fail(self, run_id: str, fences: Fences | None, *, dead: bool) -> None:
        self.agree(lambda timed, n: timed.ledger.fail(run_id, "no", "E", dead=dead, fence=fences and fences[n]))

    @rule(run_id=runs, fences=st.none() | fences, pause=minutes)
    def try_again(self, run_id: str, fences: Fences | None, pause: float) -> None:
        self.agree(
            lambda timed, n: timed.ledger.try_again(run_id, "again", None, in_seconds=pause, fence=fences and fences[n])
        )

    @rule(run_id=runs, fences=fences, pause=minutes)
    def postpone(self, run_id: str, fences: Fences, pause: float) -> None:
        self.agree(lambda timed, n: timed.ledger.postpone(run_id, "busy", in_seconds=pause, fence=fences[n]))

    @rule(run_id=runs, fences=st.none() | fences)
    def cancel(self, run_id: str, fences: Fences | None) -> None:
        self.agree(lambda timed, n: timed.ledger.cancel(run_id, "not wanted", fence=fences and fences[n]))

    @rule(run_id=runs)
    def reprocess(self, run_id: str) -> None:
        self.agree(lambda timed, _: timed.ledger.reprocess(run_id))

    @rule(run_id=runs)
    def record(self, run_id: str) -> None:
        event = RunEvent(run_id, "progress", {"percent": 50})
        self.agree(lambda timed, _: timed.ledger.record(event))

    @rule(limit=limits)
    def publishable(self, limit: int) -> None:
        self.agree(lambda timed, _: timed.ledger.publishable(limit, again_in_seconds=60))

    @rule(limit=limits)
    def unclaimed(self, limit: int) -> None:
        self.agree(lambda timed, _: timed.ledger.unclaimed(limit, again_in_seconds=60))

    @rule(limit=limits, pause=minutes)
    def reap(self, limit: int, pause: float) -> None:
        self.agree(lambda timed, _: timed.ledger.reap(limit, backoff_seconds=pause))

    @rule(by=st.sampled_from([0, 1, 2, 10]))
    def time_goes_by(self, by: int) -> None:
        self._forward(60 * by + 1)

    def _forward(self, seconds: float) -> None:
        for timed in self.both:
            timed.forward(seconds)

    def _one_more(self, lane: str) -> Callable[[Timed, int], RunRecord]:
        self.made += 1
        run = RunRecord(WorkSpec("task", "last", lane=lane), run_id=str(uuid5(_NAMESPACE, str(self.made))))
        return lambda timed, _: timed.ledger.create(run, lane_bound=self.bound)

    @invariant()
    def lists_agree(self) -> None:
        self.agree(lambda timed, _: timed.ledger.list_runs(limit=1000))

    def teardown(self) -> None:
        """What shows only later: who waits, pauses, leases, retries left."""
        for lane in ("default", "bulk"):
            while isinstance(self.agree(self._one_more(lane))[0], OrchestrationError):
                self.bound += 1
        self._forward(10_000)
        for pause in (0, 60, 120, 240):
            self._forward(pause + 1)
            self.publishable(100)
            self.unclaimed(100)
        self.reap(100, 0)
        run_ids = [run.run_id for run in self.both[0].ledger.list_runs(limit=1000)]
        for run_id in run_ids:
            self.reprocess(run_id)
            self.claim(run_id, 60)
        self.agree(lambda timed, _: timed.ledger.get_many(run_ids))
        self.agree(lambda timed, _: [timed.ledger.events(run_id) for run_id in run_ids])


def test_memory_and_postgres_agree(ledger_pool: ConnectionPool[Any]) -> None:
    class OnThePool(Agreement):
        pool = ledger_pool

    run_state_machine_as_test(OnThePool, settings=SETTINGS)
