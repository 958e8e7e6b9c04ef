"""A backfill beside the applier of changes: the one in the foreground, the other in a thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from spine_migrate.carry.tables import Tables
from spine_migrate.cli.observing import Observed
from spine_migrate.db.connect import Connection
from spine_migrate.db.patience import Patience
from spine_migrate.mapping.model import Mapping
from spine_migrate.report import sync as report
from spine_migrate.sync.loop import follow
from spine_migrate.sync.members import Options
from spine_migrate.sync.start import start

_GLANCE = 0.2


class Live:
    """A context manager. The applier begins with the first capture and ends with the block, or where it fails: ``stop``
    is set then, and the block raises what it raised. ``ours``: the server processes of both.
    """

    def __init__(
        self,
        url: str | None,
        mappings: Sequence[Mapping],
        stop: threading.Event,
        options: Options,
        seen: Observed,
        *,
        quiet: bool,
    ) -> None:
        self._url = url
        self._mappings = mappings
        self._stop = stop
        self._options = options
        self._seen = seen
        self._quiet = quiet
        # Its run tells the ledger what holds it back, which is what holds its changes back as well.
        self._moving: int | None = None
        self.ours: set[int] = set()
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="spine-applier")
        self._following: Future[object] | None = None

    def __enter__(self) -> Self:
        return self

    def prepare(self, connection: Connection, tables: Tables, migration_id: int) -> None:
        """What a run calls before its first batch."""
        self._moving = migration_id
        start(connection, tables, migration_id, patience=Patience(), stop=self._stop)
        if self._following is None:
            self._following = self._pool.submit(self._follow)

    def _follow(self) -> None:
        try:
            follow(
                self._url,
                mappings=self._mappings,
                options=self._options,
                stop=self._over,
                report=report.lines(quiet=self._quiet),
                observer=self._seen.observer,
                speaks=lambda migration_id: migration_id != self._moving,
                ours=self.ours,
                going=True,
            )
        finally:
            self._stop.set()

    def wait(self) -> None:
        """Until Ctrl-C, or the applier fails."""
        self._moving = None
        self._seen.say("History is moved; what is written now follows until Ctrl-C.")
        while not self._stop.wait(_GLANCE):
            continue

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._pool.shutdown()
        if self._following is None:
            return
        failure = self._following.exception()
        if failure is not None and error is None:
            raise failure
        if error is None:
            self._seen.say("Writes are captured all the same; spine-migrate sync run goes on applying them.")
