"""Any value comes back as it was: compared by the server's binary images, which no setting of a session changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from spine_migrate.cutover.archive.against import State, against
from spine_migrate.cutover.archive.create import write
from spine_migrate.cutover.archive.restore import restore, sound
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection, connect
from tests.database import Database
from tests.values import BY_TYPE, text, to_text

_numbers = st.sampled_from(["NaN", "Infinity", "-Infinity", "0", "-0", "1.10", "1e-300", "-1e300", "0.1"])
_floats = _numbers | st.floats().map(repr)
_intervals = st.builds(
    lambda months, days, micros: f"{months} months {days} days {micros} microseconds",
    st.integers(-(10**6), 10**6),
    st.integers(-(10**6), 10**6),
    st.integers(-(10**15), 10**15),
)
_times = BY_TYPE["timestamptz"].map(to_text) | st.just("0001-12-31 23:59:59.999999+00 BC")
_ranges = st.sampled_from(["empty", "(,)", "[1.50,2.5)", "(,NaN]", "[-1e10,1e10]"])
_arrays = st.sampled_from(["{}", "{NULL}", '{"NULL"}', "{{a,b},{c,d}}", "[2:3]={x,y}", '{"\\\\","\\"",",",""}'])
_json = BY_TYPE["jsonb"].map(to_text) | st.sampled_from(['{"b":  1,"a":2, "a":3}', " null ", '"\\u00e4"', "1.00"])

# A type, and texts of it.
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "text": text,
    "varchar(40)": text,
    "char(12)": text.map(lambda value: value[:12]),
    '"char"': st.sampled_from(["", "a", "\\"]),
    "name": st.sampled_from(["", "A b", '"']),
    "bytea": st.binary(max_size=20).map(lambda value: f"\\x{value.hex()}"),
    "boolean": st.sampled_from(["t", "f"]),
    "smallint": st.integers(-(2**15), 2**15 - 1).map(str),
    "bigint": BY_TYPE["bigint"].map(str),
    "numeric": _numbers | BY_TYPE["numeric"].map(str),
    "numeric(20,6)": st.just("NaN") | BY_TYPE["numeric"].map(str),
    "real": st.floats(width=32).map(repr),
    "double precision": _floats,
    "money": st.integers(-(10**12), 10**12).map(lambda cents: f"{cents / 100:.2f}"),
    "uuid": BY_TYPE["uuid"].map(to_text),
    "json": _json,
    "jsonb": _json,
    "timestamptz": _times,
    "timestamp": BY_TYPE["timestamp"].map(to_text),
    "timestamptz(2)": _times,
    "date": st.sampled_from(["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "2020-02-29"]),
    "timetz": st.sampled_from(["00:00:00+15:59:59", "24:00:00-12", "12:34:56.789012+05:45"]),
    "interval": _intervals,
    "interval day to second(2)": _intervals,
    "numrange": _ranges,
    "nummultirange": st.sampled_from(["{}", "{[1.0,2.0),(3,NaN)}", "{(,)}"]),
    "tstzrange": st.sampled_from(["empty", "[-infinity,infinity]", "[2020-01-01 00:00+05,)"]),
    "text[]": _arrays,
    "jsonb[]": st.sampled_from(["{}", '{"{\\"a\\": 1.0}",null,"null"}']),
    "inet": st.sampled_from(["10.0.0.1/8", "::1", "1.2.3.4"]),
    "macaddr8": st.just("08:00:2b:01:02:03:04:05"),
    "bit(6)": st.just("101010"),
    "bit varying": st.sampled_from(["", "1", "0101"]),
    "tsvector": st.sampled_from(["", "'a b':1A,2 'c'''"]),
    "tsquery": st.sampled_from(["", "'a' & !'b'"]),
    "point": st.sampled_from(["(1e-300,NaN)", "(0.1,-0)"]),
    "polygon": st.just("((0,0),(0.1,1),(1,0))"),
    "box[]": st.just("{(1,1),(0,0);(2,2),(1,1)}"),
    "pg_lsn": st.just("16/B374D848"),
    "jsonpath": st.just('$."a b"[*] ? (@ > 1)'),
    "xid8": st.just("18446744073709551615"),
}


# So few that a failure is soon made small, and each is drawn in every run.
_TOGETHER = 8
GROUPS = [list(KINDS)[start : start + _TOGETHER] for start in range(0, len(KINDS), _TOGETHER)]


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A session with settings that lose something: an archive does not hang on them."""
    with connect(database.url) as connection:
        connection.execute("SET DateStyle = 'SQL, DMY'")
        connection.execute("SET IntervalStyle = 'sql_standard'")
        connection.execute("SET bytea_output = 'escape'")
        connection.execute("SET extra_float_digits = -3")
        connection.execute("SET array_nulls = off")
        yield connection


def _images(connection: Connection, schema: str) -> bytes:
    """All rows in the binary form, in the order in which they were written."""
    statement = sql.SQL("COPY (SELECT * FROM {} ORDER BY n) TO STDOUT (FORMAT binary)")
    with connection.cursor() as cursor, cursor.copy(statement.format(sql.Identifier(schema, "t"))) as rows:
        return b"".join(rows)


def _make(connection: Connection, kinds: list[str], prefix: str, rows: list[tuple[str | None, ...]]) -> None:
    """``one.t``, its columns named by ``prefix`` behind a number; ``two`` is empty."""
    for schema in ("one", "two"):
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(f"{number}{prefix}"), sql.SQL(kind)) for number, kind in enumerate(kinds)
    ]
    connection.execute(sql.SQL("CREATE TABLE one.t (n serial, {})").format(sql.SQL(", ").join(columns)))
    values = sql.SQL(", ").join(sql.SQL("%s::{}").format(sql.SQL(kind)) for kind in kinds)
    with connection.cursor() as cursor:
        cursor.executemany(sql.SQL("INSERT INTO one.t VALUES (DEFAULT, {})").format(values), rows)


@pytest.mark.parametrize("kinds", GROUPS, ids=lambda kinds: kinds[0])
def test_the_binary_images_are_the_same(
    kinds: list[str], connection: Connection, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        prefix=text.filter(lambda name: len(name.encode()) < 60),
        zone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns"]),
        rows=st.lists(st.tuples(*(st.none() | KINDS[kind] for kind in kinds)), max_size=6),
    )
    def check(prefix: str, zone: str, rows: list[tuple[str | None, ...]]) -> None:
        _make(connection, kinds, prefix, rows)
        folder = tmp_path_factory.mktemp("archive")
        connection.execute("SELECT set_config('TimeZone', %s, false)", [zone])
        # Some bytes to a file: most rows begin a new one.
        write(connection, [Name("one", "t")], folder / "a", part_bytes=40)
        connection.execute("SET TimeZone = 'Pacific/Apia'")
        restore(connection, folder / "a", sound(folder / "a"), schema="two")
        assert _images(connection, "two") == _images(connection, "one")
        (compared,) = against(connection, sound(folder / "a"), schema="two")
        assert (compared.state, compared.rows_now) == (State.EQUAL, len(rows))

    check()
