"""What of a call can be stored, to be published by somebody else, and the refusal, by name, of what cannot."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any

from celery import signature
from celery.utils.functional import maybe_list
from celery.utils.nodenames import anon_nodename
from celery.utils.time import maybe_make_aware
from kombu.entity import Exchange, Queue

from spine_migrate.execution.errors import InvalidSpecError
from spine_migrate.execution.executors.celery_message import (
    ATTEMPT_HEADER,
    INSIDE,
    OUTSIDE,
    RUN_HEADER,
    TaskMessage,
)

if TYPE_CHECKING:
    from celery import Celery

    from spine_shims.task import RerouteTask

#: How publishing itself is done, which is not the caller's any more.
_OF_PUBLISHING = frozenset({
    "retry", "retry_policy", "timeout", "confirm_timeout", "add_to_parent", "countdown", "eta",
    # Of a message that is sent again, what was true of its last delivery.
    "redelivered", "is_eager",
})  # fmt: skip
#: Live objects. Celery's own code, beat and the canvas, passes the first for speed, and needs no more than a message.
_LIVE = ("producer", "publisher", "connection")
_PASSING = frozenset({"celery.beat", "celery.canvas", "celery.app.builtins", "celery.backends.base"})
#: The header of a message whose call was counted where it was made.
COUNTED_HEADER = "spine_counted"
#: Headers that are not the caller's.
_OURS = (RUN_HEADER, ATTEMPT_HEADER, COUNTED_HEADER)
_KNOWN = OUTSIDE | INSIDE.keys()
#: Frames between them and here.
_NEAR = 15


@dataclass(frozen=True)
class Outgoing:
    """A message, and when its task is due and expires, with zones; ``queue`` and ``urgency`` (9 first) as routed."""

    message: TaskMessage
    due_at: datetime | None
    expires_at: datetime | None
    queue: str | None
    urgency: int | None


def outgoing(
    task: RerouteTask, args: tuple[Any, ...], kwargs: dict[str, Any], task_id: str, options: dict[str, Any]
) -> Outgoing:
    """``options`` are those of ``apply_async`` with the task's own. Raises InvalidSpecError, whose ``field`` is the
    option's name, for what cannot be stored.
    """
    app = task.app
    _check_live(options)
    name = options.pop("route_name", None) or task.name
    given = {key: value for key, value in options.items() if key not in _LIVE}
    routed = app.amqp.router.route(
        {key: value for key, value in given.items() if value is not None}, name, args, kwargs, task
    )
    # As in Celery, which looks at a countdown first.
    due_at = _after(app, "countdown", routed.get("countdown")) or _moment(app, "eta", routed.get("eta"))
    expires_at = _moment(app, "expires", routed.get("expires"))
    kept = {key: value for key, value in routed.items() if key not in _OF_PUBLISHING}
    _check_known(kept)
    if expires_at is not None:
        kept["expires"] = expires_at.isoformat()
    for option in ("link", "link_error"):
        if kept.get(option):
            kept[option] = [_frozen(app, linked) for linked in maybe_list(kept[option])]
    if isinstance(kept.get("queue"), Queue):
        kept["queue"] = _name_of_queue(app, kept["queue"])
    if isinstance(kept.get("exchange"), Exchange):
        kept["exchange"] = kept["exchange"].name
    kept.setdefault("reply_to", app.thread_oid)
    kept.setdefault("origin", anon_nodename())
    if kept.get("headers"):
        kept["headers"] = {key: value for key, value in kept["headers"].items() if key not in _OURS}
    message = TaskMessage(task.name, task_id, tuple(args), dict(kwargs), kept)
    return Outgoing(message, due_at, expires_at, kept.get("queue"), _urgency(app, kept.get("priority")))


def stored(message: TaskMessage) -> dict[str, Any]:
    """Raises InvalidSpecError, whose ``field`` is the argument's name or number, or the option's."""
    try:
        return message.to_stored()
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritten(message, error) from None


def _unwritten(message: TaskMessage, error: Exception) -> InvalidSpecError:
    """Which of all it was."""
    named = [
        *((f"argument {number}", TaskMessage("", "", (value,))) for number, value in enumerate(message.args)),
        *((f"argument {name}", TaskMessage("", "", (value,))) for name, value in message.kwargs.items()),
        *((f"option {name}", TaskMessage("", "", (value,))) for name, value in message.options.items()),
    ]
    for name, alone in named:
        try:
            alone.to_stored()
        except (TypeError, ValueError, RecursionError) as why:
            return InvalidSpecError(
                name.split(" ", 1)[1], f"The {name} of {message.task} cannot be written as JSON: {_kind(why)}."
            )
    return InvalidSpecError("message", f"The call of {message.task} cannot be written as JSON: {_kind(error)}.")


def _kind(error: Exception) -> str:
    """What is said of a value's type says nothing of the value; what is said of a number does."""
    return str(error) if isinstance(error, TypeError) else type(error).__name__


