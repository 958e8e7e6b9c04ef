"""Any value comes back as it was: compared by the server's binary images, which no setting of a session changes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
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
    "xml": st.sampled_from(["<a/>", "<a>&amp;</a>", "text <b/>", ""]),
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


@dataclass
class Drawn:
    columns: list[str]
    rows: list[list[str | None]]
    zone: str = "UTC"
    names: list[str] = field(default_factory=list)


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    columns = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=12))
    row = st.tuples(*(st.none() | KINDS[kind] for kind in columns)).map(list)
    zone = draw(st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns"]))
    names = draw(
        st.lists(
            text.filter(lambda name: 0 < len(name.encode()) < 60),
            min_size=len(columns),
            max_size=len(columns),
            unique=True,
        )
    )
    return Drawn(columns, draw(st.lists(row, max_size=6)), zone, names)


@pytest.fixture
def connection(database: Database) -> Any:
    """Of a role whose settings are not ours: an archive does not hang on them."""
    with database.connect_admin(autocommit=True) as admin:
        role = sql.Identifier(database.owner.name)
        for setting in (b"DateStyle = 'SQL, DMY'", b"IntervalStyle = 'sql_standard'", b"bytea_output = 'escape'",
                        b"extra_float_digits = 0", b"xmloption = document"):  # fmt: skip
            admin.execute(sql.SQL("ALTER ROLE {} IN DATABASE {} SET {}").format(
                role, sql.Identifier(database.name), sql.SQL(setting.decode())))  # fmt: skip
    with connect(database.url) as connection:
        yield connection


def _images(connection: Connection, schema: str) -> bytes:
    """All rows in the binary form, in the order in which they were written."""
    statement = sql.SQL("COPY (SELECT * FROM {} ORDER BY n) TO STDOUT (FORMAT binary)")
    with connection.cursor() as cursor, cursor.copy(statement.format(sql.Identifier(schema, "t"))) as rows:
        return b"".join(rows)


def _make(connection: Connection, made: Drawn) -> None:
    for schema in ("one", "two"):
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(f".{name}"), sql.SQL(kind))
        for name, kind in zip(made.names, made.columns, strict=True)
    ]
    connection.execute(sql.SQL("CREATE TABLE one.t (n serial, {})").format(sql.SQL(", ").join(columns)))
    values = sql.SQL(", ").join(sql.SQL("%s::{}").format(sql.SQL(kind)) for kind in made.columns)
    with connection.cursor() as cursor:
        cursor.executemany(
            sql.SQL("INSERT INTO one.t VALUES (DEFAULT, {})").format(values).as_string(connection).encode(), made.rows
        )


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=drawn())
def test_the_binary_images_are_the_same(
    made: Drawn, connection: Connection, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _make(connection, made)
    folder: Path = tmp_path_factory.mktemp("archive")
    connection.execute("SELECT set_config('TimeZone', %s, false)", [made.zone])
    # Some bytes to a file: most rows begin a new one.
    write(connection, [Name("one", "t")], folder / "a", part_bytes=40)
    connection.execute("SET TimeZone = 'Pacific/Apia'")
    restore(connection, folder / "a", sound(folder / "a"), schema="two")
    assert _images(connection, "two") == _images(connection, "one")
    (compared,) = against(connection, sound(folder / "a"), schema="two")
    assert (compared.state, compared.rows_now) == (State.EQUAL, len(made.rows))
    shutil.rmtree(folder)
