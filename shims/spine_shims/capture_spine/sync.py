"""Old import: ``from app.tasks.sync import sync_environments``.
New import: ``from spine_shims.capture_spine.sync import sync_environments``.
"""

from __future__ import annotations

from spine_shims.shipped import shipped

sync_environments = shipped("app.tasks.sync.sync_environments", "sync_environments")
