"""Messages that cannot be looked at now, and runs whose parent is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, Task
from celery.app.task import Context
from celery.exceptions import Ignore, Reject
from kombu.exceptions import EncodeError, OperationalError

from spine_migrate.execution import RunRecord, task_spec
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_shims import beginning, reroute
from spine_shims.producing import with_known_parent

REQUEST = {"id": "one", "args": (), "kwargs": {}, "retries": 0, "delivery_info": {}}


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("beginning", broker="memory://", set_as_current=False) as made:
        yield made


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """What becomes of each time that a message is sent, the last one first."""
    outcomes: list[Exception | None] = []

    def send(*_: object, **__: object) -> None:
        error = outcomes.pop()
        if error is not None:
            raise error

    monkeypatch.setattr(Task, "apply_async", send)
    return outcomes


@pytest.mark.parametrize(
    ("message", "errors", "raised"),
    [
        (({}, False), [OperationalError(), OSError()], Ignore),
        (({}, True), [OperationalError()], Reject),
        (({"spine_run": str(uuid4())}, False), [OperationalError()], Reject),
        (({}, False), [EncodeError()], Reject),
    ],
    ids=["nowhere else", "goes back", "has a run", "never to be sent"],
)
def test_a_message_while_database_and_broker_are_away(
    app: Celery,
    sends: list[Exception | None],
    message: tuple[dict[str, Any], bool],
    errors: list[Exception],
    raised: type[Exception],
) -> None:
    """One that was acknowledged is held until it can be sent, where it is nowhere else; ``message`` has headers, and
    whether it is acknowledged late.
    """
    given, late = message
    task = reroute("work", app=app, name="beginning.work", acks_late=late)(_nothing)
    task.adopt_again_seconds = 0.0
    sends += [None, *errors]
    with pytest.raises(raised):
        beginning._later(task, Context({**REQUEST, **given}), "away")  # noqa: SLF001 - its callers need a worker
    assert sends == ([] if raised is Ignore else [None])


def test_a_run_whose_parent_is_gone_is_stored_without_it() -> None:
    ledger, gone = MemoryLedger(), str(uuid4())
    stored = with_known_parent(RunRecord(task_spec("work", parent_run_id=gone)), ledger.create)
    assert (stored.spec.parent_run_id, stored.spec.metadata) == (None, {"lost_parent": gone})
    child = with_known_parent(RunRecord(task_spec("work", parent_run_id=stored.run_id)), ledger.create)
    assert (child.spec.parent_run_id, child.spec.metadata) == (stored.run_id, {})


def _nothing() -> None:
    pass
