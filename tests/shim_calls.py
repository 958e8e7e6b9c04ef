"""Rows of the shims' tables at chosen times, for tests of what is read from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.database import Database

#: The time of tests that freeze it.
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BILL, SEND = "shop.tasks.bill", "shop.tasks.send"


def add_call(
    database: Database,
    last_seen: datetime,
    *,
    task: str = BILL,
    caller: str = "shop/views.py:7 pay",
    host: str = "web-1",
    version: str = "1.0",
    mode: str = "legacy",
    side: str = "legacy",
    count: int = 1,
    first_seen: datetime | None = None,
) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO shim_call VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (task, caller, host, version, mode, side, count, first_seen or last_seen, last_seen),
        )


def add_worker(
    database: Database, since: datetime, seen_at: datetime, *, task: str = BILL, host: str = "worker-1"
) -> None:
    with database.connect() as connection:
        connection.execute("INSERT INTO shim_worker VALUES (%s, %s, '1.0', %s, %s)", (task, host, since, seen_at))


def days(number: float) -> timedelta:
    return timedelta(days=number)
