"""What a comparison says to a cutover, while the application writes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spine_migrate.carry.known import Known
    from spine_migrate.cutover.gates import Gate
    from spine_migrate.db.connect import Connection
    from spine_migrate.mapping.bind import Binding
    from spine_migrate.parity.evidence import Histories
    from spine_migrate.parity.in_flight import InFlight
    from spine_migrate.parity.model import Comparison, Report

# More differences than this are not looked through for changes that are on their way.
MOST_DIFFERENCES = 10_000
_REMEDY = "Look at spine-migrate compare, and mend what differs (repair); or wait for sync run to catch up."


def parity_of(target: str | None, members: Sequence[Known], names: Sequence[str], *, cancel: threading.Event) -> Gate:
    """Compare now. ``names``: mapping names, or the files that they were read from. ``cancel`` cancels it, which raises
    psycopg.errors.QueryCanceled.

    A writer logs the key of what it writes in its own transaction, and the applier takes it out in the transaction that
    applies it. So in one snapshot a row may differ where its key is in the log, and nowhere else; and a run may break a
    law of histories where its key or that of an event of its is there (``parity.histories``).
    """
    from spine_migrate.cutover.gates import Gate
    from spine_migrate.db.cancelling import cancelling
    from spine_migrate.db.connect import connect
    from spine_migrate.parity.compare import compare
    from spine_migrate.parity.model import Verdict
    from spine_migrate.parity.options import Options

    flight = _Flight({one.migration.migration_id: one.tables.binding for one in members})
    with connect(target) as connection, cancelling(cancel, lambda: [connection]):

        def closing(report: Report) -> None:
            flight.read(connection, report)

        report = compare(connection, names, Options(max_differences=MOST_DIFFERENCES), closing=closing)
    at = f"{report.snapshot.taken_at:%H:%M:%S %Z}"
    untold = [*report.reasons, *(reason for one in _untold(report) for reason in one.reasons)]
    if untold or not report.comparisons:
        sentence = " ".join(dict.fromkeys(reason.sentence for reason in untold))
        return Gate("parity", ok=False, evidence=f"It could not be told: {sentence}", remedy=_REMEDY)
    if flight.real:
        return Gate("parity", ok=False, evidence=f"As of {at}: {'; '.join(flight.real)}.", remedy=_REMEDY)
    if report.verdict is Verdict.EQUAL:
        return Gate("parity", ok=True, evidence=f"Source and target are equal, as of {at}.")
    but = f"but for {flight.excused:,} rows that are on their way or accepted"
    return Gate("parity", ok=True, evidence=f"Source and target are equal as of {at}, {but}.")


def _untold(report: Report) -> list[Comparison | Histories]:
    """What could not be compared, for another reason than changes on their way."""
    from spine_migrate.parity.model import Verdict

    every: list[Comparison | Histories] = [*report.comparisons, *report.histories]
    return [one for one in every if one.verdict is Verdict.UNKNOWN and not _flies(one)]


def _flies(one: Comparison | Histories) -> bool:
    from spine_migrate.parity.in_flight import IN_FLIGHT
    from spine_migrate.parity.model import Verdict

    return one.verdict is Verdict.UNKNOWN and {reason.code for reason in one.reasons} == {IN_FLIGHT}


class _Flight:
    """What of a comparison's differences is no difference to a cutover."""

    def __init__(self, bindings: dict[int, Binding]) -> None:
        self._bindings = bindings
        self.real: list[str] = []
        self.excused = 0

    def read(self, connection: Connection, report: Report) -> None:
        """In the comparison's snapshot."""
        from spine_migrate.db.queries import query
        from spine_migrate.parity.in_flight import in_flight
        from spine_migrate.parity.model import Verdict

        for one in report.comparisons:
            number = one.migration_id or 0
            if number in self._bindings and (one.verdict is Verdict.DIFFERENT or _flies(one)):
                accepted = {
                    key for (key,) in connection.execute(query("cutover", "accepted_keys"), {"migration_id": number})
                }
                self._judge(one, in_flight(connection, number, self._bindings[number]), accepted)
        for lives in report.histories:
            if lives.verdict is Verdict.DIFFERENT:
                broken = [check for check in lives.checks if check.broken]
                named = ", ".join(f"{check.code} {check.broken:,} runs" for check in broken[:5])
                self.real.append(f"the histories of {lives.mapping} differ ({named})")

    def _judge(self, one: Comparison, on_their_way: InFlight, accepted: set[str]) -> None:
        if on_their_way.everything:
            self.real.append(f"{one.mapping}: more was written than can be looked through, and is not applied yet")
            return
        real = [
            found
            for found in one.differences
            if not (on_their_way.has(found) or (found.kind == "doubled" and found.key in accepted))
        ]
        self.excused += len(one.differences) - len(real)
        unseen = one.differences_total - len(one.differences)
        if real or unseen or not one.differences:
            named = ", ".join(f"{found.kind} {found.key or found.target_key}" for found in real[:5])
            removed = sum(map(on_their_way.goes, real))
            waits = f", of which {removed:,} have no legacy row and wait to be removed" if removed else ""
            self.real.append(f"{one.mapping}: {len(real) + unseen:,} differences ({named or 'see compare'}){waits}")
