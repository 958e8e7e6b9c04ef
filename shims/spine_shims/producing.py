"""A call that is to be dispatched: stored as a run, whose message is the call's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from spine_migrate.execution.errors import InvalidSpecError
from spine_migrate.execution.invariants import LENGTHS
from spine_migrate.execution.ledgers.protocol import Delivery
from spine_migrate.execution.runs import RunRecord, run_uuid
from spine_shims.configuration import configuration
from spine_shims.executing import Execution
from spine_shims.message import Outgoing, outgoing, stored

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import AsyncResult

    from spine_shims.task import RerouteTask

#: The header of an old message that comes next to a run, and was sent while the database was away: the run's id.
PARENT_HEADER = "spine_parent"
#: Of task ids that are no uuids.
_NAMESPACE = uuid5(NAMESPACE_URL, "https://spine-migrate/shims/task-id")


def run_id_of(task_id: str) -> str:
    """The id of the run that a task of this id becomes first."""
    return run_uuid(task_id) or str(uuid5(_NAMESPACE, task_id))


def submit(
    task: RerouteTask,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    task_id: str,
    options: dict[str, Any],
    *,
    by: Execution | None,
    connection: Any = None,
) -> AsyncResult:
    """``by`` is the execution that the call comes from. With ``connection``, psycopg's, the run is part of the caller's
    transaction.

    Raises BackendError where the ledger is away, InvalidSpecError for what cannot be carried, and as the dispatcher.
    """
    made = outgoing(task, args, kwargs, task_id, _in_its_place(task, by, task_id, options))
    replaces = by is not None and by.task_id == task_id
    run = _run(task, made, by, replaces=replaces)
    delivery = Delivery(made.due_at, made.expires_at, message=stored(made.message))
    dispatcher = configuration().dispatcher(task.app)
    _expect_reply(task.app, made)

    def store(given: RunRecord) -> RunRecord:
        return dispatcher.submit_run(given, delivery, connection=connection)

    try:
        found = with_known_parent(run, store)
    except InvalidSpecError as error:
        if error.field != "run_id":
            raise
        if by is not None and by.ended and _is_the_same_call(dispatcher.get_run(run.run_id), by):
            return task.AsyncResult(task_id)
        # Whoever gives one id to two calls has them both executed.
        run = another(run, task_id)
        found = with_known_parent(run, store)
    return task.AsyncResult(task_id if found.run_id == run.run_id else _task_id_of(found))


def with_known_parent(run: RunRecord, store: Callable[[RunRecord], RunRecord]) -> RunRecord:
    """What ``store`` gives for the run; for the run without its parent, where there is none of that id any more: a
    database that has taken over may lack what the one before it had last, and a call is no less one for that.
    """
    try:
        return store(run)
    except InvalidSpecError as error:
        if error.field != "parent_run_id":
            raise
    spec = run.spec
    metadata = {**spec.metadata, "lost_parent": spec.parent_run_id}
    return store(replace(run, spec=replace(spec, parent_run_id=None, metadata=metadata)))


def correlation_of(root_id: str | None) -> str | None:
    """As the ledger has room for it."""
    return run_id_of(root_id) if root_id is not None and len(root_id) > LENGTHS["correlation_id"] else root_id


def sent_after(by: Execution | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options of an old message that is sent in place of a run. What comes next is sent again where its parent is
    executed again, and whoever makes a run of it has to know it by then.
    """
    if by is None or not by.ended:
        return options
    return {**options, "headers": {**(options.get("headers") or {}), PARENT_HEADER: by.run_id}}


def _expect_reply(app: Celery, made: Outgoing) -> None:
    """With ``rpc://`` a result is a message to a queue of the caller's, that has to be there first; Celery declares
    it when it publishes. Where the broker is away nobody sends a result yet, and the next call declares it.
    """
    backend = app.backend
    if type(backend).__module__ != "celery.backends.rpc" or made.message.options.get("ignore_result"):
        return
    with suppress(*app.connection_for_write().connection_errors), app.producer_or_acquire() as producer:
        backend.on_task_call(producer, made.message.task_id)


def _task_id_of(run: RunRecord) -> str:
    """Of the run that had the call's idempotency key already."""
    stored_id: str | None = None if run.message is None else run.message.get("task_id")
    return stored_id or run.external_ref or run.run_id


def another(run: RunRecord, task_id: str) -> RunRecord:
    """A run for the same task id, which has one already."""
    spec = replace(run.spec, metadata={**run.spec.metadata, "celery_task_id": task_id})
    return replace(run, spec=spec, run_id=str(uuid4()))


def _run(task: RerouteTask, made: Outgoing, by: Execution | None, *, replaces: bool) -> RunRecord:
    message = made.message
    metadata: dict[str, Any] = {"celery_task": task.name}
    run_id = run_id_of(message.task_id)
    if replaces and by is not None:
        run_id, metadata["replaces"] = str(uuid4()), by.run_id
    if run_id != message.task_id:
        metadata["celery_task_id"] = message.task_id
    spec = task.run_spec(
        message.args,
        message.kwargs,
        queue=made.queue,
        urgency=made.urgency,
        correlation_id=correlation_of(message.options.get("root_id")),
        parent_run_id=None if by is None else by.run_id,
        trigger_source="celery" if beat_entry() is None else "beat",
        metadata=metadata,
        max_retries=task.lost_worker_retries,
    )
    return RunRecord(spec, run_id=run_id)


def _in_its_place(task: RerouteTask, by: Execution | None, task_id: str, options: dict[str, Any]) -> dict[str, Any]:
    """With root and parent, as Celery's own publishing gives them, which happens elsewhere now."""
    placed = dict(options)
    parent = task.app.current_worker_task
    if parent is not None:
        request = parent.request
        placed["root_id"] = placed.get("root_id") or request.root_id or request.id
        placed["parent_id"] = placed.get("parent_id") or request.id
        if task.app.conf.task_inherit_parent_priority and placed.get("priority") is None:
            placed["priority"] = (request.delivery_info or {}).get("priority")
    placed["root_id"] = placed.get("root_id") or (task_id if by is None else by.root_id)
    return placed


def _is_the_same_call(found: RunRecord | None, by: Execution) -> bool:
    """What comes next has the same id each time that the run before it is executed."""
    return found is not None and found.spec.parent_run_id == by.run_id


def beat_entry() -> str | None:
    """The name of the beat entry that calls, if one does."""
    if "celery.beat" not in sys.modules:
        return None
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as in caller.py
    while frame is not None:
        if frame.f_globals.get("__name__") == "celery.beat":
            entry = frame.f_locals.get("entry")
            if entry is not None:
                return str(entry.name)
        frame = frame.f_back
    return None
