"""The relay as a task of Celery beat, for those who would rather not run ``spine-migrate worker-relay``.

It needs the broker to be told that the broker is needed: after an outage it begins again with beat's first tick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, Task

from spine_migrate.execution.per_process import PerProcess
from spine_migrate.execution.relay import Relay

TASK = "spine.relay"


def register_relay(app: Celery, relay: Callable[[], Relay], *, every_seconds: float = 5.0) -> Task:
    """Have beat run one pass every so often; the task, which gives the counts of its pass.

    ``relay`` is called in each worker process that gets the task. A tick that no worker took before the next one is
    dropped, so that ticks do not pile up; two at once do no harm.
    """
    made = PerProcess(relay)

    def tick() -> dict[str, Any]:
        return made.get().run_once().to_dict()

    app.conf.beat_schedule[TASK] = {"task": TASK, "schedule": every_seconds, "options": {"expires": every_seconds}}
    return app.task(name=TASK, ignore_result=True)(tick)
