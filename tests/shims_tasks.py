"""Old tasks of an application, each as a shim in the mode ``legacy`` and in the mode ``dispatch``.

``define`` puts them on an app, which is a worker's (tests/shims_app.py) or a producer's. Bodies and handlers write down
each execution of theirs in the table ``shim_executed``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from psycopg.types.json import Jsonb

from spine_migrate.execution import HandlerRegistry, TaskContext
from spine_shims import RerouteTask, Route, reroute
from tests.asking import ask

MODES = ("legacy", "dispatch")
TABLE = "CREATE TABLE shim_executed (task TEXT, task_id TEXT, body TEXT, said JSONB, pid INT)"
QUIET = "ignore:The task .* goes through the dispatcher now:DeprecationWarning"


class Flaky(Exception):
    """What a body raises that another attempt mends."""


def note(task: str, task_id: str | None, body: str, said: Any = None) -> None:
    ask(
        os.environ["SPINE_TEST_NOTES_URL"],
        "INSERT INTO shim_executed VALUES (%s, %s, %s, %s, %s)",
        (task, task_id, body, None if said is None else Jsonb(said), os.getpid()),
    )


def _notes(task: str) -> list[tuple[Any, ...]]:
    return ask(os.environ["SPINE_TEST_NOTES_URL"], "SELECT body FROM shim_executed WHERE task = %s", (task,))


def handlers(registry: HandlerRegistry) -> None:
    """Of the tasks that have one; the others are executed by their old body, tracked."""

    @_registered(registry, "add")
    def add(params: dict[str, Any], context: TaskContext) -> Any:
        note("add", context.run_id, "handler", params)
        return params["x"] + params["y"]

    @_registered(registry, "fail")
    def fail(params: dict[str, Any], context: TaskContext) -> Any:
        note("fail", context.run_id, "handler", params)
        raise ValueError(params["text"])

    @_registered(registry, "flaky")
    def flaky(params: dict[str, Any], context: TaskContext) -> Any:
        note("flaky", context.run_id, "handler", params)
        if context.attempt <= params["times"]:
            raise Flaky(f"attempt {context.attempt}")
        return context.attempt

    @_registered(registry, "judged")
    def judged(params: dict[str, Any], context: TaskContext) -> Any:
        """Another result than the old body's from 10 on, and an error from 20 on."""
        note("judged", context.run_id, "handler", params)
        if params["n"] >= 20:
            raise Flaky("too much")
        return {"n": params["n"], "parts": [1, 2] if params["n"] < 10 else [1, 3, 4]}


