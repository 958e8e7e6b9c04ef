from __future__ import annotations

from typing import Any

from app import services
from app.celery_app import celery_app


@celery_app.task
def schedule_pending_backups() -> list[str]:
    return [run_backup_for_user.delay(user_id).id for user_id in services.users_without_backup()]


@celery_app.task(bind=True, autoretry_for=(ConnectionError,), retry_kwargs={"max_retries": 3})
def run_backup_for_user(self: Any, user_id: int, backup_type: str = "full") -> str:
    return services.back_up(user_id, backup_type, by=self.name)
