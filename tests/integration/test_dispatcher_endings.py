"""The dispatcher, on both ledgers: runs that are cancelled, tried again, and reported about."""

from __future__ import annotations

from secrets import token_hex
from uuid import uuid4

import pytest

from spine_migrate.execution import (
    BackendError,
    EventType,
    ExecutionNotFoundError,
    InvalidSpecError,
    RunStatus,
    SyncDispatcher,
    TransitionError,
)
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.relay import Relay
from tests.carrier import Carrier, ended, found, types


def test_cancel_a_run_that_waits(carrier: Carrier, ledger: Ledger) -> None:
    """Pending or queued, it is over at once; the executor is told by the reference it gave."""
    left = SyncDispatcher(carrier, ledger, publish=False)
    dispatcher = SyncDispatcher(carrier, ledger)
    pending, queued = left.submit("x", {}), dispatcher.submit("x", {})
    for run_id in (pending, queued):
        assert dispatcher.cancel(run_id, "no\0t wanted")
        assert found(dispatcher, run_id).status is RunStatus.CANCELLED
        assert dispatcher.get_events(run_id)[-1].data == {"reason": r"no\x00t wanted"}
        with pytest.raises(TransitionError):
            ledger.claim(run_id, "late", lease_seconds=60)
    assert carrier.cancelled == [pending, f"ref-{queued}"]


def test_cancel_a_run_that_is_executed_under_a_lease(dispatcher: SyncDispatcher, ledger: Ledger) -> None:
    run_id = dispatcher.submit("x", {})
    claim = ledger.claim(run_id, "worker", lease_seconds=60)
    assert dispatcher.cancel(run_id)
    assert found(dispatcher, run_id).status is RunStatus.RUNNING
    assert ledger.renew(run_id, claim.fence, lease_seconds=60)
    assert ledger.cancel(run_id, "stopped", fence=claim.fence).status is RunStatus.CANCELLED


def test_cancel_a_run_that_is_executed_elsewhere(dispatcher: SyncDispatcher) -> None:
    """Without a lease nobody would ever ask whether it is to stop."""
    run_id = dispatcher.submit("x", {})
    dispatcher.mark_started(run_id)
    assert dispatcher.cancel(run_id)
    assert found(dispatcher, run_id).status is RunStatus.CANCELLED
    with pytest.raises(TransitionError):
        dispatcher.mark_completed(run_id, 1)


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "dead_lettered"])
def test_cancel_a_run_that_has_ended(dispatcher: SyncDispatcher, carrier: Carrier, end: str) -> None:
    run_id = ended(dispatcher, end)
    before = types(dispatcher, run_id)
    told = len(carrier.cancelled)
    assert not dispatcher.cancel(run_id)
    assert found(dispatcher, run_id).status == end
    assert types(dispatcher, run_id) == before
    assert len(carrier.cancelled) == told


def test_cancel_where_the_executor_does_not_answer(dispatcher: SyncDispatcher, carrier: Carrier) -> None:
    """The ledger's word is the one that counts."""
    run_id = dispatcher.submit("x", {})
    carrier.fault = BackendError("The broker does not answer.")
    assert dispatcher.cancel(run_id)
    assert found(dispatcher, run_id).status is RunStatus.CANCELLED
    assert dispatcher.get_events(run_id)[-1].data == {"cancelling": "The broker does not answer."}


@pytest.mark.parametrize("end", ["failed", "cancelled", "dead_lettered"])
def test_retry_is_a_new_run_that_names_the_old_one(dispatcher: SyncDispatcher, carrier: Carrier, end: str) -> None:
    key = token_hex(8)
    first = ended(
        dispatcher, end, idempotency_key=key, tags={"a": 1}, lane="ingest", correlation_id="c", timeout_seconds=9
    )
    second = dispatcher.retry(first)
    run = found(dispatcher, second)
    assert second != first
    assert run.timeout_seconds == 9
    assert (run.retry_of_run_id, run.attempt, run.status) == (first, 2, RunStatus.QUEUED)
    assert (run.spec.params, run.spec.lane, run.spec.correlation_id, run.tags) == ({"n": 1}, "ingest", "c", {"a": 1})
    assert run.spec.idempotency_key is None
    assert second in carrier.taken
    assert found(dispatcher, first).status == end
    assert dispatcher.get_events(first)[-1].data == {"run_id": second}
    assert types(dispatcher, first)[-1] == EventType.RETRIED
    assert dispatcher.submit("x", {}, idempotency_key=key) == first


