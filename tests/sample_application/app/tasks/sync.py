from __future__ import annotations

from app import services
from app.celery_app import celery_app


@celery_app.task(ignore_result=True)
def sync_environments() -> None:
    services.sync("environments", by=sync_environments.name)
