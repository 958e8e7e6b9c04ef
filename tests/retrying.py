"""Retrying what is in quarantine."""

from __future__ import annotations

import threading
from typing import Any

from spine_migrate.backfill import retry
from spine_migrate.backfill.quarantine import Selected
from spine_migrate.mapping.load import load
from tests.legacy import Legacy


def again(legacy: Legacy, *keys: str, reasons: list[str] | None = None, **options: Any) -> retry.Outcome:
    """Retry some rows, or all."""
    mappings = [load(str(name)) for name in options.pop("mappings", ())]
    stop = options.pop("stop", threading.Event())
    return retry.retry(
        legacy.url,
        Selected(reasons, list(keys) or None),
        mappings=mappings,
        options=retry.Options(**options),
        stop=stop,
        report=options.pop("report", lambda _: None),
    )


def account(legacy: Legacy) -> list[tuple[int, int]]:
    """Per migration what the ledger says is on the target, and what came into quarantine, ever."""
    return legacy.rows(
        "SELECT sum(rows_moved + rows_adopted), sum(rows_quarantined) FROM spine_migrate.checkpoint"
        " GROUP BY migration_id ORDER BY migration_id"
    )
