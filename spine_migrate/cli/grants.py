"""``spine-migrate grants``: the GRANT statements that a role needs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.options import (
    json_option,
    mapping_option,
    source_schema_option,
    target_option,
    target_schema_option,
)

if TYPE_CHECKING:
    from spine_migrate.db.catalog import Name, Relation
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.grant import Grant
    from spine_migrate.db.privileges import Tables
    from spine_migrate.mapping.model import Mapping

_EXECUTIONS = ("capture-spine/executions", "capture-spine/execution_events")
_JOBS = ("capture-spine/jobs",)
_MOVES = {"executions-to-runs": _EXECUTIONS, "jobs-to-runs": _JOBS}
_COMMANDS = (
    *("db upgrade", *_MOVES, "compare", "status", "watch", "pause", "resume", "set"),
    *("quarantine", "undo", "repair", "sync", "cutover", "rollback", "retire"),
)
_SWITCHES = ("cutover", "rollback")
_RETIRE = "retire"

_EXAMPLES = """\b
Examples:
  spine-migrate grants --role mover
  spine-migrate grants executions-to-runs --dry-run --role planner
  spine-migrate grants executions-to-runs --offline --role mover | psql -d app
  spine-migrate grants db upgrade --role mover
  spine-migrate grants runs purge --role janitor
  spine-migrate grants --missing"""


@click.command(epilog=_EXAMPLES)
@click.argument("command", nargs=-1, metavar="[COMMAND]")
@click.option("--role", metavar="NAME", help="Who is granted; without it the role that is connected.")
@click.option("--dry-run", is_flag=True, help="What the command needs with --dry-run.")
@click.option("--offline", is_flag=True, help="What the command needs with --offline: the target's ownership too.")
@click.option("--missing", is_flag=True, help="Only what the role lacks now; exit code 1 where it lacks anything.")
@mapping_option
@target_option
@source_schema_option
@target_schema_option
@json_option
def grants(
    *,
    command: tuple[str, ...],
    role: str | None,
    mapping: str | None,
    target: str | None,
    source_schema: str | None,
    target_schema: str | None,
    dry_run: bool,
    offline: bool,
    missing: bool,
    as_json: bool,
) -> None:
    """Print the GRANT statements that a role needs for COMMAND, or for all of them; changes nothing.

    COMMAND is db upgrade, executions-to-runs, jobs-to-runs, compare, compare-backends, repair, sync, status, watch,
    pause, resume, set, quarantine, undo, cutover, rollback, retire, worker-relay, runs or shims with one of their own
    commands, or shims alone: what an application's shims need beside its runs. cutover, rollback and retire need the
    tables' ownership, and are printed by name alone. The tables are looked up in the database, so that partitions and
    sequences are named too. Ownership cannot be granted: where a command needs it, membership in the owner is printed.
    """
    from spine_migrate.db import grant, owners, privileges, run_privileges, switch_privileges
    from spine_migrate.db.connect import connect

    wanted = " ".join(command)
    wanted = run_privileges.ALIKE.get(wanted, wanted)
    commands = (*_COMMANDS, *run_privileges.COMMANDS)
    if wanted and wanted not in commands:
        raise click.UsageError(f"There is no command {wanted!r} to grant for; it is one of: {', '.join(commands)}.")
    if (dry_run or offline) and (wanted not in _MOVES or (dry_run and offline)):
        raise click.UsageError("--dry-run and --offline go, one of them, with executions-to-runs or jobs-to-runs.")
    sections: dict[str, list[Grant]] = {}
    with connect(target) as connection:
        who = grant.acting_role(connection, role)
        # Once installed, only its owner upgrades it further: nothing to hand out along with the rest.
        passed = {*_SWITCHES, _RETIRE, *(["db upgrade"] if owners.installed(connection) else [])}
        everything = [name for name in commands if name not in passed]
        for name in [wanted] if wanted else everything:
            if name == "db upgrade":
                found = privileges.for_upgrade(connection, target_schema)
            elif name in run_privileges.COMMANDS:
                found = run_privileges.needed(connection, name, target_schema)
            elif name == _RETIRE:
                found = switch_privileges.for_retire(connection, _cut_over(connection, mapping))
            else:
                kind = privileges.MOVE if name in _MOVES else name
                kind = privileges.DRY_RUN if dry_run else privileges.OFFLINE if offline else kind
                files = [mapping] if mapping else _MOVES.get(name, (*_EXECUTIONS, *_JOBS))
                syncs = kind == privileges.SYNC and owners.installed(connection)
                over = _cut_over(connection, mapping) if syncs else []
                named = (bool(mapping) or wanted in _MOVES) and not over
                moves = _look(connection, files, source_schema, target_schema, all_of_them=named)
                found = _moving(connection, name, kind, moves, over)
            sections[name] = grant.missing(connection, found, who) if missing else found
    click.echo(_as_json(who, sections) if as_json else _as_script(who, sections, missing=missing))
    if missing and any(sections.values()):
        raise click.exceptions.Exit(1)


def _look(
    connection: Connection,
    files: Iterable[str],
    source_schema: str | None,
    target_schema: str | None,
    *,
    all_of_them: bool,
) -> list[Tables]:
    """The tables of each mapping.

    One whose legacy table is not in the database is passed over, unless ``all_of_them`` are asked for. A target that is
    not installed yet goes by the name it will have.
    """
    from spine_migrate.db import catalog, privileges
    from spine_migrate.errors import Refused
    from spine_migrate.mapping.load import load, required

    found = []
    for file in files:
        mapping = load(file)
        try:
            source = catalog.find(connection, mapping.source_table, source_schema or mapping.source_schema)
        except Refused:
            if all_of_them:
                raise
            continue
        target = _target(connection, mapping, target_schema)
        parent = required(mapping)
        parents = [_target(connection, parent, target_schema)] if parent is not None else []
        links = [field.target for field in mapping.links if field.column in source.columns]
        reads = [there if isinstance(there, catalog.Name) else there.name for there in parents]
        found.append(privileges.tables(connection, source, target, links=links, reads=reads))
    return found


def _moving(connection: Connection, name: str, kind: str, moves: list[Tables], over: list[Tables]) -> list[Grant]:
    """``over``: what is cut over, where the command needs something else then."""
    from spine_migrate.db import privileges, switch_privileges
    from spine_migrate.db.grant import merged

    if name in _SWITCHES:
        return switch_privileges.for_switch(connection, moves)
    back = privileges.needed(privileges.SYNC_BACK, over) if over else []
    return merged([*back, *(privileges.needed(kind, moves) if moves or not over else [])])


def _cut_over(connection: Connection, mapping: str | None) -> list[Tables]:
    """The tables of what is cut over, under the names that they have since."""
    from spine_migrate.db import catalog, ledger, privileges
    from spine_migrate.mapping.load import load

    name = None if mapping is None else load(mapping).name
    ledger.require(connection)
    return [
        privileges.tables(
            connection,
            catalog.named(connection, one.source_table),
            catalog.named(connection, one.target_table),
        )
        for one in ledger.migrations(connection)
        if one.step == "cutover" and name in (None, one.mapping)
    ]


def _target(connection: Connection, mapping: Mapping, target_schema: str | None) -> Relation | Name:
    from spine_migrate.db import catalog, owners, version_table
    from spine_migrate.errors import Refused

    schema = target_schema or mapping.target_schema or version_table.recorded_target(connection)
    try:
        return catalog.find(connection, mapping.target.name, schema)
    except Refused:
        return catalog.Name(schema or owners.here(connection)[1], mapping.target.name)


def _as_script(role: str, sections: dict[str, list[Grant]], *, missing: bool) -> str:
    """A script for psql: each command's grants under a comment."""
    nothing = "-- nothing is missing" if missing else "-- nothing is needed"
    blocks = []
    for name, found in sections.items():
        lines = [one.statement(role) for one in found] or [nothing]
        blocks.append("\n".join([f"-- {name}", *lines]))
    return "\n\n".join(blocks)


def _as_json(role: str, sections: dict[str, list[Grant]]) -> str:
    commands = {
        name: [
            {
                "kind": one.kind.lower(),
                "object": one.object,
                "privileges": list(one.privileges),
                "columns": list(one.columns),
                "statement": one.statement(role),
            }
            for one in found
        ]
        for name, found in sections.items()
    }
    return json.dumps({"format": 1, "role": role, "commands": commands})
