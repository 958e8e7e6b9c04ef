"""Messages and calls that no run was stored for: what was queued before the deploy, what is sent by name, by other
languages or by an older version, and direct calls. They get a run when they are to be executed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from spine_migrate.execution.errors import InvalidSpecError
from spine_migrate.execution.executors.celery_message import RUN_HEADER, TaskMessage
from spine_migrate.execution.ledgers.protocol import Delivery, Ledger
from spine_migrate.execution.publishing import PUBLISH_GRACE
from spine_migrate.execution.runs import FINAL, RunRecord
from spine_shims.message import stored
from spine_shims.producing import PARENT_HEADER, another, correlation_of, run_id_of, with_known_parent

if TYPE_CHECKING:
    from celery.app.task import Context

    from spine_shims.executing import Execution
    from spine_shims.task import RerouteTask

#: What triggers a run that its caller executes.
CALL = "call"


def adopted(
    task: RerouteTask, ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], by: Execution | None
) -> tuple[str, bool]:
    """The run's id, stored now or before, and whether its handler can be given its params: they may be none that JSON
    can hold, or the arguments may not fit the task, which is for the old body to say.

    A message that is delivered again finds the run that is there, as one does that comes next to a parent which was
    executed again. Another message under the id of a run that has ended is another call. Raises BackendError, and
    ConcurrencyError where the run's entity is busy.
    """
    request = task.request
    run, fits = _run(task, args, kwargs, by)
    # The relay leaves it to this process, which is about to claim it.
    message = _message(task, run, args, kwargs)
    if message is None:
        run.spec.max_retries = 0
    delivery = Delivery(publish_in_seconds=PUBLISH_GRACE, message=message)

    def store(given: RunRecord) -> RunRecord:
        return ledger.create(given, delivery)

    try:
        return with_known_parent(run, store).run_id, fits
    except InvalidSpecError as error:
        if error.field != "run_id":
            raise
    found = ledger.get(run.run_id)
    again = bool((request.delivery_info or {}).get("redelivered")) or _comes_again(request, found)
    if found is None or found.status not in FINAL or again:
        return run.run_id, fits
    return with_known_parent(another(run, request.id), store).run_id, fits


def is_left(run: RunRecord) -> bool:
    """Whether whoever gets its message finds a run that its caller was to execute, and is not there any more: it has
    failed by now, and is not to be executed later. One that a person has brought back is.
    """
    return run.spec.trigger_source == CALL and run.attempt == 1 and run.retry_of_run_id is None


def _run(
    task: RerouteTask, args: tuple[Any, ...], kwargs: dict[str, Any], by: Execution | None
) -> tuple[RunRecord, bool]:
    request = task.request
    called = request.called_directly or request.is_eager
    direct = not request.id or request.called_directly
    run_id = str(uuid4()) if direct else getattr(request, RUN_HEADER, None) or run_id_of(request.id)
    metadata: dict[str, Any] = {"celery_task": task.name}
    if not direct and run_id != request.id:
        metadata["celery_task_id"] = request.id
    fields = {
        "correlation_id": None if direct else correlation_of(request.root_id or request.id),
        "parent_run_id": getattr(request, PARENT_HEADER, None) if by is None else by.run_id,
        "trigger_source": CALL if called else "message",
        "metadata": metadata,
        # Whoever calls directly sees how it ended, and is the one to call again.
        "max_retries": 0 if called else task.lost_worker_retries,
    }
    info = request.delivery_info or {}
    queue = info.get("routing_key") if not called else None
    try:
        spec = task.run_spec(args, kwargs, queue=queue, urgency=None, **fields)
        fits = True
    except Exception as error:  # noqa: BLE001 - of a route's function; the message is there, and is to be executed
        metadata["params_not_stored"] = _why(error)
        spec = task.bare_spec(queue=queue, **fields)
        fits = False
    # A key is looked at where a call is sent; this one was sent already.
    retries = request.retries or 0
    return RunRecord(replace(spec, idempotency_key=None), run_id=run_id, attempt=retries + 1), fits


def _comes_again(request: Context, found: RunRecord | None) -> bool:
    parent = getattr(request, PARENT_HEADER, None)
    return found is not None and parent is not None and found.spec.parent_run_id == parent


def _why(error: Exception) -> str:
    """Without a value of the arguments."""
    if isinstance(error, InvalidSpecError):
        return error.sentence
    if isinstance(error, TypeError):
        return "the arguments do not fit the task"
    return f"the route raised {type(error).__qualname__}"


def _message(task: RerouteTask, run: RunRecord, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """By which the run is published again; None where JSON cannot hold it, and it is executed once or never."""
    request = task.request
    try:
        if request.called_directly:
            return stored(TaskMessage(task.name, run.run_id, args, kwargs))
        return stored(TaskMessage(task.name, request.id, args, kwargs, task.options_of(request)))
    except InvalidSpecError:
        return None
