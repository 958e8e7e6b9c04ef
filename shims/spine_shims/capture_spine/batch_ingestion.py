"""Old import: ``from app.tasks.batch_ingestion_tasks import batch_import_documents``.
New import: ``from spine_shims.capture_spine.batch_ingestion import batch_import_documents``.
"""

from __future__ import annotations

from spine_shims.shipped import shipped

batch_import_documents = shipped("app.tasks.batch_ingestion_tasks.batch_import_documents", "batch_import", "import_id")
