"""Tables into an archive: one snapshot, constant memory, whole or not there."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from psycopg.rows import class_row

from spine_migrate import __version__
from spine_migrate.cutover.archive import manifest as manifests
from spine_migrate.cutover.archive.catalog import describe
from spine_migrate.cutover.archive.directory import building, put
from spine_migrate.cutover.archive.model import File, Manifest, Snapshot, Table
from spine_migrate.cutover.archive.reading import lines, settle, snapshot
from spine_migrate.cutover.archive.script import script
from spine_migrate.cutover.archive.streams import Rows, Writer, hashed
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query

# Of a data file before it is compressed: what is damaged or copied again is never more than this.
PART_BYTES = 1 << 30

_PLAIN = re.compile(r"[^a-z0-9_]+")


def write(
    connection: Connection,
    tables: Sequence[Name],
    directory: Path,
    *,
    part_bytes: int = PART_BYTES,
    report: Callable[[Table], None] = lambda _: None,
) -> Manifest:
    """Put the tables, with their partitions and children, into a new archive. Reads only.

    The connection is idle and in autocommit, or in a transaction of the caller's, which is then read as it is: in one
    snapshot only where that is REPEATABLE READ, or has locked the tables against writers.
    ``part_bytes`` is the size before compression at which a table goes on in a next file; ``report`` is called with
    each table that is done.

    Raises ConfigurationError where the directory is there already or cannot be written, Refused as ``describe`` and
    ``building`` do, psycopg.Error where the server fails. Whatever is raised, nothing is left of the archive.
    """
    with building(directory) as folder, snapshot(connection, list(tables)):
        with connection.cursor(row_factory=class_row(Snapshot)) as cursor:
            taken = cursor.execute(query("archive", "snapshot")).fetchall()[0]
        # What such a database holds may be no text in any encoding; it comes and goes as it is.
        encoding = "SQL_ASCII" if taken.encoding == "SQL_ASCII" else "UTF8"
        described = describe(connection, tables)
        settle(connection, {"client_encoding": encoding})
        held = []
        for number, table in enumerate(described.tables, start=1):
            held.append(_table(connection, table, folder, number, part_bytes))
            report(held[-1])
        made = Manifest(
            tool_version=__version__,
            snapshot=taken,
            copy_encoding=encoding,
            script=(0, ""),
            types=described.types,
            requires=described.requires,
            tables=tuple(held),
        )
        put(folder / manifests.SCRIPT, script(made))
        made = replace(made, script=hashed(folder / manifests.SCRIPT))
        put(folder / manifests.NAME, manifests.text(made))
    return made


def _table(connection: Connection, table: Table, folder: Path, number: int, part_bytes: int) -> Table:
    if table.partition_by is not None:
        return table
    total, files = Rows(), list[File]()
    stem = f"{number:04}.{_PLAIN.sub('-', table.name.table.lower())[:40]}"
    writer = Writer(folder / f"{stem}.0001.copy.gz")
    try:
        for line in lines(connection, table.name, table):
            if writer.stream_bytes >= part_bytes:
                files.append(writer.close())
                writer = Writer(folder / f"{stem}.{len(files) + 1:04}.copy.gz")
            writer.add(line)
            total.add(line)
        files.append(writer.close())
    except BaseException:
        writer.abandon()
        raise
    return replace(table, rows=total.count, rows_digest=total.digest, files=tuple(files))
