"""Old import: ``from app.tasks.backup import run_backup_for_user, schedule_pending_backups``.
New import: ``from spine_shims.capture_spine.backup import run_backup_for_user, schedule_pending_backups``.

Both are runs of one pipeline, which knows by ``pending`` that it is to look for the users itself.
"""

from __future__ import annotations

from spine_shims.shipped import shipped

schedule_pending_backups = shipped("app.tasks.backup.schedule_pending_backups", "backup", constants={"pending": True})
run_backup_for_user = shipped("app.tasks.backup.run_backup_for_user", "backup", "user_id")
