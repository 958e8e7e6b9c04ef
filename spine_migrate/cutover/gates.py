"""What must hold before a switch, each with its evidence. A gate that is closed names what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.carry.known import Known
from spine_migrate.cutover import dependents
from spine_migrate.cutover.dependent import Dependent
from spine_migrate.cutover.foreign_keys import Inbound, inbound, left_behind
from spine_migrate.cutover.group import facts_of
from spine_migrate.cutover.limits import limits
from spine_migrate.cutover.switch import legacy_name, remade
from spine_migrate.cutover.turning import Turning
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import unsettled
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused

# NAMEDATALEN less the closing NUL.
_LONGEST_NAME = 63
# So many of a kind are named in a sentence.
_NAMED = 5


@dataclass(frozen=True)
class Gate:
    """``evidence`` is a sentence, also where it is open; ``remedy`` what to do where it is not."""

    name: str
    ok: bool
    evidence: str
    remedy: str = ""


@dataclass(frozen=True)
class Examined:
    """``again``: by migration, the statements that point views and functions to the new view."""

    gates: list[Gate]
    dependents: list[Dependent]
    again: dict[int, list[str]]

    @property
    def ok(self) -> bool:
        return all(gate.ok for gate in self.gates)


def examine(
    connection: Connection,
    members: Sequence[Known],
    turning: Turning,
    *,
    parity: Gate,
    with_view: bool,
    max_lag: int,
    accepted: Collection[str],
) -> Examined:
    """Reads only. ``parity`` is what a comparison has said; ``accepted``: objects, as ``Dependent.object`` names them,
    that the operator takes on himself.
    """
    seen_to = {str(one.tables.source.name) for one in members}
    seen_to |= {_object(one) for one in inbound(connection, members)}
    found: list[Dependent] = []
    again: dict[int, list[str]] = {}
    for one in members:
        hanging = _left(dependents.find(connection, one.tables.source), seen_to)
        found += hanging
        if with_view:
            again[one.migration.migration_id] = remade(hanging)
    if with_view:
        for made in facts_of(connection, members, {}).values():
            found += limits(connection, made)
    gates = [
        _backfill(connection, members),
        _mappings(members),
        *_capture(connection, turning, max_lag),
        parity,
        _quarantine(connection, members),
        _prepared(connection, members),
        _keys(members),
        _names(connection, members),
        _privileges(connection, members, with_view=with_view),
        _foreign_keys(connection, members),
        _dependents(found, with_view=with_view, accepted=accepted),
    ]
    return Examined(gates, found, again)


def _backfill(connection: Connection, members: Sequence[Known]) -> Gate:
    unfinished = [f"{one.mapping.name} is in step {one.migration.step}" for one in members if not _done(one)]
    back = unsettled(connection, [one.migration.migration_id for one in members])
    unfinished += [f"the rollback of {one.mapping.name}" for one in members if one.migration.migration_id in back]
    return Gate(
        "backfill",
        not unfinished,
        f"Not finished: {'; '.join(unfinished)}."
        if unfinished
        else f"{_names_of(members)}: everything has been moved.",
        "Run the command that began it until it is done.",
    )


def _done(one: Known) -> bool:
    return one.migration.step == "done"


def _mappings(members: Sequence[Known]) -> Gate:
    changed = [one.mapping.name for one in members if one.mapping.digest != one.migration.mapping_digest]
    return Gate(
        "mapping",
        not changed,
        f"The file of {', '.join(changed)} has changed since the move."
        if changed
        else "The mapping files are as they were.",
        "Restore the file.",
    )


def _capture(connection: Connection, turning: Turning, max_lag: int) -> Iterator[Gate]:
    remedy = "Run spine-migrate sync start, then sync run until it is up to date."
    try:
        turning.verify(connection)
    except Refused as refused:
        yield Gate("capture", ok=False, evidence=refused.sentence, remedy=remedy)
        return
    yield Gate("capture", ok=True, evidence="Every write to the legacy tables is captured.")
    lag = turning.lag(connection).values()
    entries, stuck = sum(one.entries for one in lag), sum(one.stuck for one in lag)
    yield Gate(
        "lag",
        entries <= max_lag and not stuck,
        f"{entries:,} changes are not applied yet, at most {max_lag:,} may be; {stuck:,} rows were tried in vain.",
        "Run spine-migrate sync run until it is up to date; sync status names the rows that are put off.",
    )


def _quarantine(connection: Connection, members: Sequence[Known]) -> Gate:
    there: list[str] = []
    accepted = 0
    for one in members:
        values = {"migration_id": one.migration.migration_id}
        counts = connection.execute(query("cutover", "open_quarantine"), values).fetchall()
        there += [f"{count:,} of {one.mapping.name} ({reason})" for reason, count in counts]
        accepted += len(connection.execute(query("cutover", "accepted_keys"), values).fetchall())
    return Gate(
        "quarantine",
        not there,
        f"Rows that nobody has mended or accepted: {', '.join(there)}."
        if there
        else f"No row is open; {accepted:,} are accepted and stay behind.",
        "Mend them (quarantine show), or accept them by name: spine-migrate quarantine accept KEY --why TEXT.",
    )


def _prepared(connection: Connection, members: Sequence[Known]) -> Gate:
    oids = [oid for one in members for oid in (one.tables.source.oid, one.tables.target.oid)]
    found = [gid for (gid,) in connection.execute(query("cutover", "prepared"), {"oids": oids})]
    return Gate(
        "prepared-transactions",
        not found,
        f"Prepared transactions hold the tables: {', '.join(found[:_NAMED])}."
        if found
        else "No prepared transaction holds the tables.",
        "COMMIT PREPARED or ROLLBACK PREPARED each of them.",
    )


def _keys(members: Sequence[Known]) -> Gate:
    one_way = [one.mapping.name for one in members if not one.mapping.key_field.invertible]
    return Gate(
        "keys",
        not one_way,
        f"The keys of {', '.join(one_way)} cannot be computed back from those of the target."
        if one_way
        else "Each target key gives its legacy key back.",
        "This version cannot carry deletions back for such a mapping, so there would be no way back; leave it to a "
        "later version, or move the application off the table and keep that as it is.",
    )


def _names(connection: Connection, members: Sequence[Known]) -> Gate:
    wrong = []
    for one in members:
        name = legacy_name(one)
        ((taken,),) = connection.execute(query("cutover", "taken"), {"name": str(name)}).fetchall()
        if taken:
            wrong.append(f"{name} is there already")
        elif len(name.table.encode()) > _LONGEST_NAME:
            wrong.append(f"{name} is too long for a name")
    return Gate(
        "names",
        not wrong,
        "; ".join(wrong) + "." if wrong else "The names that the legacy tables will have are free.",
        "Rename or drop what is there.",
    )


def _privileges(connection: Connection, members: Sequence[Known], *, with_view: bool) -> Gate:
    sources = [one.tables.source.oid for one in members]
    values = {
        "oids": [*sources, *(one.tables.target.oid for one in members)],
        "sources": sources,
        "followed": sources if with_view else [],
    }
    lacking = [what for (what,) in connection.execute(query("cutover", "lacking"), values)]
    return Gate(
        "privileges",
        not lacking,
        f"The role lacks {', '.join(lacking)}." if lacking else "The role owns the tables and may create beside them.",
        "Run the cutover as the owner of these, or as a member of it with CREATE on those schemas.",
    )


def _dependents(found: Sequence[Dependent], *, with_view: bool, accepted: Collection[str]) -> Gate:
    seen_to = set(remade(found)) if with_view else set[str]()
    blocking = [one for one in found if one.blocks and one.object not in accepted and one.statement not in seen_to]
    named = "; ".join(f"{one.kind} {one.object}: {one.breaks}" for one in blocking[:_NAMED])
    more = f" And {len(blocking) - _NAMED} more." if len(blocking) > _NAMED else ""
    return Gate(
        "dependents",
        not blocking,
        f"{named}{more}" if blocking else f"Nothing that hangs on the legacy tables breaks ({len(found)} looked at).",
        "Do what --dry-run says for each, or take it on yourself by name: --accept OBJECT.",
    )


def _foreign_keys(connection: Connection, members: Sequence[Known]) -> Gate:
    found = inbound(connection, members)
    wrong = [f"{_object(one)} cannot point to the target, whose keys are others" for one in found if not one.movable]
    for one in found:
        rows = left_behind(connection, one) if one.movable else 0
        if rows:
            wrong.append(f"{rows:,} rows of {one.key.table} point to rows that stay in quarantine ({one.key.name})")
    return Gate(
        "foreign-keys",
        not wrong,
        "; ".join(wrong) + "." if wrong else f"{len(found)} foreign keys of other tables will point to the target.",
        "Mend the rows in quarantine or remove what points to them; drop a foreign key that cannot move.",
    )


def _object(one: Inbound) -> str:
    """As ``Dependent.object`` names it."""
    return f"{sql.Identifier(one.key.name).as_string(None)} ON {one.key.table}"


def _left(found: Sequence[Dependent], seen_to: Collection[str]) -> list[Dependent]:
    """Without the foreign keys that the switch sees to: ``seen_to`` names them, or the tables that have them."""
    return [
        one
        for one in found
        if not (one.kind == "foreign key" and {one.object, one.object.partition(" ON ")[2]} & set(seen_to))
    ]


def _names_of(members: Sequence[Known]) -> str:
    return ", ".join(one.mapping.name for one in members)