def _registered(registry: HandlerRegistry, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        registry.register("pipeline", name, handler)
        return handler

    return decorate


class Hooked(Task):  # type: ignore[misc]  # Celery has no types
    """An application's own base class, which calls nothing of its parent's."""

    abstract = True

    def before_start(self, task_id: str, *_: Any) -> None:
        note(self.name, task_id, "before_start")

    def on_success(self, retval: Any, task_id: str, *_: Any) -> None:
        note(self.name, task_id, "on_success", retval)

    def on_failure(self, exc: Exception, task_id: str, *_: Any) -> None:
        note(self.name, task_id, "on_failure", str(exc))

    def on_retry(self, exc: Exception, task_id: str, *_: Any) -> None:
        note(self.name, task_id, "on_retry", str(exc))

    def after_return(self, status: str, _: Any, task_id: str, *__: Any) -> None:
        note(self.name, task_id, "after_return", status)


class InContext(Task):  # type: ignore[misc]  # as above
    """As Flask's documentation has it: every body runs within something of the application's."""

    abstract = True
    inside = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.inside += 1
        try:
            return self.run(*args, **kwargs)
        finally:
            self.inside -= 1


def define(app: Celery, mode: str) -> SimpleNamespace:  # noqa: C901, PLR0915 - many small tasks
    """The tasks of one mode, whose names begin with it; one of them is in the mode ``shadow`` each time."""

    def shim(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        # Celery gives a task of one app to all apps that there will be, unless it is told otherwise.
        return reroute(name, app=app, **{"mode": mode, "shared": False, "name": f"{mode}.{name}", **options})

    @shim("add")
    def add(x: Any, y: Any = 1) -> Any:
        note("add", add.request.id, "legacy")
        return x + y

    @shim("fail")
    def fail(text: str) -> None:
        note("fail", fail.request.id, "legacy")
        raise ValueError(text)

    @shim("echo")
    def echo(*args: Any, **kwargs: Any) -> Any:
        note("echo", echo.request.id, "legacy", mode)
        return [list(args), kwargs]

    @shim("request", bind=True)
    def request(self: Any, *given: Any) -> Any:
        found = self.request
        note("request", found.id, "legacy")
        names = ("id", "retries", "root_id", "parent_id", "group", "group_index", "correlation_id", "is_eager",
                 "shadow", "called_directly", "timelimit", "expires", "delivery_info", "args", "kwargs",
                 "stamps")  # fmt: skip
        said = {name: getattr(found, name) for name in names}
        headers = {name: value for name, value in (found.headers or {}).items() if not name.startswith("spine_")}
        return {**said, "headers": headers, "task": self.name, "annotated": getattr(self, "annotated", None)}

    @shim("sleep", bind=True)
    def sleep(self: Any, seconds: float) -> float:
        note("sleep", self.request.id, "legacy")
        time.sleep(seconds)
        return seconds

    @shim("held", bind=True)
    def held(self: Any) -> str:
        """Executed until somebody notes that it may end."""
        note("held", self.request.id, "legacy")
        while not _notes("let go"):
            time.sleep(0.05)
        return "held"

    # Long enough for a busy machine to come as far as the body's try.
    @shim("limited", bind=True, soft_time_limit=4)
    def limited(self: Any, seconds: float) -> str:
        note("limited", self.request.id, "legacy")
        try:
            time.sleep(seconds)
        except SoftTimeLimitExceeded:
            return "stopped"
        return "slept"

    @shim("again", bind=True, max_retries=2)
    def again(self: Any, times: int, countdown: float = 0, changed: bool = False) -> Any:  # noqa: FBT001, FBT002
        note("again", self.request.id, "legacy", self.request.retries)
        if self.request.retries < times:
            args = (times, countdown, True) if changed is False else None
            raise self.retry(args=args, exc=Flaky(f"try {self.request.retries}"), countdown=countdown)
        return [self.request.retries, changed]

    @shim("quietly", bind=True)
    def quietly(self: Any) -> Any:
        note("quietly", self.request.id, "legacy", self.request.retries)
        if self.request.retries < 1:
            self.retry(countdown=0, throw=False)
        return self.request.retries

    @shim("flaky", autoretry_for=(Flaky,), retry_kwargs={"max_retries": 2, "countdown": 0}, bind=True)
    def flaky(self: Any, times: int) -> Any:
        note("flaky", self.request.id, "legacy")
        if self.request.retries < times:
            raise Flaky(f"attempt {self.request.retries + 1}")
        return self.request.retries + 1

    @shim("replaced", bind=True)
    def replaced(self: Any, x: int, how: str = "shim") -> Any:
        note("replaced", self.request.id, "legacy")
        sig = {
            "shim": add.s(x, 10),
            "chain": add.s(x, 10) | add.s(100),
            "plain": plain.s(x),
        }[how]
        return self.replace(sig)

    @app.task(name=f"{mode}.plain", shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def plain(*given: Any) -> Any:
        note("plain", plain.request.id, "plain", list(given))
        return list(given)

    @app.task(name=f"{mode}.errback", shared=False)  # type: ignore[untyped-decorator]  # as above
    def errback(task_id: str) -> None:
        note("errback", errback.request.id, "plain", task_id)

    @shim("ignored")
    def ignored() -> None:
        note("ignored", ignored.request.id, "legacy")
        raise Ignore

    @shim("rejected", acks_late=True)
    def rejected(requeue: bool = False) -> str:  # noqa: FBT001, FBT002 - arguments of messages
        note("rejected", rejected.request.id, "legacy")
        if requeue and rejected.request.delivery_info.get("redelivered"):
            return "redelivered"
        raise Reject("not now", requeue=requeue)

    @shim("states", bind=True)
    def states(self: Any) -> str:
        self.update_state(state="HALFWAY", meta={"done": 50})
        note("states", self.request.id, "legacy", self.AsyncResult(self.request.id).state)
        return "done"

    @shim("parent", bind=True)
    def parent(self: Any, n: int) -> list[str]:
        note("parent", self.request.id, "legacy")
        return [add.delay(i).id for i in range(n)]

    @shim("nested", bind=True)
    def nested(self: Any, x: int) -> Any:
        note("nested", self.request.id, "legacy")
        return add(x, 1) + 1

    @shim("hooked", base=Hooked, bind=True, max_retries=1)
    def hooked(self: Any, how: str) -> str:
        if how == "retry" and self.request.retries == 0:
            raise self.retry(exc=Flaky("once"), countdown=0)
        if how == "fail":
            raise ValueError("hooked")
        return how

    @shim("inside", base=InContext, bind=True)
    def inside(self: Any) -> int:
        return int(self.inside)

    @shim("dated")
    def dated(moment: datetime) -> str:
        return type(moment).__name__

    @shim("object")
    def unstorable() -> Any:
        return {"at": datetime(2026, 1, 2)}  # noqa: DTZ001 - as people have them

    @shim("nothing", bind=True)
    def nothing(self: Any) -> float:
        note("nothing", self.request.id, "legacy")
        return float("nan")

    @shim("judged", mode="shadow", pure=True, metadata=lambda n: {"entity_type": "judged", "entity_id": str(n)})
    def judged(n: int) -> Any:
        note("judged", judged.request.id, "legacy")
        if n >= 30:
            raise ValueError("old")
        return {"n": n, "parts": (1, 2)}

    @shim("late", acks_late=True, bind=True)
    def late(self: Any, seconds: float) -> int:
        note("late", self.request.id, "legacy")
        time.sleep(seconds if len(_notes("late")) < 2 else 0)
        return 1

    class Old(RerouteTask):
        name = f"{mode}.old"
        route = Route("old", mode=mode)

        def run(self, x: int) -> int:
            note("old", self.request.id, "legacy")
            return x * 2

    old = app.register_task(Old())
    return SimpleNamespace(**{name: value for name, value in locals().items() if hasattr(value, "apply_async")})