def _check_live(options: dict[str, Any]) -> None:
    for name in _LIVE:
        if options.get(name) is None or (name != "connection" and _by_celery()):
            continue
        raise InvalidSpecError(
            name,
            f"The option {name} cannot be carried: a call is stored, and published by somebody else."
            " Leave it out, or set the task's mode to legacy.",
        )


def _by_celery() -> bool:
    """Whether beat or the canvas, which pass a producer of their own accord, called ``apply_async``, be it through an
    application's or an instrumentation's own.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as in caller.py
    for _ in range(_NEAR):
        if frame is None:
            break
        if frame.f_globals.get("__name__") in _PASSING:
            return True
        frame = frame.f_back
    return False


def _check_known(options: dict[str, Any]) -> None:
    if unknown := sorted(options.keys() - _KNOWN - set(options.get("stamped_headers") or ())):
        some = "option" if len(unknown) == 1 else "options"
        raise InvalidSpecError(
            unknown[0],
            f"The {some} {', '.join(unknown)} cannot be carried. Leave it out, or set the task's mode to legacy.",
        )


def _moment(app: Celery, name: str, given: Any) -> datetime | None:
    """Of a time, its ISO form, or seconds from now."""
    if given is None:
        return None
    if isinstance(given, (int, float)):
        return _after(app, name, given)
    try:
        found = datetime.fromisoformat(given) if isinstance(given, str) else given
        aware: datetime = maybe_make_aware(found, app.timezone)
    except (ValueError, AttributeError, TypeError):
        raise InvalidSpecError(name, f"The option {name} must be a time or a number of seconds.") from None
    return aware


def _after(app: Celery, name: str, seconds: Any) -> datetime | None:
    if not seconds:
        return None
    try:
        after: datetime = app.now() + timedelta(seconds=seconds)
    except (OverflowError, TypeError):
        raise InvalidSpecError(name, f"The option {name} must be a number of seconds.") from None
    return after


def _frozen(app: Celery, linked: Any) -> Any:
    """With ids, so that it is the same call when the message is published again."""
    made = signature(linked, app=app).clone()
    made.freeze()
    return made


def _name_of_queue(app: Celery, queue: Queue) -> str:
    known = app.amqp.queues.get(queue.name)
    if known is None or (known.exchange, known.routing_key) != (queue.exchange, queue.routing_key):
        raise InvalidSpecError(
            "queue",
            f"The queue {queue.name} is none of task_queues, and a queue cannot be carried itself: name it there.",
        )
    name: str = queue.name
    return name


def _urgency(app: Celery, priority: Any) -> int | None:
    """Of a broker's priority: with Redis 0 is the most urgent."""
    if not isinstance(priority, int):
        return None
    driver = app.connection_for_write().transport.driver_type
    return 9 - priority if driver == "redis" else priority
