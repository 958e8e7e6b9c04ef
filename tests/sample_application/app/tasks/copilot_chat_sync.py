from __future__ import annotations

from app import services
from app.celery_app import celery_app


@celery_app.task(ignore_result=True)
def sync_copilot_chats() -> None:
    services.sync("copilot chats", by=sync_copilot_chats.name)
