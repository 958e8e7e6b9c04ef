"""Who carried runs whose workers were faster than those who note it."""

from __future__ import annotations

from time import sleep

from spine_migrate.execution.ledgers.statements import Session
from spine_migrate.execution.sessions import Row

# Seconds before those are looked at again that somebody had locked: mostly a worker that marks its run just then.
_PAUSES = (0.01, 0.05, 0.25)


def mark_carried(session: Session, values: Row) -> None:
    """``values`` are those of ``mark_many_queued``. Who holds a run for longer, as an application may, is not waited
    for: it stays without its reference, which only lists and reports would show.
    """
    for pause in (*_PAUSES, None):
        row = session.one("mark_many_carried", values)
        if row is None or not row["left_over"] or pause is None:
            return
        sleep(pause)
