"""Undoing what was moved, and what is there afterwards."""

from __future__ import annotations

import threading
from typing import Any

from spine_migrate.backfill import undo
from spine_migrate.backfill.undo_plan import Undone
from spine_migrate.mapping.load import load
from tests.legacy import Legacy


def back(legacy: Legacy, *entities: str, stop: threading.Event | None = None, **options: Any) -> list[Undone]:
    """Undo some migrations, or all."""
    report = options.pop("report", lambda _: None)
    return undo.undo(
        legacy.url,
        mappings=[load(f"capture-spine/{entity}") for entity in entities],
        options=undo.Options(**options),
        stop=stop or threading.Event(),
        report=report,
    )


def left(legacy: Legacy, *entities: str) -> dict[str, str]:
    """Target key to reason of what an undo leaves."""
    (result,) = back(legacy, *entities)
    assert result.state == "left"
    assert result.left == {
        reason: sum(1 for one in result.examples if one.reason == reason)
        for reason in {one.reason for one in result.examples}
    }
    return {one.target_key: one.reason for one in result.examples}


def runs(legacy: Legacy) -> list[str]:
    return [str(key) for (key,) in legacy.rows("SELECT run_id::text FROM runs ORDER BY 1")]
