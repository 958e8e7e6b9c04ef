"""What must hold before a switch, each with its evidence. A gate that is closed names what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.carry import orders
from spine_migrate.carry.known import Known
from spine_migrate.cutover import dependents
from spine_migrate.cutover.dependent import Dependent
from spine_migrate.cutover.foreign_keys import inbound, left_behind
from spine_migrate.cutover.group import facts_of
from spine_migrate.cutover.key_index import KeyIndex, to_build
from spine_migrate.cutover.limits import limits
from spine_migrate.cutover.switch import legacy_name, remade
from spine_migrate.cutover.turning import Turning
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import unsettled
from spine_migrate.db.definition import ForeignKey, definition
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused
from spine_migrate.mapping.model import Mapping

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
    along = {one.tables.source.oid for one in members}
    seen_to = {_object(one.key) for one in inbound(connection, members)}
    for one in members:
        own = definition(connection, one.tables.source.name, one.tables.source.oid).foreign_keys
        seen_to |= {_object(key) for key in own if key.referenced_oid in along and not key.to_itself}
    found: list[Dependent] = []
    again: dict[int, list[str]] = {}
    for one in members:
        hanging = _left(dependents.find(connection, one.tables.source), seen_to)
        found += hanging
        if with_view:
            again[one.migration.migration_id] = remade(hanging)
    made = facts_of(connection, members, {}).values() if with_view else ()
    for one_view in made:
        found += limits(connection, one_view)
    gates = [
        _backfill(connection, members),
        unchanged(members),
        pause(connection, members),
        *_capture(connection, turning, max_lag),
        parity,
        quarantine(connection, members),
        _prepared(connection, members),
        _keys(members),
        _legacy_form(connection, members),
        _names(connection, members),
        _privileges(connection, members, to_build(connection, made), with_view=with_view),
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
        f"Not finished: {'; '.join(unfinished)}." if unfinished else f"{names_of(members)}: everything has been moved.",
        "Run the command that began it until it is done.",
    )


def _done(one: Known) -> bool:
    return one.migration.step == "done"


def unchanged(members: Sequence[Known]) -> Gate:
    changed = [one.mapping.name for one in members if one.mapping.digest != one.migration.mapping_digest]
    return Gate(
        "mapping",
        not changed,
        f"The file of {', '.join(changed)} has changed since the move."
        if changed
        else "The mapping files are as they were.",
        "Restore the file.",
    )


def pause(connection: Connection, members: Sequence[Known]) -> Gate:
    """Who pauses a migration wants nothing of it to be applied, and a switch applies what is left."""
    told = orders.everything(connection)
    found = [(one.mapping.name, told.get(one.migration.migration_id)) for one in members]
    paused = [
        f"{name} by {one.paused_by} since {one.paused_at:%Y-%m-%d %H:%M:%S %Z}"
        for name, one in found
        if one is not None and one.paused_at is not None
    ]
    return Gate(
        "pause",
        not paused,
        f"Paused: {'; '.join(paused)}." if paused else "Nobody has paused a migration.",
        "spine-migrate resume, once the one who is named agrees.",
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


def quarantine(connection: Connection, members: Sequence[Known]) -> Gate:
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
    one_way = [one.mapping for one in members if one.mapping.key_carrier is None]
    kept = [f"{one.mapping.name} by {place}" for one in members if (place := _kept(one.mapping)) is not None]
    by = f" ({', '.join(kept)})" if kept else ""
    return Gate(
        "keys",
        not one_way,
        f"Nothing in the target gives the keys of {', '.join(one.name for one in one_way)} back."
        if one_way
        else f"Each row of the target gives its legacy key back{by}.",
        "Without it there would be no way back. "
        + " ".join(
            f'In the mapping {one.name}, add keep = "COLUMN.legacy.{one.key}" to {one.key_field.rule}, with a jsonb'
            f" column of {one.target.name}; then take the migration back (rollback --before-cutover) and begin it anew."
            for one in one_way
        ),
    )


def _legacy_form(connection: Connection, members: Sequence[Known]) -> Gate:
    """With a view or without one, and nobody can accept it: the way back takes a target row without a legacy form for
    one whose legacy row has to go.
    """
    missing = {
        f"{one.tables.source.name}.{sql.Identifier(column.name).as_string(None)}": None
        for one in members
        for column in definition(connection, one.tables.source.name, one.tables.source.oid).columns
        if column.not_null and not one.mapping.brings_back(column.name)
    }
    return Gate(
        "legacy-form",
        not missing,
        f"No rule gives {', '.join(missing)} back, which must not be NULL: no row of the target has a legacy form, and "
        f"the way back would delete its legacy row."
        if missing
        else "Every column that must not be NULL comes back.",
        "Carry it in the mapping (take the migration back with rollback --before-cutover, and begin it anew), or ALTER "
        "TABLE ... ALTER COLUMN ... DROP NOT NULL.",
    )


def _kept(mapping: Mapping) -> str | None:
    """Where the target has a legacy key that its own does not give."""
    field = mapping.key_carrier
    if field is None or (field is mapping.key_field and field.exact):
        return None
    return field.name if field.exact else str(field.keep)


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


def _privileges(
    connection: Connection, members: Sequence[Known], indexes: Sequence[KeyIndex], *, with_view: bool
) -> Gate:
    sources = [one.tables.source.oid for one in members]
    pointing = [one.key.oid for one in inbound(connection, members) if one.movable]
    values = {
        "oids": [*sources, *(one.tables.target.oid for one in members), *pointing],
        "beside": [*sources, *(one.made.target.oid for one in indexes)],
        "followed": sources if with_view else [],
    }
    lacking = [what for (what,) in connection.execute(query("cutover", "lacking"), values)]
    return Gate(
        "privileges",
        not lacking,
        f"The role lacks {', '.join(lacking)}."
        if lacking
        else "The role owns the tables, and what points to them, and may create beside them.",
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
    wrong = [f"{_object(one.key)} cannot point to the target, {_why_not(one.key)}" for one in found if not one.movable]
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


def _why_not(key: ForeignKey) -> str:
    if key.takes_not_valid:
        return "whose keys are others"
    return "as its table is partitioned, and has none NOT VALID before PostgreSQL 18"


def _object(key: ForeignKey) -> str:
    """As ``Dependent.object`` names it."""
    return f"{sql.Identifier(key.name).as_string(None)} ON {key.table}"


def _left(found: Sequence[Dependent], seen_to: Collection[str]) -> list[Dependent]:
    """Without the foreign keys that the switch sees to."""
    return [one for one in found if not (one.kind == "foreign key" and one.object in seen_to)]


def names_of(members: Sequence[Known]) -> str:
    return ", ".join(one.mapping.name for one in members)
