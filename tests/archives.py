"""Tables with all that an archive has to hold, archives of them, and what they are compared by."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spine_migrate.cutover.archive.create import PART_BYTES, write
from spine_migrate.cutover.archive.model import Manifest
from spine_migrate.cutover.archive.restore import Restored, restore, sound
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import connect
from spine_migrate.db.embedded import bundled_binaries
from tests.database import Database, fresh_database

ODD = Name("app", 'Odd "table"; -- name')
EVENTS = Name("app", "events")
JOBS = Name("app", "jobs")
TABLES = [EVENTS, ODD, Name("app", "base"), JOBS, Name("app", "nothing")]
# What must be there before they can be restored.
SURROUNDINGS = b"""
CREATE SCHEMA app;
CREATE SCHEMA "Some types";
CREATE FUNCTION app.twice(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
"""
CLIENT = bundled_binaries(18)


def fill(database: Database) -> None:
    """The tables of ``archived.sql``, and one more that a foreign key leads to."""
    with database.connect() as connection:
        connection.execute(Path(__file__).with_name("archived.sql").read_bytes())


@contextmanager
def elsewhere(database: Database, *, surroundings: bytes = SURROUNDINGS) -> Iterator[Database]:
    """A second database of the same owner."""
    with fresh_database(database.server_url, f"{database.name}_2", database.owner) as other:
        with other.connect() as connection:
            connection.execute(surroundings)
        yield other


def make(url: str, directory: Path, tables: Sequence[Name] = TABLES, *, part_bytes: int = PART_BYTES) -> Manifest:
    with connect(url) as connection:
        return write(connection, tables, directory, part_bytes=part_bytes)


def put_back(url: str, directory: Path, **options: Any) -> list[Restored]:
    with connect(url) as connection:
        return restore(connection, directory, sound(directory), **options)


def dumped(url: str, *options: str) -> list[str]:
    """What pg_dump says of a database, sorted, without what is random in it, without the table that is not archived and
    the key to it, and without names of NOT NULL constraints.
    """
    program = [str(CLIENT / "pg_dump"), "--no-owner", "--no-privileges", "--exclude-table=app.feeds"]
    done = subprocess.run([*program, *options, url], check=True, capture_output=True, text=True)
    # Debian's 15.20 gives every new column an option, pg_attver, with a number of its own.
    random = re.compile(r"\\(un)?restrict |ALTER TABLE ONLY .* SET \(pg_attver=\d+\);")
    kept = [line for line in done.stdout.splitlines() if not random.match(line)]
    parts = re.sub(r" CONSTRAINT \S+ NOT NULL", " NOT NULL", "\n".join(kept)).split("\n\n")
    return sorted(part for part in parts if "jobs_feed_id_fkey" not in part)


def relations(database: Database) -> set[str]:
    """Everything that a restore could leave behind."""
    with database.connect() as connection:
        rows = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|inform)'"
            " UNION ALL"
            " SELECT oid::regtype::text FROM pg_type WHERE typnamespace::regnamespace::text !~ '^(pg_|inform)'"
        ).fetchall()
    return {name for (name,) in rows}
