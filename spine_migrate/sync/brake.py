"""When an applier waits: as long as a person says, and while the server is busy until its changes are too old for that.

A backfill may wait for a quiet server for ever. What follows the application may not: the log would grow, and the
cutover with it would never come.
"""

from __future__ import annotations

from spine_migrate.carry.orders import Hold
from spine_migrate.carry.throttle import Throttle
from spine_migrate.db.captures import MOST_ATTEMPTS
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query


class Brake:
    """Of one capture; asked before each transaction. ``max_hold`` in seconds: changes that are older are applied
    whatever the signals say. ``held`` is what holds them back, with what is done about it in its words; ``overdue``:
    some were as old since it does.
    """

    def __init__(self, throttle: Throttle, capture_id: int, max_hold: float) -> None:
        self.throttle = throttle
        self.held: Hold | None = None
        self.overdue = False
        self._capture_id = capture_id
        self._max_hold = max_hold

    def holds(self, connection: Connection) -> bool:
        """Whether nothing is to be applied now. Raises SpineMigrateError as ``Throttle.current`` does."""
        hold = self.throttle.current()
        age = self._age(connection) if hold is not None and self.throttle.is_signal(hold) else None
        # It stays so for a while, or else it would be said anew with each batch.
        enough = self._max_hold / 2 if self.overdue else self._max_hold
        self.overdue = age is not None and age >= enough
        note = f"changes older than {self._max_hold:g} s are applied all the same" if self.overdue else None
        self.throttle.note = note
        self.held = Hold(hold.by, f"{hold.detail}; {note}") if hold is not None and note is not None else hold
        return hold is not None and (age is None or age < self._max_hold)

    def _age(self, connection: Connection) -> float:
        """Seconds that the oldest change waits."""
        values = {"capture_id": self._capture_id, "attempts": MOST_ATTEMPTS}
        ((seconds,),) = connection.execute(query("capture", "oldest"), values).fetchall()
        return float(seconds)
