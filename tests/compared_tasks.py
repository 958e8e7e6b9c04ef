"""The same application's Celery: tasks, tasks with a shim, and the app, whose broker SPINE_TEST_BROKER_URL names."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from spine_shims import reroute
from tests import compared_shop

app = Celery("shop", broker=os.environ.get("SPINE_TEST_BROKER_URL", "memory://"))


@app.task(bind=True)  # type: ignore[untyped-decorator]  # Celery has no types
def old_task(self: Any, n: int) -> int:
    return n * 3 if self.name else 0


@reroute("double", app=app)
def old_shim(n: int) -> int:
    return n * 2


@reroute("charge", app=app, dry_run=compared_shop.charge_dry)
def old_charge(n: int) -> int:
    return compared_shop.old_charge(n)
