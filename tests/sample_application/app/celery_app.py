from __future__ import annotations

import os

from celery import Celery

celery_app = Celery(
    "capture",
    broker=os.environ["CELERY_BROKER_URL"],
    backend=os.environ["CELERY_RESULT_URL"],
    include=[
        "app.tasks.backup",
        "app.tasks.batch_ingestion_tasks",
        "app.tasks.copilot_chat_sync",
        "app.tasks.recommendations",
        "app.tasks.reports",
        "app.tasks.sync",
    ],
)
celery_app.conf.update(
    broker_connection_retry_on_startup=True,
    # A chord's body is looked for as often as that.
    result_chord_retry_interval=0.1,
    beat_schedule={"pending backups": {"task": "app.tasks.backup.schedule_pending_backups", "schedule": 3600.0}},
)
