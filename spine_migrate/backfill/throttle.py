"""The throttle of a backfill: all signals, on the tables of its migration."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from spine_migrate.backfill.setting import Setting
from spine_migrate.carry.settings import Settings
from spine_migrate.carry.signals.every import signals
from spine_migrate.carry.throttle import Throttle


def throttle(
    url: str | None,
    setting: Setting,
    settings: Settings,
    *,
    pause_file: str | None,
    ours: Collection[int],
    stop: threading.Event,
    retry_seconds: float,
) -> Throttle:
    """``ours`` are the server processes of the run's workers, and grows with them."""
    parent = setting.batches.statements.parent
    return Throttle(
        url,
        setting.migration_id,
        settings,
        signals(setting.tables, ours),
        stop=stop,
        retry_seconds=retry_seconds,
        pause_file=None if pause_file is None else Path(pause_file),
        parent=None if parent is None else parent.migration_id,
    )
