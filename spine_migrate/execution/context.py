"""What a handler is told about its run, and what it can tell."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.runs import RunRecord
from spine_migrate.execution.storable import as_text

_log = logging.getLogger(__name__)

_WHOLE = 100


class Told:
    """The end of a call that has taken effect already; an async handler may await it, another need not."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


@dataclass(frozen=True)
class TaskContext:
    """Handed to a handler that takes a second parameter.

    ``cancelled`` is set once the run is to be cancelled, or its claim or the lock on its entity is lost: what the
    handler does from then on does not count, so a long one looks at it now and then. ``entity_fence`` is the fence of
    that lock, None where there is no guard or no entity: what the entity is kept in can refuse a smaller one than it
    has seen.
    """

    run: RunRecord
    fence: int
    record: Callable[[RunEvent], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    entity_fence: int | None = None

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def params(self) -> dict[str, Any]:
        return self.run.spec.params

    @property
    def attempt(self) -> int:
        return self.run.attempt

    def report_progress(self, percent: float, message: str = "") -> Told:
        """Add a progress event; ``percent`` is from 0 to 100 (seed 003). Raises ValueError outside of that.

        It returns once the event is stored, in async handlers too. Where the ledger is away the event is lost, and the
        handler goes on: a report is no reason to fail.
        """
        if not math.isfinite(percent) or not 0 <= percent <= _WHOLE:
            raise ValueError(f"Progress is from 0 to 100 percent, not {percent!r}.")
        data = {"percent": percent, "message": as_text(str(message))}
        self.note(RunEvent(self.run_id, EventType.PROGRESS, data, source="handler"))
        return Told()

    def note(self, event: RunEvent) -> None:
        """Add an event, or log that the ledger is away."""
        try:
            self.record(event)
        except BackendError as error:
            _log.warning("The %s of run %s was not recorded: %s", event.event_type, event.run_id, error)
