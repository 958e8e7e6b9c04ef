from __future__ import annotations

from app import services
from app.celery_app import celery_app


@celery_app.task
def batch_import_documents(import_id: str, documents: list[str]) -> int:
    return services.import_documents(import_id, documents, by=batch_import_documents.name)
