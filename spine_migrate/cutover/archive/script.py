"""``schema.sql``: an archive as a script for psql, for a reader who has nothing but PostgreSQL and gzip."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from spine_migrate.cutover.archive.model import Manifest, Table
from spine_migrate.cutover.archive.places import Places
from spine_migrate.cutover.archive.reading import SETTINGS
from spine_migrate.cutover.archive.statements import Statements, copy


def script(manifest: Manifest) -> str:
    return "\n".join(_lines(manifest)) + "\n"


def _lines(manifest: Manifest) -> Iterator[str]:
    statements = Statements(manifest, Places(manifest.tables))
    yield _remark(f"Tables of the database {manifest.snapshot.database} as of {manifest.snapshot.made_at.isoformat()},")
    yield _remark(f"PostgreSQL {manifest.snapshot.server_version}, spine-migrate {manifest.tool_version}.")
    yield "-- In this directory, psql -X -f schema.sql makes them anew with their rows, in one transaction."
    yield "-- Nothing is checked by it; spine-migrate archive restore does the same and checks."
    for one in manifest.requires:
        yield _remark(f"Must be there: {one}")
    for table in manifest.tables:
        for part in table.left_out:
            yield _remark(f"Not held, of {table.name}: {part}")
    yield "\\set ON_ERROR_STOP on"
    yield "BEGIN;"
    for name, value in (SETTINGS | {"client_encoding": manifest.copy_encoding}).items():
        yield _text(sql.SQL("SELECT pg_catalog.set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value)))
    for _, statement in statements.types():
        yield _text(statement)
    yield from map(_text, statements.before())
    for table in manifest.tables:
        yield from _load(table)
    yield from map(_text, statements.after())
    for one_type in manifest.types:
        yield from map(_text, statements.type_comments(one_type))
    yield "COMMIT;"


def _load(table: Table) -> Iterator[str]:
    r"""A copy by psql ends with its line, whatever is quoted in it (psql manual, \copy)."""
    for file in table.files:
        program = sql.SQL("FROM PROGRAM {}").format(sql.Literal(f"gzip -dc {file.name}"))
        command = copy(table.name, table, sql.SQL(program.as_string(None))).as_string(None)
        if "\n" in command or "\r" in command:
            yield f"\\warn '{file.name} cannot be loaded by psql: a name has a line feed'"
        else:
            yield f"\\copy {command.removeprefix('COPY ')}"


def _text(statement: sql.Composed) -> str:
    return f"{statement.as_string(None)};"


def _remark(text: str) -> str:
    return f"-- {' '.join(text.split())}"
