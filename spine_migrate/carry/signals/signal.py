"""What all signals have in common."""

from __future__ import annotations

from typing import Protocol

from spine_migrate.db.connect import Connection
from spine_migrate.errors import Refused


class Signal(Protocol):
    def look(self, connection: Connection, limit: int) -> str | None:
        """What is beyond ``limit``, in words that go after "held back:"; None where nothing is.

        Raises Refused (``signal-unreadable``) where the role may not see it, and psycopg.Error.
        """


def unreadable(what: str) -> Refused:
    return Refused(
        "signal-unreadable",
        f"The role may not see {what} of other roles, so no limit on it can be kept; "
        f"GRANT pg_read_all_stats TO it, or leave the limit out.",
    )
