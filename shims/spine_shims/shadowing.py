"""The mode ``shadow``: the old body's result counts, and the handler is executed beside it, to be compared.

It is executed when Celery is done with the task, in the same process, so that whoever waits for the old result does not
wait for it; it is a run of its own, that names the task in ``shadow_of``. What came of it is an event
``shadow_compared`` of that run, with ``equal``, and the JSON paths that differ; values are in neither. Nothing that
goes wrong with it reaches the task.

Not compared are attempts that end in a retry, and what a body changes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery.exceptions import Ignore, Reject, Retry

from spine_migrate.execution.errors import InvalidSpecError, OrchestrationError
from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.jsonable import plain
from spine_migrate.execution.ledgers.protocol import Delivery
from spine_migrate.execution.publishing import PUBLISH_GRACE
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.worker import Worker
from spine_shims.configuration import configuration

if TYPE_CHECKING:
    from spine_shims.task import RerouteTask

_log = logging.getLogger(__name__)

#: Paths that are told of one comparison.
_MOST = 20


@dataclass(frozen=True)
class Outcome:
    """``error`` is the type's name; a ``result`` that is no JSON is None, and ``known`` False."""

    result: Any = None
    error: str | None = None
    known: bool = True

    @classmethod
    def of(cls, result: Any, error: Exception | None) -> Outcome:
        if error is not None:
            return cls(error=type(error).__qualname__)
        try:
            return cls(plain(result))
        except ValueError:
            return cls(known=False)


class Shadow:
    """What the old body was called with, and what came of it."""

    def __init__(self, task: RerouteTask, task_id: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._task = task
        self._task_id = task_id
        self._args = args
        self._kwargs = kwargs
        self._old: Outcome | None = None

    def watch(self, body: Any) -> Any:
        """The result of the old body, whatever that is."""
        try:
            result = body()
        except (Retry, Ignore, Reject):
            raise
        except Exception as error:
            # Whatever a body raises is its outcome, which goes on to Celery as it is.
            self._old = Outcome.of(None, error)
            raise
        self._old = Outcome.of(result, None)
        return result

    def compare(self) -> None:
        if self._old is None:
            return
        try:
            self._compare(configuration().worker(self._task.app), self._old)
        except OrchestrationError as error:
            _log.warning("The shadow of %s was not compared: %s", self._task.name, error)
        except Exception as error:  # noqa: BLE001 - a route's function, for one: the task has its result, and must not fail
            # Its message may hold a value of the call.
            _log.warning("The shadow of %s was not compared: %s", self._task.name, type(error).__name__)
            _log.debug("The shadow of %s", self._task.name, exc_info=True)

    def _compare(self, worker: Worker, old: Outcome) -> None:
        spec = self._task.run_spec(
            self._args,
            self._kwargs,
            queue=None,
            urgency=None,
            trigger_source="shadow",
            max_retries=0,
            metadata={"celery_task": self._task.name, "shadow_of": self._task_id},
        )
        # Neither the key nor the entity of the task: it is not the work itself.
        spec.idempotency_key = None
        spec.metadata = {key: value for key, value in spec.metadata.items() if not key.startswith("entity_")}
        spec.params = self._task.shadow_params(spec.params)
        if not worker.registry.has(spec.kind, spec.name):
            raise InvalidSpecError("name", f"There is no {spec.kind} named {spec.name!r} to compare with.")
        expires_at = self._task.app.now() + timedelta(seconds=PUBLISH_GRACE)
        run = worker.ledger.create(
            RunRecord(spec, run_id=str(uuid4())), Delivery(expires_at=expires_at, publish_in_seconds=PUBLISH_GRACE)
        )
        attempt = worker.begin(run.run_id)
        if attempt is None:
            return
        with attempt:
            try:
                result = attempt.call()
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is its outcome
                new = Outcome.of(None, error)
                attempt.context.note(_event(run.run_id, old, new))
                attempt.fail(error, RunStatus.FAILED)
                return
            new = Outcome.of(result, None)
            attempt.context.note(_event(run.run_id, old, new))
            attempt.complete(new.result)


def _event(run_id: str, old: Outcome, new: Outcome) -> RunEvent:
    data: dict[str, Any] = {"equal": False}
    if not (old.known and new.known):
        data |= {"equal": None, "why": "a result is not JSON"}
    elif old.error or new.error:
        data |= {"equal": old.error == new.error, "old_error": old.error, "error": new.error}
    else:
        paths = list(_limited(differences(old.result, new.result)))
        data |= {"equal": not paths, "paths": paths}
    return RunEvent(run_id, "shadow_compared", data, source="spine_shims")


def _limited(paths: Iterator[str]) -> Iterator[str]:
    for _, path in zip(range(_MOST), paths, strict=False):
        yield path[:200]


def differences(old: Any, new: Any, path: str = "$") -> Iterator[str]:
    """The paths at which two JSON values differ, outermost first. ``1`` is ``1.0``, and ``true`` is not ``1``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key in old and key in new:
                yield from differences(old[key], new[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(old, list) and isinstance(new, list):
        for place, (left, right) in enumerate(zip(old, new, strict=False)):
            yield from differences(left, right, f"{path}[{place}]")
        if len(old) != len(new):
            yield f"{path}[{min(len(old), len(new))}]"
    elif isinstance(old, bool) is not isinstance(new, bool) or old != new:
        yield path
