"""All signals there are, on the tables of one migration."""

from __future__ import annotations

from collections.abc import Collection

from spine_migrate.carry.signals.active_sessions import ActiveSessions
from spine_migrate.carry.signals.lock_waits import LockWaits
from spine_migrate.carry.signals.replica_lag import ReplicaLag
from spine_migrate.carry.signals.signal import Signal
from spine_migrate.carry.signals.wal_rate import WalRate
from spine_migrate.carry.tables import Tables


def signals(tables: Tables, ours: Collection[int]) -> dict[str, Signal]:
    """By the name of their limit. ``ours`` are the server processes of the run itself, and may grow."""
    return {
        "max-lock-waits": LockWaits([tables.source.oid, tables.target.oid], ours),
        "max-active-sessions": ActiveSessions(ours),
        "max-lag-bytes": ReplicaLag(),
        "max-wal-rate": WalRate(),
    }
