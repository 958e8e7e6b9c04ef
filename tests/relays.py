"""What a relay works with: a ledger whose time goes by when a test says so, and executors that only take note."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import BackendError, RunRecord, RunStatus, SyncDispatcher
from spine_migrate.execution.executors.protocol import Outcome
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.relay import Relay
from tests.database import Database


class Postbox:
    """An executor that notes what it is given; ``down`` for as many publications, or for certain runs. It can make no
    message of those that are ``broken``.
    """

    name = "postbox"

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.asked = 0
        self.down = 0
        self.refused: set[str] = set()
        self.broken: set[str] = set()

    def submit(self, run: RunRecord) -> str:
        self.asked += 1
        if self.down > 0 or run.run_id in self.refused:
            self.down -= 1
            raise BackendError("The broker is down.")
        if run.run_id in self.broken:
            raise LookupError("secret")
        self.sent.append(run.run_id)
        return run.run_id

    def cancel(self, external_ref: str) -> bool:
        return external_ref in self.sent

    def get_status(self, external_ref: str) -> RunStatus | None:
        return RunStatus.QUEUED if external_ref in self.sent else None


class Knowing(Postbox):
    """Likewise, which others may take runs from; ``away`` for so many questions. What came of those that are
    ``unreadable`` it cannot read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, Outcome] = {}
        self.away = 0
        self.unreadable: set[str] = set()

    def outcome(self, run: RunRecord) -> Outcome | None:
        if self.away > 0:
            self.away -= 1
            raise BackendError("The result backend is down.")
        if run.run_id in self.unreadable:
            raise AttributeError("secret")
        return self.outcomes.get(run.run_id)


class Bench:
    """A ledger whose time goes by when the test says so."""

    def __init__(self, ledger: Ledger, forward: Callable[[float], None]) -> None:
        self.ledger = ledger
        self.forward = forward
        self.postbox = Postbox()
        self.dispatcher = SyncDispatcher(self.postbox, ledger, publish=False)

    def relay(self, **options: Any) -> Relay:
        return Relay(self.ledger, self.postbox, **options)

    def status(self, run_id: str) -> RunStatus:
        run = self.ledger.get(run_id)
        assert run is not None
        return run.status


def benches(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """For a fixture with the parameters ``memory`` and ``postgres``."""
    if request.param == "memory":
        now = [datetime(2026, 1, 1, tzinfo=UTC)]

        def forward(seconds: float) -> None:
            now[0] += timedelta(seconds=seconds)

        yield Bench(MemoryLedger(lambda: now[0]), forward)
        return
    database: Database = request.getfixturevalue("database")
    database.arrange(schema.upgrade)

    def earlier(seconds: float) -> None:
        """The server's clock cannot be set, so that what it has written down moves back."""
        with database.connect() as connection:
            connection.execute(
                "UPDATE run_handoff SET next_at = next_at - make_interval(secs => %(seconds)s),"
                " due_at = due_at - make_interval(secs => %(seconds)s)",
                {"seconds": seconds},
            )

    with ConnectionPool(database.url, min_size=1, max_size=8) as pool:
        yield Bench(PostgresLedger(pool), earlier)
