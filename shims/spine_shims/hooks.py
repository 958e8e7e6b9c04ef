"""Where Celery tells of the end of a task, of a revocation, and of a worker that is there: its signals.

Connected once, for all tasks; those that are no shims are passed over.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from spine_migrate.execution.marking import flush_all
from spine_shims.aftermath import cancelled
from spine_shims.configuration import configuration, is_configured
from spine_shims.executing import ON_REQUEST, SHADOW_ON_REQUEST
from spine_shims.task import RerouteTask


def connect() -> None:
    signals.task_success.connect(_sent, weak=False, dispatch_uid="spine_shims")
    signals.task_postrun.connect(_mark, weak=False, dispatch_uid="spine_shims")
    signals.task_revoked.connect(_cancel, weak=False, dispatch_uid="spine_shims")
    signals.worker_ready.connect(_announce, weak=False, dispatch_uid="spine_shims")
    signals.worker_process_shutdown.connect(_close, weak=False, dispatch_uid="spine_shims")


def _sent(sender: Any, **_: object) -> None:
    """What comes next is published, and the result stored."""
    execution = sender.request.__dict__.get(ON_REQUEST) if isinstance(sender, RerouteTask) else None
    if execution is not None:
        execution.sent = True


def _mark(task: Any, state: str | None, retval: Any, **_: object) -> None:
    """Last of all: what comes next is published, the result stored and the application's hooks have run."""
    if not isinstance(task, RerouteTask):
        return
    execution = task.request.__dict__.pop(ON_REQUEST, None)
    if execution is not None:
        execution.mark(state, retval)
    shadow = task.request.__dict__.pop(SHADOW_ON_REQUEST, None)
    if shadow is not None:
        shadow.compare()


def _cancel(sender: Any, request: Any, terminated: bool, expired: bool, **_: object) -> None:  # noqa: FBT001 - as in Celery
    if isinstance(sender, RerouteTask) and sender.route is not None and is_configured():
        reason = "terminated" if terminated else "expired" if expired else "revoked"
        cancelled(sender, vars(request), reason)


def _announce(sender: Any, **_: object) -> None:
    """Producers that wait for workers hear of it by the table."""
    if not is_configured():
        return
    shims = [
        task.name for task in sender.app.tasks.values() if isinstance(task, RerouteTask) and task.route is not None
    ]
    fleet, telemetry = configuration().fleet, configuration().telemetry
    if telemetry is None or not shims:
        return
    if fleet is None:
        telemetry.announce(shims)
    else:
        fleet.watch(sender.app, sender.hostname, shims, lambda: telemetry.announce(shims))


def _close(**_: object) -> None:
    """A child of the pool ends without ``atexit``."""
    flush_all()
    telemetry = configuration().telemetry if is_configured() else None
    if telemetry is not None:
        telemetry.close()
