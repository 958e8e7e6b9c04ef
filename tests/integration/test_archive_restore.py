"""What comes back from an archive is what went in: tables, types, positions and rows, or nothing at all."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from spine_migrate.cutover.archive.against import State, against
from spine_migrate.cutover.archive.manifest import Damaged
from spine_migrate.cutover.archive.restore import restore, sound
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import connect
from spine_migrate.errors import ConfigurationError, Refused
from tests.archives import CLIENT, EVENTS, JOBS, ODD, TABLES, dumped, elsewhere, fill, make, put_back, relations
from tests.database import Database

# pg_dump tells a column that is only its parent's from one that is the child's too; a restore makes the latter.
_BUT_THE_CHILD = ("--exclude-table=app.child",)


@pytest.fixture
def archive(database: Database, tmp_path: Path) -> Path:
    fill(database)
    directory = tmp_path / "archive"
    make(database.url, directory)
    return directory


def _rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_pg_dump_finds_no_difference_in_another_database(database: Database, archive: Path) -> None:
    """Schema and rows: types, defaults, identities and serials with their positions, constraints, indexes, partitions,
    generated columns, comments, odd names and odd values.
    """
    with elsewhere(database) as other:
        restored = put_back(other.url, archive)
        assert dumped(other.url, *_BUT_THE_CHILD) == dumped(database.url, *_BUT_THE_CHILD)
        assert _rows(other.url, "TABLE ONLY app.child") == _rows(database.url, "TABLE ONLY app.child")
        assert _rows(other.url, "SELECT id FROM app.base ORDER BY id") == [(1,), (2,)]
        with connect(other.url) as connection:
            assert {one.state for one in against(connection, sound(archive))} == {State.EQUAL}
    assert sum(one.rows for one in restored) == 3 + 3 + 1 + 1 + 3 + 2
    assert [one.left_out for one in restored if one.left_out] == [
        ('foreign key jobs_feed_id_fkey to "app"."feeds", which is not in the archive',)
    ]


def test_psql_alone_restores_it_too(database: Database, archive: Path) -> None:
    """``schema.sql`` needs nothing of this tool."""
    with elsewhere(database) as other:
        command = [str(CLIENT / "psql"), "-X", "-q", "-f", "schema.sql", other.url]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=archive)
        assert (done.returncode, done.stderr) == (0, "")
        assert dumped(other.url, *_BUT_THE_CHILD) == dumped(database.url, *_BUT_THE_CHILD)


def test_beside_the_tables_that_are_there(database: Database, archive: Path) -> None:
    """In another schema under other names: nothing of the old tables is used by the new ones, or changed."""
    before = dumped(database.url, "--schema=app")
    with database.connect(autocommit=True) as connection:
        connection.execute("CREATE SCHEMA again")
    put_back(database.url, archive, schema="again", renamed={JOBS: "old jobs"})
    assert dumped(database.url, "--schema=app") == before
    with database.connect(autocommit=True) as connection:
        made = connection.execute('INSERT INTO again."old jobs" (parent) VALUES (3) RETURNING id').fetchone()
        assert made == (4,)
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="old jobs"):
            connection.execute('INSERT INTO again."old jobs" (parent) VALUES (99)')
        statement = sql.SQL("INSERT INTO again.{} (code) VALUES ('new') RETURNING {}, shared")
        odd, key = sql.Identifier(ODD.table), sql.Identifier('A "key"')
        assert connection.execute(statement.format(odd, key)).fetchone() == (25, -8)
    assert _rows(database.url, "SELECT last_value FROM app.jobs_id_seq") == [(3,)]
    assert {name for name in relations(database) if "old jobs" in name} == {
        f'again."old jobs{rest}' for rest in ('"', '"[]', '_id_seq"', '_pkey"', '_feed"')
    }


def test_under_another_name_beside_itself(database: Database, tmp_path: Path) -> None:
    """Indexes, constraints and sequences follow the name, so nothing is taken."""
    fill(database)
    with database.connect() as connection:
        connection.execute("CREATE INDEX ix_jobs_parent ON app.jobs (parent)")
    make(database.url, tmp_path / "archive", [JOBS])
    put_back(database.url, tmp_path / "archive", renamed={JOBS: "jobs_2026"})
    with connect(database.url) as connection:
        manifest = sound(tmp_path / "archive")
        assert [one.state for one in against(connection, manifest, renamed={JOBS: "jobs_2026"})] == [State.EQUAL]
    assert {"app.jobs_2026_id_seq", "app.jobs_2026_pkey", "app.jobs_2026_feed", "app.ix_jobs_2026_parent"} <= relations(
        database
    )


@pytest.mark.parametrize(
    ("spoil", "precondition", "words"),
    [
        (b"CREATE VIEW app.jobs AS SELECT 1", "table-exists", '"app"."jobs" already'),
        (b"CREATE SEQUENCE app.jobs_id_seq", "name-taken", '"app"."jobs_id_seq"'),
        (b"CREATE TABLE app.x (a integer CONSTRAINT events_rest_pkey PRIMARY KEY)", "name-taken", '"events_rest_pkey"'),
        (b'DROP SCHEMA "Some types"', "schema-missing", "'Some types'"),
        (b"DROP FUNCTION app.twice", "object-missing", "function app.twice(integer)"),
        (b"CREATE TYPE app.status AS ENUM ('on')", "type-differs", 'enum "app"."status"'),
        (b"CREATE TYPE app.status AS (a integer)", "type-differs", 'enum "app"."status"'),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() and " " not in value else None,
)
def test_what_is_in_the_way_or_missing_is_refused(
    database: Database, archive: Path, spoil: bytes, precondition: str, words: str
) -> None:
    with elsewhere(database) as other:
        with other.connect() as connection:
            connection.execute(spoil)
        before = relations(other)
        with pytest.raises(Refused) as refused:
            put_back(other.url, archive)
        assert (refused.value.precondition, words in refused.value.sentence) == (precondition, True)
        assert relations(other) == before


def test_types_that_are_there_already_are_used(database: Database, archive: Path) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute("CREATE SCHEMA again")
    before = _rows(database.url, "SELECT count(*) FROM pg_type WHERE typtype IN ('e', 'd', 'r')")
    put_back(database.url, archive, schema="again")
    assert _rows(database.url, "SELECT count(*) FROM pg_type WHERE typtype IN ('e', 'd', 'r')") == before


def test_a_sequence_that_outlives_the_table_goes_on(database: Database, archive: Path) -> None:
    """No table owns it, so others may use it: it is not made anew, and not set back."""
    with database.connect() as connection:
        connection.execute("DROP TABLE app.events")
        connection.execute(sql.SQL("DROP TABLE {}").format(ODD.identifier))
        connection.execute("SELECT setval('app.shared', -50)")
    directory = archive.with_name("odd")
    with elsewhere(database) as other:
        put_back(other.url, archive)
        make(other.url, directory, [ODD])
    put_back(database.url, directory)
    assert _rows(database.url, "SELECT last_value FROM app.shared") == [(-50,)]
    with database.connect() as connection:
        statement = sql.SQL("INSERT INTO {} (code) VALUES ('new') RETURNING shared").format(ODD.identifier)
        assert connection.execute(statement).fetchone() == (-53,)


def test_names_that_cannot_be(database: Database, archive: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'would both be "app"\."events"'):
        put_back(database.url, archive, renamed={JOBS: "events"})
    with pytest.raises(ConfigurationError, match="longer than 63 bytes"):
        put_back(database.url, archive, renamed={JOBS: "x" * 64})


def test_what_changes_behind_the_verification_leaves_nothing(database: Database, archive: Path) -> None:
    """Rows are checked once more while they are loaded; a failure behind the last row takes everything back."""
    manifest = sound(archive)
    (file,) = next(table for table in manifest.tables if table.name == JOBS).files
    content = gzip.decompress((archive / file.name).read_bytes())
    (archive / file.name).write_bytes(gzip.compress(content.replace(b"3\t", b"4\t")))
    with elsewhere(database) as other:
        before = relations(other)
        with connect(other.url) as connection, pytest.raises(Damaged, match="does not hold the rows that were written"):
            restore(connection, archive, manifest)
        assert relations(other) == before


def test_a_damaged_archive_is_refused(database: Database, archive: Path) -> None:
    os.truncate(archive / "schema.sql", 10)
    with pytest.raises(Refused) as refused:
        put_back(database.url, archive)
    assert refused.value.precondition == "archive-damaged"
    assert "schema.sql has 10 bytes, the manifest says" in refused.value.sentence


def test_a_constraint_that_does_not_hold_any_more_takes_everything_back(database: Database, archive: Path) -> None:
    """The last statements of a restore can fail too: here the function of a check says something else now."""
    with database.connect() as connection:
        connection.execute("CREATE FUNCTION app.fine(integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'")
        connection.execute("CREATE TABLE app.checked (a integer CHECK (app.fine(a)))")
        connection.execute("INSERT INTO app.checked VALUES (1)")
    directory = archive.with_name("checked")
    make(database.url, directory, [Name("app", "checked")])
    never = b"CREATE FUNCTION app.fine(integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false'"
    with elsewhere(database, surroundings=b"CREATE SCHEMA app;" + never) as other:
        before = relations(other)
        with pytest.raises(psycopg.errors.CheckViolation):
            put_back(other.url, directory)
        assert relations(other) == before


def test_a_partition_alone_is_a_table(database: Database, archive: Path) -> None:
    rest = Name("app", "events_rest")
    directory = archive.with_name("partition")
    manifest = make(database.url, directory, [rest])
    assert [(table.name, table.rows) for table in manifest.tables] == [(rest, 1)]
    assert "its place under a parent that is not in the archive" in manifest.tables[0].left_out
    put_back(database.url, directory, renamed={rest: "rest"})
    assert _rows(database.url, "SELECT id FROM app.rest") == [(3,)]


def test_archives_of_a_restored_database_hold_the_same_rows(database: Database, archive: Path) -> None:
    """Once more through an archive: every definition and every digest of rows is a fixed point."""
    first = sound(archive)
    with elsewhere(database) as other:
        put_back(other.url, archive)
        second = make(other.url, archive.with_name("again"))
    assert {table.name for table in first.tables} >= {EVENTS, *TABLES}
    for one, two in zip(first.tables, second.tables, strict=True):
        assert (one.name, one.columns, one.indexes, one.sequences, one.rows, one.rows_digest) == (
            two.name, two.columns, two.indexes, two.sequences, two.rows, two.rows_digest,
        )  # fmt: skip
    assert (first.types, first.requires) == (second.types, second.requires)


# Each from the version of the server on that knows it.
_NEWER = {
    140000: """
        CREATE DOMAIN later AS integer;
        CREATE TABLE of_domain (a later);
        INSERT INTO of_domain VALUES (-1);
        ALTER DOMAIN later ADD CONSTRAINT positive CHECK (VALUE > 0) NOT VALID;
        CREATE TABLE shared_identity (id integer GENERATED BY DEFAULT AS IDENTITY, b text) PARTITION BY LIST (b);
        CREATE TABLE shared_identity_x PARTITION OF shared_identity FOR VALUES IN ('x', NULL);
        CREATE TABLE hashed (a integer REFERENCES keys ON DELETE CASCADE) PARTITION BY HASH (a);
        CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO hashed VALUES (1), (2), (3);
        CREATE UNLOGGED TABLE not_logged (a integer);
        CREATE INDEX gin ON not_logged USING gin ((ARRAY[a]::integer[])) WITH (fastupdate = off);
        CREATE INDEX brin ON not_logged USING brin (a int4_minmax_multi_ops);
        INSERT INTO shared_identity (b) VALUES ('x'), (NULL);
    """,
    150000: """
        CREATE TABLE one_null (a integer UNIQUE NULLS NOT DISTINCT, b integer);
        CREATE UNIQUE INDEX one_null_b ON one_null (b) NULLS NOT DISTINCT;
        INSERT INTO one_null VALUES (NULL, NULL), (1, 1);
    """,
    180000: """
        CREATE TABLE computed (a integer, b integer GENERATED ALWAYS AS (a * 2) VIRTUAL);
        INSERT INTO computed VALUES (1), (NULL);
        CREATE TABLE not_null_later (a integer, b integer);
        INSERT INTO not_null_later VALUES (NULL);
        ALTER TABLE not_null_later ADD CONSTRAINT some_day NOT NULL a NOT VALID,
            ADD CONSTRAINT said CHECK (b > 0) NOT ENFORCED;
        CREATE TABLE times (a int4range, "d ur" daterange, PRIMARY KEY (a, "d ur" WITHOUT OVERLAPS));
        INSERT INTO times VALUES ('[1,2)', '[2020-01-01,2021-01-01)');
        CREATE TABLE "in times" (a int4range, "REFERENCES (x)" daterange,
            FOREIGN KEY (a, PERIOD "REFERENCES (x)") REFERENCES times (a, PERIOD "d ur"));
        INSERT INTO "in times" VALUES ('[1,2)', '[2020-02-01,2020-03-01)');
    """,
}


def test_what_newer_servers_know(database: Database, tmp_path: Path) -> None:
    """And what is rare: positions shared with partitions, keys of partitions, tables without WAL, late checks."""
    with database.connect() as connection:
        connection.execute("CREATE TABLE keys (a integer PRIMARY KEY)")
        connection.execute("INSERT INTO keys SELECT generate_series(1, 3)")
        for version, statements in _NEWER.items():
            if connection.info.server_version >= version:
                connection.execute(statements.encode())
        roots = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition"
        ).fetchall()
    make(database.url, tmp_path / "archive", [Name("public", name) for (name,) in roots])
    with elsewhere(database, surroundings=b"SELECT 1") as other:
        put_back(other.url, tmp_path / "archive")
        assert dumped(other.url) == dumped(database.url)
        assert _rows(other.url, "INSERT INTO shared_identity (b) VALUES ('x') RETURNING id") == [(3,)]