@pytest.mark.parametrize("end", ["queued", "completed"])
def test_what_has_not_failed_is_not_retried_and_that_is_recorded(dispatcher: SyncDispatcher, end: str) -> None:
    run_id = dispatcher.submit("x", {}) if end == "queued" else ended(dispatcher, end)
    with pytest.raises(TransitionError) as caught:
        dispatcher.retry(run_id)
    assert (caught.value.status, caught.value.wanted) == (end, "retried")
    refused = dispatcher.get_events(run_id)[-1]
    assert refused.event_type == EventType.TRANSITION_REFUSED
    assert refused.data["wanted"] == "retried"


def test_reprocess_brings_back_the_same_run(dispatcher: SyncDispatcher, carrier: Carrier) -> None:
    run_id = ended(dispatcher, "dead_lettered")
    dispatcher.reprocess(run_id)
    run = found(dispatcher, run_id)
    assert (run.status, run.attempt) == (RunStatus.QUEUED, 2)
    assert carrier.taken.count(run_id) == 2
    assert types(dispatcher, run_id)[-2:] == ["reprocessed", "queued"]
    with pytest.raises(TransitionError):
        dispatcher.reprocess(run_id)


def test_reprocess_where_the_executor_fails(dispatcher: SyncDispatcher, carrier: Carrier) -> None:
    run_id = ended(dispatcher, "dead_lettered")
    carrier.fault = BackendError("The broker does not answer.")
    dispatcher.reprocess(run_id)
    assert found(dispatcher, run_id).status is RunStatus.PENDING
    carrier.fault = None
    Relay(dispatcher.ledger, carrier).run_once()
    assert carrier.taken.count(run_id) == 2


def test_work_that_is_done_elsewhere_and_reported(dispatcher: SyncDispatcher) -> None:
    run_id = dispatcher.submit("x", {})
    dispatcher.mark_started(run_id, "batch-17")
    run = found(dispatcher, run_id)
    assert (run.status, run.external_ref, run.executor_name) == (RunStatus.RUNNING, "batch-17", "carrier")
    dispatcher.record_progress(run_id, 0.5, "ha\0lf")
    dispatcher.record_heartbeat(run_id)
    dispatcher.mark_completed(run_id, {"rows": (1, 2)})
    assert found(dispatcher, run_id).result == {"rows": [1, 2]}
    assert types(dispatcher, run_id) == ["created", "queued", "started", "progress", "heartbeat", "completed"]
    assert dispatcher.get_events(run_id)[3].data == {"progress": 0.5, "message": r"ha\x00lf"}
    with pytest.raises(TransitionError):
        dispatcher.mark_started(run_id)
    with pytest.raises(TransitionError):
        dispatcher.mark_failed(run_id, "late")


def test_a_reported_failure_fits_its_columns(dispatcher: SyncDispatcher) -> None:
    run_id = dispatcher.submit("x", {})
    dispatcher.mark_started(run_id)
    with pytest.raises(InvalidSpecError, match="The result cannot be written as JSON"):
        dispatcher.mark_completed(run_id, {1, 2})
    dispatcher.mark_failed(run_id, "a\0b", "E" * 200)
    run = found(dispatcher, run_id)
    assert (run.status, run.error, run.error_type) == (RunStatus.FAILED, r"a\x00b", "E" * 100)


@pytest.mark.parametrize("progress", [float("nan"), float("inf")])
def test_progress_is_a_finite_number(dispatcher: SyncDispatcher, progress: float) -> None:
    with pytest.raises(ValueError, match="Progress is a finite number"):
        dispatcher.record_progress(dispatcher.submit("x", {}), progress)


@pytest.mark.parametrize("unknown", [str(uuid4()), "nobody"], ids=["uuid", "text"])
@pytest.mark.parametrize(
    "method", ["cancel", "retry", "reprocess", "get_events", "mark_started", "mark_completed", "record_heartbeat"]
)
def test_a_run_that_is_not_there(dispatcher: SyncDispatcher, method: str, unknown: str) -> None:
    with pytest.raises(ExecutionNotFoundError, match=f"There is no run {unknown}"):
        getattr(dispatcher, method)(unknown)
    assert dispatcher.get_run(unknown) is None
