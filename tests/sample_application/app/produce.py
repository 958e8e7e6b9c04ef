"""``python -m app.produce``: calls the tasks in several ways, waits, and prints what came back, as JSON."""

from __future__ import annotations

import json
import sys

from celery import chain, chord

from app.celery_app import celery_app
from app.tasks.backup import run_backup_for_user
from app.tasks.batch_ingestion_tasks import batch_import_documents
from app.tasks.recommendations import update_recommendations
from app.tasks.reports import summarize
from app.tasks.sync import sync_environments

_SECONDS = 60


def main() -> None:
    results = {
        "delay": run_backup_for_user.delay(1),
        "apply_async": run_backup_for_user.apply_async((2,), {"backup_type": "incremental"}, countdown=0.1),
        "by name": celery_app.send_task("app.tasks.recommendations.update_recommendations", (7,), {"user_id": 3}),
        "chain": chain(batch_import_documents.s("i-1", ["d-1", "d-2"]), update_recommendations.s(user_id=4))(),
        "chord": chord([run_backup_for_user.s(user_id) for user_id in (5, 6)], summarize.s())(),
    }
    sync_environments()
    json.dump({way: result.get(timeout=_SECONDS) for way, result in results.items()}, sys.stdout)


if __name__ == "__main__":
    main()
