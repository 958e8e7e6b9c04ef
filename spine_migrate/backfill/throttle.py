"""The throttle of a backfill: all signals, on the tables of its migration."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from spine_migrate.backfill.setting import Setting
from spine_migrate.carry.settings import Settings
from spine_migrate.carry.signals.active_sessions import ActiveSessions
from spine_migrate.carry.signals.lock_waits import LockWaits
from spine_migrate.carry.signals.replica_lag import ReplicaLag
from spine_migrate.carry.signals.wal_rate import WalRate
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
        {
            "max-lock-waits": LockWaits([setting.tables.source.oid, setting.tables.target.oid], ours),
            "max-active-sessions": ActiveSessions(ours),
            "max-lag-bytes": ReplicaLag(),
            "max-wal-rate": WalRate(),
        },
        stop=stop,
        retry_seconds=retry_seconds,
        pause_file=None if pause_file is None else Path(pause_file),
        parent=None if parent is None else parent.migration_id,
    )
