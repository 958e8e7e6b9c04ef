"""A legacy table whose changes are captured, and the applier called by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg

from spine_migrate.backfill.run import Outcome
from spine_migrate.carry.tables import Tables
from spine_migrate.db import captures
from spine_migrate.db.captures import Captured, Lag
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.db.patience import Patience
from spine_migrate.mapping.load import load
from spine_migrate.sync.loop import follow
from spine_migrate.sync.members import Followed, Options
from spine_migrate.sync.start import start
from tests.legacy import Connection, Legacy

PATIENCE = Patience(lock_timeout=200, seconds=60)


def prepare(connection: psycopg.Connection[Any], tables: Tables, migration_id: int) -> None:
    start(connection, tables, migration_id, patience=PATIENCE, stop=threading.Event())


def move_live(legacy: Legacy, *entities: str, **options: Any) -> list[Outcome]:
    """Capture, then move."""
    return [legacy.move(entity, prepare=prepare, **options) for entity in entities or ("executions",)]


def apply(legacy: Legacy, *entities: str, **options: Any) -> list[Followed]:
    """Until nothing is left to apply."""
    mappings = [load(f"capture-spine/{entity}") for entity in entities]
    return follow(
        legacy.url,
        mappings=mappings,
        options=Options(once=True, **options),
        stop=threading.Event(),
        report=lambda _: None,
    )


def capture_of(legacy: Legacy, entity: str = "executions") -> Captured:
    with connect(legacy.url, settings=PINNED) as connection:
        migration_id = legacy.value(
            "SELECT migration_id FROM spine_migrate.migration WHERE mapping = %s AND step <> 'undone'",
            f"capture-spine/{entity}",
        )
        found = captures.captured(connection, migration_id, captures.FORWARD)
    assert found is not None
    return found


def lag_of(legacy: Legacy, entity: str = "executions") -> Lag:
    with connect(legacy.url, settings=PINNED) as connection:
        return captures.lag(connection, capture_of(legacy, entity).capture_id)


def logged(legacy: Legacy) -> list[str | None]:
    """Keys in the log, in its order."""
    return [key for (key,) in legacy.rows("SELECT row_key FROM spine_migrate.change_log ORDER BY at")]


def in_another_session(legacy: Legacy, work: Callable[[Connection], None]) -> threading.Thread:
    """``work`` on a connection of its own, in a thread that is started."""

    def run() -> None:
        with legacy.connect() as connection:
            work(connection)

    thread = threading.Thread(target=run)
    thread.start()
    return thread
