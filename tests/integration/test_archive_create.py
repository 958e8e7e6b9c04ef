"""An archive is written whole, in one snapshot, by whoever may read the tables, or it is not there."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest

from spine_migrate.cutover.archive.against import State, against
from spine_migrate.cutover.archive.create import write
from spine_migrate.cutover.archive.manifest import SCHEMA, read, text
from spine_migrate.cutover.archive.model import Table
from spine_migrate.cutover.archive.restore import sound
from spine_migrate.cutover.archive.verify import verify
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import connect
from spine_migrate.errors import ConfigurationError, Refused
from tests.archives import JOBS, fill, make, put_back
from tests.closed_schema import closed_schema
from tests.database import Database, drop

ONE, TWO = Name("public", "one"), Name("public", "two")


@pytest.fixture
def pair(database: Database) -> Database:
    with database.connect() as connection:
        connection.execute("CREATE TABLE one AS SELECT n, repeat('x', 50) AS note FROM generate_series(1, 1000) AS n")
        connection.execute("CREATE TABLE two AS TABLE one")
    return database


def _left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_manifest_is_as_its_schema_says(database: Database, tmp_path: Path) -> None:
    fill(database)
    manifest = make(database.url, tmp_path / "archive", part_bytes=10)
    content = json.loads((tmp_path / "archive" / "manifest.json").read_text(encoding="utf-8"))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert closed_schema(schema) == schema
    jsonschema.Draft202012Validator(schema).validate(content)
    assert content == json.loads(text(manifest))
    assert read(tmp_path / "archive") == manifest
    assert (content["database"], content["made_by"], content["encoding"]) == (
        database.name, database.owner.name, "UTF8",
    )  # fmt: skip


def test_all_tables_are_of_one_snapshot(pair: Database, tmp_path: Path) -> None:
    """What is committed between two tables is in neither."""

    def meddle(table: Table) -> None:
        if table.name == ONE:
            with pair.connect() as other:
                other.execute("UPDATE two SET note = 'later'")
                other.execute("DELETE FROM two WHERE n > 500")

    with connect(pair.url) as connection:
        manifest = write(connection, [ONE, TWO], tmp_path / "archive", report=meddle)
        assert [table.rows for table in manifest.tables] == [1000, 1000]
        assert manifest.tables[0].rows_digest == manifest.tables[1].rows_digest
        states = [one.state for one in against(connection, manifest)]
    assert states == [State.EQUAL, State.ROWS]


def test_writers_are_not_held_up_and_the_shape_stays(pair: Database, tmp_path: Path) -> None:
    refused = []

    def meddle(_: Table) -> None:
        with pair.connect(autocommit=True) as other:
            other.execute("SET lock_timeout = '100ms'")
            other.execute("INSERT INTO one VALUES (0, '')")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("ALTER TABLE two ADD COLUMN more text")
            refused.append(True)

    with connect(pair.url) as connection:
        write(connection, [ONE, TWO], tmp_path / "archive", report=meddle)
    assert len(refused) == 2


def test_a_table_goes_on_in_a_next_file(pair: Database, tmp_path: Path) -> None:
    (table,) = make(pair.url, tmp_path / "archive", [ONE], part_bytes=10_000).tables
    names = [file.name for file in table.files]
    assert names == [f"0001.one.{number:04}.copy.gz" for number in range(1, 7)]
    assert sum(file.rows for file in table.files) == table.rows == 1000
    content = b"".join(gzip.decompress((tmp_path / "archive" / name).read_bytes()) for name in names)
    assert content == b"".join(b"%d\t%s\n" % (number, b"x" * 50) for number in range(1, 1001))


def test_select_is_enough(database: Database, tmp_path: Path) -> None:
    """Neither the owner nor a superuser; without SELECT it is refused and nothing is there."""
    fill(database)
    reader = database.add_role("reader")
    with database.connect() as owner:
        owner.execute(f"GRANT USAGE ON SCHEMA app TO {reader.name}".encode())
        owner.execute(f"GRANT SELECT ON app.jobs, app.jobs_id_seq TO {reader.name}".encode())
    make(database.url_as(reader), tmp_path / "archive", [JOBS])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        make(database.url_as(reader), tmp_path / "more", [JOBS, Name("app", "events")])
    assert _left(tmp_path) == ["archive"]
    put_back(database.url, tmp_path / "archive", renamed={JOBS: "restored"})


def test_rows_that_a_policy_hides_are_not_passed_over(pair: Database, tmp_path: Path) -> None:
    reader = pair.add_role("reader")
    with pair.connect() as owner:
        owner.execute("ALTER TABLE one ENABLE ROW LEVEL SECURITY")
        owner.execute("CREATE POLICY few ON one USING (n < 10)")
        owner.execute(f"GRANT SELECT ON one TO {reader.name}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        make(pair.url_as(reader), tmp_path / "archive", [ONE])
    manifest = make(pair.url, tmp_path / "archive", [ONE])
    assert (manifest.rows, manifest.tables[0].left_out) == (1000, ("policy few",))


def test_in_the_transaction_of_a_caller(pair: Database, tmp_path: Path) -> None:
    """As a caller needs it that has locked the tables: what it has done is in it, and is still its own to take back."""
    with connect(pair.url, autocommit=False) as connection:
        connection.execute("LOCK TABLE one IN ACCESS EXCLUSIVE MODE")
        connection.execute("DELETE FROM one WHERE n > 10")
        connection.execute("SET LOCAL search_path = public")
        manifest = write(connection, [ONE], tmp_path / "archive")
        assert [(one.state, one.rows_now) for one in against(connection, manifest)] == [(State.EQUAL, 10)]
        connection.execute("DROP TABLE one")
        connection.rollback()
        assert [one.rows_now for one in against(connection, manifest)] == [1000]


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_a_place_that_is_taken(pair: Database, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "archive"
    match kind:
        case "directory":
            place.mkdir()
        case "file":
            place.touch()
        case _:
            place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="is there already"):
        make(pair.url, place, [ONE])
    assert _left(tmp_path) == ["archive"]


def test_a_place_that_cannot_be_written(pair: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for parent in ("none", "file"):
        with pytest.raises(ConfigurationError, match=r"cannot be written: .*; nothing of it is there"):
            make(pair.url, tmp_path / parent / "archive", [ONE])
    assert _left(tmp_path) == ["file"]


_WITH_LITTLE_SPACE = """
import resource, signal, sys
from pathlib import Path
from spine_migrate.db.catalog import Name
from spine_migrate.errors import ConfigurationError
from tests.archives import make

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    make(sys.argv[1], Path(sys.argv[2]), [Name("public", "one")])
except ConfigurationError as error:
    print(error)
