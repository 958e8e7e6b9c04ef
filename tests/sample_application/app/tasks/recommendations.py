from __future__ import annotations

from app import services
from app.celery_app import celery_app


@celery_app.task
def update_recommendations(imported: int = 0, model: str = "collaborative", user_id: int = 0) -> str:
    return f"{services.recommend(model, user_id, by=update_recommendations.name)} of {imported}"
