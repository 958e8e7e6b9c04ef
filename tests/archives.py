"""Tables with all that an archive has to hold, and a second database to restore into."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from spine_migrate.cutover.archive.create import PART_BYTES, write
from spine_migrate.cutover.archive.model import Manifest
from spine_migrate.cutover.archive.restore import Restored, restore, sound
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import connect
from spine_migrate.db.embedded import bundled_binaries

ODD = Name("app", 'Odd "table"; -- name')
EVENTS = Name("app", "events")
PARENT = Name("app", "base")
PLAIN = Name("app", "jobs")
NOTHING = Name("app", "nothing")
TABLES = [EVENTS, ODD, PARENT, PLAIN, NOTHING]

WILD = Path(__file__).with_name("archived.sql").read_bytes()
# What must be there before the tables of WILD can be restored into an empty database.
SURROUNDINGS = """
CREATE SCHEMA app;
CREATE SCHEMA "Some types";
CREATE FUNCTION app.twice(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
"""


def make(url: str, directory: Path, tables: Sequence[Name] = TABLES, *, part_bytes: int = PART_BYTES) -> Manifest:
    with connect(url) as connection:
        return write(connection, tables, directory, part_bytes=part_bytes)


def put_back(url: str, directory: Path, **options: object) -> list[Restored]:
    with connect(url) as connection:
        return restore(connection, directory, sound(directory), **options)  # type: ignore[arg-type] # as restore has them


def dumped(url: str, *options: str) -> list[str]:
    """What pg_dump says of a database, in its parts, without what is random in it; in no order of the catalog's."""
    done = subprocess.run(
        [bundled_binaries(18) / "pg_dump", "--no-owner", "--no-privileges", *options, url],
        check=True,
        capture_output=True,
        text=True,
    )
    text = re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)
    return sorted(text.split("\n\n"))

