"""A small moved history with every law in it: kept, broken by the legacy tables, and ready to be broken."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString

from spine_migrate.db.connect import connect
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import Histories
from spine_migrate.parity.histories import histories
from spine_migrate.parity.model import Comparison, Report
from spine_migrate.parity.options import Options
from tests.legacy import Legacy, uuid

EXECUTIONS, EVENTS = "capture-spine/executions", "capture-spine/execution_events"
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)

# Number, status, and the events, one a minute; "a+b" are at the same moment.
LIVES: tuple[tuple[int, str, str], ...] = (
    (1, "completed", "created queued started progress completed"),
    (2, "failed", "created started failed"),
    (3, "running", "created started"),
    (4, "pending", "created"),
    (5, "completed", "created started progress+heartbeat completed"),
    (6, "cancelled", "created cancelled"),
    (7, "completed", "created started completed"),
    (8, "completed", "created started retry_scheduled started completed"),
    (9, "completed", "started completed"),
    (10, "completed", "created started heartbeat completed"),
    (11, "completed", ""),
    # What the legacy tables have had wrong.
    (12, "completed", "created started completed heartbeat"),
    (13, "completed", "created completed"),
    (14, "completed", "started created started completed"),
    (15, "failed", "created started completed"),
    (16, "completed", "created started completed"),
    (17, "completed", "created started completed"),
    (18, "completed", "created started completed"),
    (19, "failed", "created started failed"),
)
VALUES: dict[int, dict[str, object]] = {
    3: {"feed_id": uuid(901)},
    4: {"feed_id": uuid(902)},
    7: {"retry_of_execution_id": uuid(2), "retry_count": 1},
    8: {"retry_count": 1},
    9: {"parent_execution_id": uuid(1)},
    10: {"parent_execution_id": uuid(9)},
    11: {"started_at": NOON, "completed_at": NOON + timedelta(hours=1)},
    13: {"started_at": NOON + timedelta(seconds=1)},
    16: {"started_at": NOON},
    17: {"parent_execution_id": uuid(18)},
    18: {"parent_execution_id": uuid(17)},
    19: {"retry_of_execution_id": uuid(2)},
}
INHERITED = {
    "terminal": {12},
    "gaps": {13},
    "started-first": {14},
    "status-agrees": {15},
    "times-agree": {16},
    "parents": {17, 18},
    "attempts": {19},
}


def key(run: int, number: int) -> str:
    return f"e0000000-0000-4000-8000-{run * 100 + number:012}"


def fill(legacy: Legacy) -> None:
    """The functions ``run(number)`` and ``event(run, number)``, counted from 0, give the keys."""
    legacy.execute(
        """CREATE FUNCTION run(n int) RETURNS uuid LANGUAGE sql
           RETURN ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid"""
    )
    legacy.execute(
        """CREATE FUNCTION event(run int, n int) RETURNS uuid LANGUAGE sql
           RETURN ('e0000000-0000-4000-8000-' || lpad((run * 100 + n)::text, 12, '0'))::uuid"""
    )
    for run, status, words in LIVES:
        events = [(kind, minute) for minute, kinds in enumerate(words.split()) for kind in kinds.split("+")]
        at = {kind: NOON + timedelta(minutes=minute) for kind, minute in events}
        ended = [at[kind] for kind in ("completed", "failed", "cancelled") if kind in at]
        times = {"created_at": NOON, "started_at": at.get("started"), "completed_at": ended[-1] if ended else None}
        legacy.executions(run, status=status, **(times | VALUES.get(run, {})))
        legacy.add(
            "execution_events",
            *(
                {"event_id": key(run, n), "execution_id": uuid(run), "event_type": kind,
                 "timestamp": NOON + timedelta(minutes=minute), "data": json.dumps({})}
                for n, (kind, minute) in enumerate(events)
            ),
        )  # fmt: skip


@dataclass(frozen=True)
class Moved:
    legacy: Legacy
    comparisons: list[Comparison]

    def after(self, defects: LiteralString, named: int = 100) -> Histories:
        """What is said of histories after these statements, which are taken back."""
        with connect(self.legacy.url) as connection, connection.transaction(force_rollback=True):
            connection.execute(defects)
            (found,) = histories(connection, self.comparisons, {}, named)
            return found


def compared(url: str, *names: str, events: bool = True) -> Report:
    with connect(url) as connection:
        return compare(connection, names, Options(events=events))


def broken(found: Histories) -> dict[str, set[int]]:
    """The numbers of the runs that break a check and are not as in the legacy tables; the counts are theirs."""
    named = {
        check.code: {int(one.run[-12:]) for one in check.examples if "as in the legacy tables" not in one.note}
        for check in found.checks
    }
    assert {check.code: check.broken for check in found.checks} == {code: len(runs) for code, runs in named.items()}
    return {code: runs for code, runs in named.items() if runs}
