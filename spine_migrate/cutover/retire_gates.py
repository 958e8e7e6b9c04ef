"""What must hold before the legacy side goes, each with its evidence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from spine_migrate.carry.known import Known
from spine_migrate.cutover.dependent import Dependent
from spine_migrate.cutover.gates import Gate, names_of, pause, quarantine, unchanged
from spine_migrate.cutover.hanging import Place, Readers, hanging, places, readers
from spine_migrate.cutover.turning import Turning
from spine_migrate.cutover.writers import RESOLUTION, writers
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import Cutover, cutovers
from spine_migrate.db.queries import query
from spine_migrate.db.shim_tables import ShimTables, Verdict
from spine_migrate.errors import Refused

# So many of a kind are named in a sentence.
_NAMED = 5


@dataclass(frozen=True)
class Drop:
    """One statement of what would be run. ``bytes`` are given back by it."""

    kind: str
    object: str
    bytes: int
    statement: str


@dataclass(frozen=True)
class Examined:
    """``at``: the server's clock before anything was looked at."""

    gates: list[Gate]
    dependents: list[Dependent]
    readers: Readers
    drops: list[Drop]
    at: datetime

    @property
    def ok(self) -> bool:
        return all(gate.ok for gate in self.gates)


def examine(
    connection: Connection,
    members: Sequence[Known],
    turning: Turning,
    *,
    parity: Gate,
    after: timedelta,
    frozen: bool,
    accepted: Collection[str],
) -> Examined:
    """Reads only. Every member is cut over. ``parity`` is what a comparison has said; ``after``: how long the cutover,
    the last write through the view and the last call of a shim must be ago; ``frozen``: retire was allowed, and the
    legacy tables are kept as they were then. ``accepted``: objects, as ``Dependent.object`` names them, that the
    operator takes on himself.
    """
    numbers = [one.migration.migration_id for one in members]
    cuts = cutovers(connection, numbers)
    ((now,),) = connection.execute(query("retire", "now")).fetchall()
    dropped = places(connection, members, cuts)
    found = hanging(connection, members, dropped)
    gates = [
        _cut_over(members, cuts),
        unchanged(members),
        *(() if frozen else (pause(connection, members),)),
        _caught_up(connection, turning, frozen=frozen),
        parity,
        quarantine(connection, members),
        _age(cuts, now, after),
        _view_writes(connection, members, cuts, now, after),
        _shims(connection, members, now, after),
        _prepared(connection, members, dropped),
        _dependents(found, accepted),
        _privileges(connection, members, dropped),
    ]
    statements = connection.execute(query("retire", "statements"), {"migrations": numbers}).fetchall()
    return Examined(gates, found, readers(connection, dropped), [Drop(*one) for one in statements], now)


def _cut_over(members: Sequence[Known], cuts: dict[int, Cutover]) -> Gate:
    """Which the caller has seen to; here for its evidence."""
    named = "; ".join(
        f"{one.mapping.name} since {_time(cuts[one.migration.migration_id].at)}"
        f" ({'by the view' if cuts[one.migration.migration_id].view else 'without a view'}"
        f" {cuts[one.migration.migration_id].source_table}, legacy table {one.tables.source.name})"
        for one in members
    )
    return Gate("cut-over", ok=True, evidence=f"Cut over: {named}.")


def _caught_up(connection: Connection, turning: Turning, *, frozen: bool) -> Gate:
    remedy = "spine-migrate sync status names the rows; mend them through the view or in the target."
    try:
        turning.verify(connection)
    except Refused as refused:
        return Gate("capture", ok=False, evidence=refused.sentence, remedy=remedy)
    lag = turning.lag(connection).values()
    entries, late = sum(one.entries for one in lag), sum(one.stuck for one in lag)
    kept = "which stay in the target alone, since retire was allowed" if frozen else "which are carried back first"
    return Gate(
        "capture",
        not late,
        f"{late:,} rows were tried in vain: the legacy tables refuse them."
        if late
        else f"Every write to the target is captured; {entries:,} changes are not carried back, {kept}.",
        remedy,
    )


def _age(cuts: dict[int, Cutover], now: datetime, after: timedelta) -> Gate:
    last = max(one.at for one in cuts.values())
    return Gate(
        "age",
        now - last >= after,
        f"The last cutover was at {_time(last)}, {_span(now - last)} ago; {_span(after)} are asked for.",
        "Wait, or ask for less with --after-days.",
    )


