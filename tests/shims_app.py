"""The application of the shims' tests, as a worker or beat process loads it: ``celery --app tests.shims_app worker``.

Variables as in tests/celery_app.py; SPINE_TEST_FALLBACK is what ``configure`` takes as ``fallback``,
SPINE_TEST_PUBLISH as ``publish``.
"""

from __future__ import annotations

import os

import pytest
from celery import Celery, signals

from spine_migrate.execution import get_default_registry
from spine_shims import RerouteTask, configure
from tests.patience import have_patience
from tests.shims_tasks import MODES, define, handlers, note

PREFIX = os.environ["SPINE_TEST_PREFIX"]
os.environ.setdefault("SPINE_TEST_NOTES_URL", os.environ["SPINE_DATABASE_URL"])

app = Celery("spine-tests", broker=os.environ["SPINE_TEST_BROKER_URL"], backend=os.environ["SPINE_TEST_RESULT_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_default_queue=f"{PREFIX}celery",
    worker_prefetch_multiplier=1,
    result_chord_retry_interval=0.1,
    task_annotations={f"{mode}.request": {"annotated": mode} for mode in MODES},
    beat_schedule={
        f"{mode} beats": {"task": f"{mode}.echo", "schedule": 0.5, "args": ("beat", mode)}
        for mode in MODES
        if os.environ.get("SPINE_TEST_BEAT") == mode
    },
)
if {"SPINE_TEST_PUBLISH", "SPINE_TEST_PATIENT"} & os.environ.keys():
    have_patience(pytest.MonkeyPatch())
configure(
    os.environ["SPINE_DATABASE_URL"],
    publish=os.environ.get("SPINE_TEST_PUBLISH"),
    fallback=os.environ.get("SPINE_TEST_FALLBACK", "fail"),
    lease_seconds=float(os.environ.get("SPINE_TEST_LEASE", "2")),
    workers_first=False,
)
RerouteTask.adopt_again_seconds = 0.5
handlers(get_default_registry())
tasks = {mode: define(app, mode) for mode in MODES}


@signals.task_prerun.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _before(sender: object, task_id: str, **_: object) -> None:
    if getattr(sender, "name", "") in {f"{mode}.old" for mode in MODES}:
        note("old", task_id, "prerun")