"""


def test_a_file_that_cannot_grow(pair: Database, tmp_path: Path) -> None:
    """As on a full disk."""
    program = [sys.executable, "-c", _WITH_LITTLE_SPACE, pair.url, str(tmp_path / "archive")]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    assert done.stdout == f"The archive {tmp_path}/archive cannot be written: File too large; nothing of it is there.\n"
    assert _left(tmp_path) == []


def test_what_a_killed_run_has_left_is_taken_over(pair: Database, tmp_path: Path) -> None:
    left = tmp_path / ".archive.partial"
    left.mkdir()
    (left / "0001.one.0001.copy.gz").write_bytes(b"half")
    (left / "9999.other.copy.gz").write_bytes(b"half")
    make(pair.url, tmp_path / "archive", [ONE])
    assert _left(tmp_path) == ["archive"]
    assert verify(tmp_path / "archive").sound


def test_two_at_once(pair: Database, tmp_path: Path) -> None:
    """The one that is at work keeps its place."""
    busy = tmp_path / ".archive.partial"
    busy.mkdir()
    (busy / "0001.one.0001.copy.gz").write_bytes(b"half")
    descriptor = os.open(busy, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(Refused) as refused:
            make(pair.url, tmp_path / "archive", [ONE])
    finally:
        os.close(descriptor)
    assert refused.value.precondition == "archive-busy"
    assert _left(busy) == ["0001.one.0001.copy.gz"]


def test_a_server_that_fails_leaves_nothing(pair: Database, tmp_path: Path) -> None:
    """A value that cannot be read, in the second table."""

    def cut(_: Table) -> None:
        with pair.connect_admin(autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    with connect(pair.url) as connection, pytest.raises(psycopg.OperationalError):
        write(connection, [ONE, TWO], tmp_path / "archive", report=cut)
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    ("made", "precondition"),
    [(None, "table-missing"), (b"CREATE VIEW v AS SELECT 1", "not-a-table")],
)
def test_what_is_no_table(pair: Database, tmp_path: Path, made: bytes | None, precondition: str) -> None:
    if made is not None:
        with pair.connect() as connection:
            connection.execute(made)
    with pytest.raises(Refused) as refused:
        make(pair.url, tmp_path / "archive", [ONE, Name("public", "v")])
    assert refused.value.precondition == precondition
    assert _left(tmp_path) == []


def test_bytes_that_are_no_text(database: Database, tmp_path: Path, server_url: str) -> None:
    """A database without an encoding may hold what is valid in none; it comes back byte by byte."""
    name = f"{database.name}_ascii"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
            f" OWNER {database.owner.name}".encode()
        )
        try:
            url = Database(name, database.server_url, database.owner).url
            with psycopg.connect(url, client_encoding="SQL_ASCII") as connection:
                connection.execute("CREATE TABLE one (a text)")
                connection.execute("INSERT INTO one VALUES (E'\\xff\\xc3'), (E'\\xe4')")
            manifest = make(url, tmp_path / "archive", [ONE])
            assert manifest.copy_encoding == "SQL_ASCII"
            put_back(url, tmp_path / "archive", renamed={ONE: "back"})
            with psycopg.connect(url, client_encoding="SQL_ASCII") as connection:
                rows: list[Any] = connection.execute(
                    "SELECT convert_to(a, 'SQL_ASCII') FROM back ORDER BY 1"
                ).fetchall()
            assert [bytes(value) for (value,) in rows] == [b"\xe4", b"\xff\xc3"]
        finally:
            drop(admin, name)


_PEAK = """
import re, sys
from pathlib import Path
from spine_migrate.cutover.archive.verify import verify
from spine_migrate.db.catalog import Name
from tests.archives import make, put_back

directory, table = Path(sys.argv[2]), Name("public", sys.argv[3])
make(sys.argv[1], directory, [table])
assert verify(directory).sound
put_back(sys.argv[1], directory, renamed={table: table.table + "_2"})
# Of this process alone: getrusage begins with what its parent had when it was started.
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_the_table(pair: Database, tmp_path: Path) -> None:
    """Written, verified and restored: 50 kB against 40 MB of text, of which less than a fifth may be felt."""
    with pair.connect() as connection:
        connection.execute(
            "CREATE TABLE large AS SELECT n, repeat(md5(n::text), 12) AS note FROM generate_series(1, 100000) AS n"
        )
    peaks = []
    for table in ("one", "large"):
        program = [sys.executable, "-c", _PEAK, pair.url, str(tmp_path / table), table]
        done = subprocess.run(program, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout))
    assert sum(table.files[0].stream_bytes for table in sound(tmp_path / "large").tables) > 38_000_000
    assert peaks[1] - peaks[0] < 8_000
