"""An archive back into a database: all of it in one transaction, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psycopg

from spine_migrate.cutover.archive.catalog import type_named
from spine_migrate.cutover.archive.model import Manifest, Requirement, Table, Type
from spine_migrate.cutover.archive.places import Places
from spine_migrate.cutover.archive.reading import SETTINGS, settle
from spine_migrate.cutover.archive.statements import Statements
from spine_migrate.cutover.archive.streams import Rows, lines
from spine_migrate.cutover.archive.verify import verify
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused, ServerFault


@dataclass(frozen=True)
class Restored:
    """A table, where it is now, and what it had and the archive does not hold."""

    table: Name
    place: Name
    rows: int
    left_out: tuple[str, ...]


def sound(directory: Path, *, report: Callable[[Table], None] = lambda _: None) -> Manifest:
    """The manifest of an archive that has been read whole.

    Raises Refused (``archive-damaged``), and what ``verify`` raises.
    """
    found = verify(directory, report=report)
    if found.manifest is None or not found.sound:
        more = f", and {len(found.damage) - 1} more" if len(found.damage) > 1 else ""
        raise Refused(
            "archive-damaged",
            f"The archive {directory} is damaged: {found.damage[0]}{more}; spine-migrate archive verify lists it all.",
        )
    return found.manifest


def restore(
    connection: Connection,
    directory: Path,
    manifest: Manifest,
    *,
    schema: str | None = None,
    renamed: Mapping[Name, str] = MappingProxyType({}),
    report: Callable[[Restored], None] = lambda _: None,
) -> list[Restored]:
    """Make the tables of a ``sound`` archive anew and load them. ``schema`` and ``renamed``: see ``Places``.

    ``report`` is called with each table whose rows are loaded; they are there when this returns. The connection is idle
    and in autocommit.

    Raises Refused where something is in the way (``table-exists``, ``name-taken``, ``type-differs``) or missing
    (``schema-missing``, ``object-missing``), ConfigurationError as ``Places`` does, Damaged where a file has changed
    since it was verified, psycopg.Error where the server fails.
    """
    places = Places(manifest.tables, schema, renamed)
    restored = []
    with connection.transaction():
        settle(connection, SETTINGS)
        statements = Statements(manifest, places, _present(connection, manifest, places))
        _check(connection, statements)
        for made, statement in statements.types():
            if not _there(connection, made):
                execute(connection, statement)
                for comment in statements.type_comments(made):
                    execute(connection, comment)
        for statement in statements.before():
            execute(connection, statement)
        settle(connection, {"client_encoding": manifest.copy_encoding})
        for table in manifest.tables:
            _load(connection, directory, table, statements)
            restored.append(Restored(table.name, statements.places.table(table.name), table.rows, table.left_out))
            report(restored[-1])
        settle(connection, {"client_encoding": "UTF8"})
        for statement in statements.after():
            execute(connection, statement)
    return restored


def _load(connection: Connection, directory: Path, table: Table, statements: Statements) -> None:
    if table.partition_by is not None:
        return
    total = Rows()
    with connection.cursor() as cursor:
        with cursor.copy(statements.load(table)) as rows:
            for file in table.files:
                for line in lines(directory, file):
                    total.add(line)
                    rows.write(line)
        arrived = cursor.rowcount
    if (arrived, total.digest) != (table.rows, table.rows_digest):
        raise ServerFault(
            f"{table.name} has {table.rows} rows in the archive, {arrived} arrived; nothing was restored."
        )


def _check(connection: Connection, statements: Statements) -> None:
    places = statements.places
    schemas = places.schemas | {one.name.schema for one in statements.manifest.types}
    for schema in sorted(schemas):
        if not _tells(connection, "schema_exists", schema=schema):
            raise Refused(
                "schema-missing", f"There is no schema {schema!r} to restore into; create it, or name another."
            )
    for table in statements.manifest.tables:
        place = places.table(table.name)
        if _taken(connection, place):
            raise Refused(
                "table-exists",
                f"There is a relation {place} already; restore {table.name} into another schema (--schema) or under "
                f"another name (--table).",
            )
    for table in statements.manifest.tables:
        for name in _parts(table, statements):
            if _taken(connection, name):
                raise Refused(
                    "name-taken",
                    f"An index or a sequence of {table.name} would be {name}, which is there already; restore into "
                    f"another schema (--schema).",
                )
    missing = [str(one) for one in statements.manifest.requires if not _is_there(connection, one)]
    if missing:
        raise Refused(
            "object-missing",
            f"The tables need what the database does not have and the archive does not hold: {', '.join(missing)}.",
        )


def _present(connection: Connection, manifest: Manifest, places: Places) -> frozenset[Name]:
    """Sequences that no archived table owns outlive the tables. Those that are still there keep their positions."""
    sequences = [sequence for table in manifest.tables for sequence in table.sequences]
    owned = {sequence.place for sequence in sequences if sequence.how != "used"}
    used = {sequence.place for sequence in sequences} - owned
    return frozenset(
        place
        for place in used
        if _tells(
            connection,
            "sequence_exists",
            schema=places.sequence(place).schema,
            name=places.sequence(place).table,
        )
    )


def _parts(table: Table, statements: Statements) -> list[Name]:
    """The other relations that come with a table: indexes and sequences."""
    places = statements.places
    schema = places.table(table.name).schema
    backed = [one.name for one in table.constraints if one.type in ("primary key", "unique", "exclusion")]
    names = [*backed, *(index.name for index in table.indexes)]
    indexes = [Name(schema, places.part(table.name, name)) for name in names]
    sequences = [one.place for one in table.sequences if one.place not in statements.present]
    return [*indexes, *map(places.sequence, sequences)]


def _there(connection: Connection, made: Type) -> bool:
    """Raises Refused where a type has the same name and is another."""
    if not connection.execute(
        query("archive", "type_oid"), {"schema": made.name.schema, "name": made.name.table}
    ).fetchall():
        return False
    found = type_named(connection, made.name)
    if found is None or (found.kind, found.definition, found.constraints) != (
        made.kind,
        made.definition,
        made.constraints,
    ):
        raise Refused(
            "type-differs",
            f"The {made.kind} {made.name} of the archive is not the type of that name in the database; restore into a "
            f"database that does not have it.",
        )
    return True


def _is_there(connection: Connection, one: Requirement) -> bool:
    try:
        with connection.transaction():
            connection.execute(
                query("archive", "find_object"), {"type": one.type, "names": list(one.names), "args": list(one.args)}
            )
    except psycopg.ProgrammingError:
        return False
    return True


def _taken(connection: Connection, name: Name) -> bool:
    return _tells(connection, "taken", schema=name.schema, name=name.table)


def _tells(connection: Connection, question: str, **parameters: str) -> bool:
    ((told,),) = connection.execute(query("archive", question), parameters).fetchall()
    return bool(told)
