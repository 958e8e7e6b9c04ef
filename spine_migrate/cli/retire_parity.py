"""What a comparison says to a retire: whether the legacy tables have what the target says."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spine_migrate.carry.known import Known
    from spine_migrate.cutover.gates import Gate

_REMEDY = "Run spine-migrate sync run until it is up to date; what still differs then was written beside this tool."


def parity_of(target: str | None, members: Sequence[Known], *, cancel: threading.Event) -> Gate:
    """Compare now, in the direction that is true after a cutover. ``cancel`` cancels it, which raises
    psycopg.errors.QueryCanceled.
    """
    import psycopg

    from spine_migrate.cutover.gates import Gate
    from spine_migrate.db.cancelling import cancelling
    from spine_migrate.db.connect import PINNED, connect
    from spine_migrate.sync.returned import returned

    with connect(target, settings=PINNED) as connection, cancelling(cancel, lambda: [connection]):
        ((at,),) = connection.execute("SELECT clock_timestamp()").fetchall()
        try:
            found = returned(connection, members)
        except psycopg.DataError as error:
            sentence = f"It could not be told: a rule cannot be evaluated on some row (SQLSTATE {error.sqlstate})."
            return Gate("parity", ok=False, evidence=sentence, remedy=_REMEDY)
    wrong = []
    for one in found:
        if one.truncated:
            wrong.append(f"{one.mapping}: the target was truncated, which is not carried back yet")
        elif not one.equal:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(one.differing.items()))
            wrong.append(f"{one.mapping}: {kinds} in the legacy table ({', '.join(one.named)})")
    if wrong:
        return Gate("parity", ok=False, evidence=f"As of {at:%H:%M:%S %Z}: {'; '.join(wrong)}.", remedy=_REMEDY)
    excused = sum(one.excused for one in found)
    but = f", but for {excused:,} rows that are on their way" if excused else ""
    rows = ", ".join(f"{one.mapping} {one.rows:,} rows" for one in found)
    return Gate(
        "parity",
        ok=True,
        evidence=f"The legacy tables have what the target says, as of {at:%H:%M:%S %Z}{but} ({rows}).",
    )
