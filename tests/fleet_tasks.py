"""An application's tasks in its old version, without shims, and in its new one: the same names, the same bodies.

Bodies and handlers write down each execution of theirs in the table ``shim_executed`` of tests/shims_tasks.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from celery import Celery

from spine_migrate.execution import HandlerRegistry, TaskContext
from spine_shims import reroute
from tests.shims_tasks import note

VERSIONS = ("old", "new")


def define(app: Celery, version: str) -> SimpleNamespace:
    def task(name: str, **given: Any) -> Callable[[Callable[..., Any]], Any]:
        options = {"name": f"fleet.{name}", "shared": False, **given}
        return app.task(**options) if version == "old" else reroute(name, app=app, **options)

    @task("add")
    def add(x: int, y: int) -> int:
        note("add", add.request.id, version)
        return x + y

    @task("slow")
    def slow(x: int) -> int:
        # An old worker is stopped in the midst of them, which takes a while on a busy machine.
        time.sleep(0.5 if version == "old" else 0.1)
        note("slow", slow.request.id, version)
        return x + 0

    @task("total")
    def total(given: list[int]) -> int:
        note("total", total.request.id, version)
        return sum(given)

    @task("again", bind=True)
    def again(self: Any, times: int) -> int:
        note(f"again {self.request.retries}", self.request.id, version)
        if self.request.retries < times:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    return SimpleNamespace(again=again, add=add, slow=slow, total=total)


def handlers(registry: HandlerRegistry) -> None:
    """Of one task; the others are executed by their old body, tracked."""

    def add(params: dict[str, Any], context: TaskContext) -> int:
        note("add", context.run_id, "handler")
        return int(params["x"] + params["y"])

    registry.register("pipeline", "add", add)
