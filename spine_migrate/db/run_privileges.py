"""Which privileges the commands about runs need, as GRANT statements; see ``privileges`` for those of a migration."""

from __future__ import annotations

from collections.abc import Iterator

from spine_migrate.db import catalog, version_table
from spine_migrate.db.catalog import Name, Relation
from spine_migrate.db.connect import Connection
from spine_migrate.db.grant import Grant, merged
from spine_migrate.db.owners import here, owner_of, pointing_to
from spine_migrate.db.privileges import LEDGER
from spine_migrate.errors import Refused

LIST, CANCEL, PURGE, INDEX = "runs list", "runs cancel", "runs purge", "runs index"
RELAY = "worker-relay"
#: The last is no command: an application whose old tasks go through the dispatcher, on top of what its runs need.
SHIM_REPORT, SHIM_MODE, SHIM_SHADOW, SHIM_PURGE = "shims report", "shims mode", "shims shadow", "shims purge"
SHIMS = "shims"
COMMANDS = (LIST, CANCEL, PURGE, INDEX, RELAY, SHIM_REPORT, SHIM_MODE, SHIM_SHADOW, SHIM_PURGE, SHIMS)
#: What needs the same as one of them.
ALIKE = {"runs show": LIST, "runs retry": CANCEL, "runs reprocess": CANCEL, "compare-backends": CANCEL}

_READ = ("SELECT",)
_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    LIST: {"runs": _READ, "run_events": _READ, "run_handoff": _READ},
    CANCEL: {
        "runs": ("SELECT", "INSERT", "UPDATE"),
        "run_events": ("SELECT", "INSERT"),
        "run_handoff": ("SELECT", "INSERT", "UPDATE"),
    },
    PURGE: {
        "runs": ("SELECT", "DELETE"),
        "run_events": ("SELECT", "DELETE"),
        "run_handoff": ("SELECT", "DELETE"),
    },
    INDEX: {},
    RELAY: {
        "runs": ("SELECT", "UPDATE"),
        "run_events": ("SELECT", "INSERT"),
        "run_handoff": ("SELECT", "UPDATE"),
    },
    SHIM_REPORT: {"shim_call": _READ, "shim_worker": _READ},
    SHIM_MODE: {"shim_mode": ("SELECT", "INSERT", "UPDATE", "DELETE"), "shim_worker": _READ},
    SHIM_SHADOW: {"runs": _READ, "run_events": _READ},
    SHIM_PURGE: {"shim_call": ("SELECT", "DELETE"), "shim_worker": ("SELECT", "INSERT", "UPDATE", "DELETE")},
    SHIMS: {
        "shim_mode": _READ,
        "shim_call": ("SELECT", "INSERT", "UPDATE"),
        "shim_worker": ("SELECT", "INSERT", "UPDATE"),
    },
}
#: What ended elsewhere is claimed before it is marked.
_SEQUENCES: dict[str, dict[str, tuple[str, ...]]] = {RELAY: {"run_fence": ("USAGE",)}}
_LEDGER_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    PURGE: {"migration": _READ, "audit": ("INSERT",)},
    INDEX: {"migration": _READ, "deferred_ddl": _READ},
    SHIM_MODE: {"audit": ("INSERT",)},
    SHIM_PURGE: {"audit": ("INSERT",)},
}
# A lock on a row asks for UPDATE of any column; this one nobody changes.
_LOCKED = ("runs", "run_handoff")


def needed(connection: Connection, command: str, target_schema: str | None) -> list[Grant]:
    """The grants for one of ``COMMANDS``; tables that are not there yet go by the name they will have."""
    schema = target_schema or version_table.recorded_target(connection)
    try:
        runs: Relation | Name = catalog.find(connection, "runs", schema)
    except Refused:
        runs = Name(schema or here(connection)[1], "runs")
    return merged(_needed(connection, command, runs))


def _needed(connection: Connection, command: str, runs: Relation | Name) -> Iterator[Grant]:
    schema = (runs if isinstance(runs, Name) else runs.name).schema
    yield Grant("SCHEMA", (schema,), ("USAGE",))
    yield from _each("TABLE", schema, _TABLES[command])
    yield from _each("SEQUENCE", schema, _SEQUENCES.get(command, {}))
    if command == PURGE:
        for table in _LOCKED:
            yield Grant("TABLE", (schema, table), ("UPDATE",), ("run_id",))
        if isinstance(runs, Relation):
            for name, _ in pointing_to(connection, runs):
                yield Grant("SCHEMA", (name.schema,), ("USAGE",))
                yield Grant("TABLE", (name.schema, name.table), _READ)
    if command == INDEX:
        yield Grant("SCHEMA", (schema,), ("CREATE",))
        owner = owner_of(connection, runs) if isinstance(runs, Relation) else None
        if owner is not None:
            yield Grant("ROLE", (owner.name,), superuser=owner.superuser)
    if command in _LEDGER_TABLES:
        yield Grant("SCHEMA", (LEDGER,), ("USAGE",))
        yield from _each("TABLE", LEDGER, _LEDGER_TABLES[command])


def _each(kind: str, schema: str, privileges: dict[str, tuple[str, ...]]) -> Iterator[Grant]:
    for name, held in privileges.items():
        yield Grant(kind, (schema, name), held)
