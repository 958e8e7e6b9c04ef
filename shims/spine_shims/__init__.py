"""Old Celery tasks that keep working, as runs of the dispatcher: same names, same signatures, same results.

An application says ``configure(...)`` once, and puts ``@reroute`` in the place of ``@app.task`` on each old task.
"""

from __future__ import annotations

from spine_shims import hooks
from spine_shims.configuration import configure
from spine_shims.decorator import reroute
from spine_shims.modes import Mode, Modes
from spine_shims.route import Route
from spine_shims.task import RerouteTask
from spine_shims.warning import DispatchDeprecationWarning, ShimRemoved

__all__ = [
    "DispatchDeprecationWarning",
    "Mode",
    "Modes",
    "RerouteTask",
    "Route",
    "ShimRemoved",
    "configure",
    "reroute",
]

hooks.connect()
