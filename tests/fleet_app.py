"""The application of tests/fleet_tasks.py, as a worker loads it: ``celery --app tests.fleet_app worker``.

Variables as in tests/celery_app.py; SPINE_TEST_VERSION is one of VERSIONS.
"""

from __future__ import annotations

import os

from celery import Celery, signals

from spine_migrate.execution import get_default_registry
from spine_shims import Modes, configure, fleet
from spine_shims.tables import Tables
from tests.database import patient
from tests.fleet_tasks import define, handlers

os.environ.setdefault("SPINE_TEST_NOTES_URL", os.environ["SPINE_DATABASE_URL"])

app = Celery("fleet", broker=os.environ["SPINE_TEST_BROKER_URL"], backend=os.environ["SPINE_TEST_RESULT_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_default_queue=f"{os.environ['SPINE_TEST_PREFIX']}celery",
    worker_prefetch_multiplier=1,
    result_chord_retry_interval=0.1,
)
if os.environ["SPINE_TEST_VERSION"] == "new":
    fleet.LOOK_SECONDS = 0.2
    url = patient(os.environ["SPINE_DATABASE_URL"])
    modes = Modes(Tables.at(url))
    configure(url, modes=modes)
    handlers(get_default_registry())

    @signals.task_prerun.connect  # type: ignore[untyped-decorator]  # Celery has no types
    def _look(**_: object) -> None:
        """What the tests wait for in the table, each of its processes would else know seconds later."""
        modes.refresh()


define(app, os.environ["SPINE_TEST_VERSION"])