def _view_writes(
    connection: Connection, members: Sequence[Known], cuts: dict[int, Cutover], now: datetime, after: timedelta
) -> Gate:
    wrong, seen = [], []
    for one in members:
        number = one.migration.migration_id
        if not cuts[number].view:
            continue
        # First: who ends his transaction in between has left a note by then.
        writing = connection.execute(query("retire", "writing"), {"name": cuts[number].source_table}).fetchall()
        wrong += [f"{cuts[number].source_table}: now, by {_session(*one)}" for one in writing[:_NAMED]]
        values = {"migration_id": number, "since": now - after - RESOLUTION, "now": now}
        values["seconds"] = RESOLUTION.total_seconds()
        ((until,),) = connection.execute(query("retire", "written_until"), values).fetchall()
        ((count,),) = connection.execute(query("retire", "view_writes"), values).fetchall()
        last = next(iter(writers(connection, number)), None)
        if last is None:
            seen.append(f"{cuts[number].source_table}: never")
            continue
        who = f"{_session(last.role, last.application)}, {', '.join(last.operations)}"
        told = f"{cuts[number].source_table}: last noted at {_time(last.noted_at)} by {who}"
        seen.append(told)
        if until is not None and until > now - after:
            wrong.append(f"{told}; {count:,} sessions and hours with writes in that time")
    if not any(one.view for one in cuts.values()):
        return Gate("view-writes", ok=True, evidence="There is no view.")
    return Gate(
        "view-writes",
        not wrong,
        f"Written within {_span(after)}: {'; '.join(wrong)}."
        if wrong
        else f"Nothing was written through the views within {_span(after)} ({'; '.join(seen)}).",
        "Let these write to the target, then wait. A session notes its first write of each hour.",
    )


def _shims(connection: Connection, members: Sequence[Known], now: datetime, after: timedelta) -> Gate:
    try:
        shims = ShimTables.opened(connection, members[0].tables.target.name.schema)
        silence = shims.silence((), now - after, now)
    except Refused:
        return Gate("shims", ok=True, evidence="The target has no tables of the shims, so there is nothing to ask.")
    except psycopg.errors.InsufficientPrivilege:
        return Gate(
            "shims",
            ok=False,
            evidence="The role may not read the tables of the shims.",
            remedy="spine-migrate grants retire prints what it needs.",
        )
    if silence.verdict is Verdict.CALLED:
        named = "; ".join(f"{one.task} by {one.caller} at {_time(one.last_seen)}" for one in silence.callers[:_NAMED])
        evidence = f"Called within {_span(after)}: {named}{_more(len(silence.callers))}."
    elif silence.verdict is Verdict.UNKNOWN:
        evidence = f"No call was counted within {_span(after)}. What that cannot prove: {silence.reasons[0]}"
    else:
        evidence = f"{len(silence.tasks)} tasks were watched, and none was called within {_span(after)}."
    return Gate(
        "shims",
        silence.verdict is not Verdict.CALLED,
        evidence,
        "Rewrite the callers that spine-migrate shims report names, then wait.",
    )


def _prepared(connection: Connection, members: Sequence[Known], dropped: Sequence[Place]) -> Gate:
    oids = [*(one.oid for one in dropped), *(one.tables.target.oid for one in members)]
    found = [gid for (gid,) in connection.execute(query("cutover", "prepared"), {"oids": oids})]
    return Gate(
        "prepared-transactions",
        not found,
        f"Prepared transactions hold the tables: {', '.join(found[:_NAMED])}{_more(len(found))}."
        if found
        else "No prepared transaction holds the tables.",
        "COMMIT PREPARED or ROLLBACK PREPARED each of them.",
    )


def _dependents(found: Sequence[Dependent], accepted: Collection[str]) -> Gate:
    blocking = [one for one in found if one.blocks and one.object not in accepted]
    named = "; ".join(f"{one.kind} {one.object}: {one.breaks}" for one in blocking[:_NAMED])
    return Gate(
        "dependents",
        not blocking,
        f"{named}{_more(len(blocking))}" if blocking else f"Nothing of others hangs on them ({len(found)} looked at).",
        "Do what --dry-run says for each. A function whose text alone was seen can be taken on by name: "
        "--accept OBJECT; what the server itself knows to depend on them it will not let be dropped.",
    )


def _privileges(connection: Connection, members: Sequence[Known], dropped: Sequence[Place]) -> Gate:
    values = {"oids": [*(one.oid for one in dropped), *(one.tables.target.oid for one in members)]}
    lacking = [what for (what,) in connection.execute(query("retire", "lacking"), values)]
    return Gate(
        "privileges",
        not lacking,
        f"The role lacks {', '.join(lacking)}." if lacking else f"The role owns what goes ({names_of(members)}).",
        "spine-migrate grants retire prints what it needs.",
    )


def _session(role: str, application: str | None) -> str:
    return f"{role} ({application})" if application else role


def _more(count: int) -> str:
    return f", and {count - _NAMED} more" if count > _NAMED else ""


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}"


def _span(span: timedelta) -> str:
    return f"{span.total_seconds() / 86400:.4g} days"
