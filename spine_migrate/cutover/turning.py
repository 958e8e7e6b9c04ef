"""What a switch asks of change capture, which is another stage: the command line passes it in."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from spine_migrate.db.captures import Lag
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection


class Turning(Protocol):
    """The captures of the members of a switch, all in the direction that it ends."""

    def lag(self, connection: Connection) -> dict[int, Lag]:
        """What is not applied, by migration."""

    def verify(self, connection: Connection) -> None:
        """Raises Refused where a write would not be captured."""

    def drain(self, connection: Connection, *, seconds: float, stop: threading.Event) -> None:
        """Apply until little is left, beside the application."""

    def hold(self, connection: Connection) -> None:
        """In the switch's transaction, before it locks anything: other appliers wait."""

    def finish(self, connection: Connection) -> None:
        """In the switch's transaction, with the tables locked: apply the rest. Raises Refused where something stays."""

    def turn(self, connection: Connection, sources: Mapping[int, Name]) -> None:
        """In the switch's transaction: capture the other direction from now on."""

    def forget(self, connection: Connection, *, stop: threading.Event) -> None:
        """After the switch."""
