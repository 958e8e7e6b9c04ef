"""A move that is going on while the test does something else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.run import Outcome
from tests.legacy import Legacy
from tests.waiting import LONGEST, until


@dataclass
class Moving:
    """``held`` is what the run says it waits for, each once, None for going on."""

    legacy: Legacy
    stop: threading.Event = field(default_factory=threading.Event)
    held: list[str | None] = field(default_factory=list)
    _outcome: Outcome | None = None
    _error: BaseException | None = None

    def result(self) -> Outcome:
        until(lambda: self._outcome or self._error, "the run has not come to its end")
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome

    def is_held(self, by: str) -> None:
        """Wait until the run says so, and the ledger."""
        until(
            lambda: self._error or (self.held and self.held[-1] == by), lambda: f"is not held back by {by}: {self.held}"
        )
        until(lambda: self._error or self.told("held_by") == by, f"the ledger does not say {by}")
        assert self._error is None, self._error

    def told(self, column: str, migration: int = 1) -> Any:
        """What stands in the ledger about the run."""
        return self.control(migration).get(column)

    def control(self, migration: int = 1) -> dict[str, Any]:
        rows = self.legacy.rows("SELECT to_jsonb(c) FROM spine_migrate.control c WHERE migration_id = %s", migration)
        return dict(rows[0][0]) if rows else {}

    def moved(self) -> int:
        return int(self.legacy.value("SELECT count(*) FROM runs"))

    def run(self, options: dict[str, Any]) -> None:
        try:
            self._outcome = self.legacy.move(stop=self.stop, report=self._hear, **options)
        except BaseException as error:  # noqa: BLE001 - raised again by result
            self._error = error

    def _hear(self, progress: Progress) -> None:
        by = None if progress.held is None else progress.held.by
        if by != (self.held[-1] if self.held else None):
            self.held.append(by)


@contextmanager
def moving(legacy: Legacy, **options: Any) -> Iterator[Moving]:
    """Starts the move; it is stopped at the end of the block if it has not ended by then."""
    going = Moving(legacy)
    thread = threading.Thread(target=going.run, args=(options,), daemon=True)
    thread.start()
    try:
        yield going
    finally:
        going.stop.set()
        thread.join(LONGEST)
