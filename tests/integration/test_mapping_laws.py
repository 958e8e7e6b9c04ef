"""A whole mapping means the same on the server and in Python, and is a lens: what comes back is what went in.

For the shipped mappings and for mappings composed at random, rows are put into a real table. Forward, judge and inverse
are then compared, and the two laws checked: inverse(forward(row)) == row for every column that no rule drops or gives
up, forward(inverse(forward(row))) == forward(row) for every rule that can be worked out again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from spine_migrate.db import catalog
from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.raw import execute, rows
from spine_migrate.mapping.bind import Binding, bind
from spine_migrate.mapping.emit.python import compile_python
from spine_migrate.mapping.emit.sql import forward, inverse, is_ours, judgements, key, verdict
from spine_migrate.mapping.load import load, load_file, shipped
from spine_migrate.mapping.model import Mapping
from spine_migrate.mapping.transforms.base import Sql
from tests.composed import Composed, composed, write
from tests.database import Role, fresh_database
from tests.values import BY_TYPE, comparable, from_text, json_text, to_text

EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def connection(server_url: str, owner: Role) -> Iterator[Connection]:
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        connect(database.url, autocommit=False) as opened,
    ):
        yield opened


def _create(connection: Connection, table: str, columns: dict[str, tuple[str, bool]]) -> None:
    """``columns``: name to SQL type and NOT NULL."""
    execute(
        connection,
        sql.SQL("CREATE TABLE {} ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(
                sql.SQL("{} {}{}").format(sql.Identifier(name), sql.SQL(kind), sql.SQL(" NOT NULL" if not_null else ""))
                for name, (kind, not_null) in columns.items()
            ),
        ),
    )


def _insert(connection: Connection, table: str, live: dict[str, str], records: list[dict[str, Any]]) -> None:
    names = list(live)
    written = [
        [(json_text if live[name] in ("json", "jsonb") else to_text)(record[name]) for record in records]
        for name in names
    ]
    statement = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM unnest({}) AS u({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, names)),
        sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Identifier(f"c{number}"), sql.SQL(live[name]))
            for number, name in enumerate(names)
        ),
        sql.SQL(", ").join(sql.SQL(f"${number}::text[]") for number in range(1, len(names) + 1)),
        sql.SQL(", ").join(sql.Identifier(f"c{number}") for number in range(len(names))),
    )
    execute(connection, statement, *written)


def _select(connection: Connection, values: dict[str, Sql], scope: Sql) -> list[dict[str, Any]]:
    """The expressions as text; names as the server would cut or fold them do not matter."""
    names = list(values)
    columns = sql.SQL(", ").join(
        sql.SQL("({})::text AS {}").format(value, sql.Identifier(f"c{number}"))
        for number, value in enumerate(values.values())
    )
    found = rows(connection, sql.SQL("SELECT {} {}").format(columns, scope))
    return [dict(zip(names, row.values(), strict=True)) for row in found]


def _move(connection: Connection, binding: Binding, condition: Sql) -> None:
    """INSERT INTO target SELECT forward."""
    values = forward(binding, "s")
    execute(
        connection,
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} AS s WHERE {}").format(
            binding.target.identifier,
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(values.values()),
            binding.source.identifier,
            condition,
        ),
    )


def _returning(mapping: Mapping) -> set[str]:
    """Source columns that come back as they were."""
    return {
        name for name in mapping.columns if (carrier := mapping.carrier(name)) is not None and carrier.lossy is None
    }


def _hold(connection: Connection, binding: Binding, records: list[dict[str, Any]]) -> None:
    """Everything this file claims, for one bound mapping whose table holds ``records``."""
    mapping = binding.mapping
    python = compile_python(mapping)
    by_key = {str(record[mapping.key]): record for record in records}

    found = list(judgements(binding, "s"))
    judged = {part: verdict(found, part) for part in ("reason", "field", "detail")}
    verdicts = _select(
        connection,
        {"key": sql.Identifier("s", mapping.key), **judged},
        sql.SQL("FROM {} AS s").format(binding.source.identifier),
    )
    assert len(verdicts) == len(records)
    for one in verdicts:
        expected = python.judge(by_key[one["key"]])
        assert (one["reason"] and (one["reason"], one["field"])) == expected, by_key[one["key"]]
        assert (one["reason"] is None) == (one["detail"] is None)

    _move(connection, binding, sql.SQL("{} IS NULL").format(judged["reason"]))
    produced = list(forward(binding, "s"))
    target = sql.SQL("FROM {} AS t WHERE {} ORDER BY {}").format(
        binding.target.identifier, is_ours(binding, "t"), sql.Identifier("t", mapping.target.key)
    )
    moved = _select(connection, {name: sql.Identifier("t", name) for name in produced}, target)
    restored = _select(connection, inverse(binding, "t"), target)
    keys = _select(
        connection,
        {"source": sql.Identifier("s", mapping.key), "target": key(binding, "s")},
        sql.SQL("FROM {} AS s WHERE {} IS NULL").format(binding.source.identifier, judged["reason"]),
    )
    assert len(moved) == len(restored) == len(keys) == sum(one["reason"] is None for one in verdicts)
    source_of = {one["target"]: by_key[one["source"]] for one in keys}
    returning = _returning(mapping)
    for row, back in zip(moved, restored, strict=True):
        record = source_of[row[mapping.target.key]]
        loaded = {name: from_text(row[name], mapping.target.columns[name].type.name) for name in produced}
        calculated = python.to_run_record(record)
        assert list(calculated) == produced
        for name in produced:
            assert comparable(loaded[name]) == comparable(calculated[name]), (name, record)
        again = python.from_run_record(calculated)
        for name in binding.live:
            declared = mapping.columns[name].type.name
            live = binding.live[name].type
            server = from_text(back[name], live if declared == "any" else declared)
            if declared != "any":  # which Python leaves as it is in JSON, not knowing the type
                assert comparable(server) == comparable(again[name]), (name, record)
            if name in returning:
                assert comparable(server) == comparable(record[name]), (name, record)
    _moves_again(connection, binding, moved)


def _moves_again(connection: Connection, binding: Binding, moved: list[dict[str, Any]]) -> None:
    """forward(inverse(forward(row))) == forward(row), on the server and in Python."""
    mapping = binding.mapping
    columns = {name: (column.sql_type, False) for name, column in binding.live.items()}
    _create(connection, "restored", columns)
    values = inverse(binding, "t")
    execute(
        connection,
        sql.SQL("INSERT INTO restored ({}) SELECT {} FROM {} AS t").format(
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(
                sql.SQL("{}::{}").format(value, sql.SQL(binding.live[name].sql_type)) for name, value in values.items()
            ),
            binding.target.identifier,
        ),
    )
    restored = catalog.find(connection, "restored", None)
    live = {name: restored.columns[name] for name in binding.live}
    again = forward(Binding(mapping, restored.name, binding.target, live), "s")
    stable = [name for name in again if all(_repeatable(mapping, f) for f in mapping.produced[name])]
    found = _select(
        connection,
        {name: again[name] for name in stable},
        sql.SQL("FROM restored AS s ORDER BY {}").format(again[mapping.target.key]),
    )
    assert [{name: row[name] for name in stable} for row in moved] == found

    python = compile_python(mapping)
    for row in moved:
        record = {name: from_text(text, mapping.target.columns[name].type.name) for name, text in row.items()}
        back = {name: value for name, value in python.from_run_record(record).items() if name in binding.live}
        values_again = python.to_run_record(back)
        for name in stable:
            assert comparable(values_again[name]) == comparable(record[name])


def _repeatable(mapping: Mapping, field: Any) -> bool:
    """Not worked out from a column that a rule gave up for good."""
    for column in (field.column, field.when_present):
        carrier = mapping.carrier(column) if column is not None else None
        if column is not None and (carrier is None or carrier.lossy is not None):
            return False
    return True


@EXAMPLES
@given(made=composed())
def test_composed_mappings(made: Composed, connection: Connection, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mapping")
    write(folder, "target", made.target)
    mapping = load_file(write(folder, "composed", made.document))
    try:
        _create(connection, mapping.source_table, {n: (k, n == mapping.key) for n, k in made.live.items()})
        target = mapping.target.columns.values()
        _create(connection, mapping.target.name, {c.name: (str(c.type), c.not_null) for c in target})
        _insert(connection, mapping.source_table, made.live, made.rows)
        binding = bind(
            mapping,
            catalog.find(connection, mapping.source_table, None),
            catalog.find(connection, mapping.target.name, None),
        )
        _hold(connection, binding, made.rows)
    finally:
        connection.rollback()


_LIVE = {"any": "uuid"}
_WORDS = {
    "status": ["pending", "queued", "running", "completed", "failed", "cancelled", "processing", "done", "error"],
    "event_type": ["created", "started", "retried", "invented"],
}


@st.composite
def _rows(draw: st.DrawFn, mapping: Mapping, missing: set[str]) -> list[dict[str, Any]]:
    """Rows of a shipped mapping's table, ordinary values among the odd ones."""
    strategies: dict[str, st.SearchStrategy[Any]] = {}
    for name, column in mapping.columns.items():
        if name in missing:
            continue
        values = BY_TYPE[_LIVE.get(column.type.name, column.type.name)]
        if name in _WORDS:
            values = st.sampled_from(_WORDS[name]) | values
        elif column.type.name == "integer":
            values = st.integers(0, 9) | values
        elif column.type.name == "text":
            values = st.integers(90, 300).map(lambda length: "\u00e9" * length) | values
        strategies[name] = values if column.not_null else st.none() | values
    keys = draw(st.lists(BY_TYPE[mapping.columns[mapping.key].type.name], min_size=5, max_size=25, unique=True))
    del strategies[mapping.key]
    return [{mapping.key: one} | {name: draw(values) for name, values in strategies.items()} for one in keys]


@pytest.mark.parametrize("name", shipped())
def test_shipped_mappings(name: str, connection: Connection) -> None:
    mapping = load(name)
    optional = [column.name for column in mapping.columns.values() if column.optional]

    @settings(EXAMPLES, max_examples=15)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        missing = set(data.draw(st.lists(st.sampled_from(optional), max_size=3)))
        records = data.draw(_rows(mapping, missing))
        live = {n: _LIVE.get(c.type.name, c.type.name) for n, c in mapping.columns.items() if n not in missing}
        try:
            _create(connection, mapping.source_table, {n: (k, mapping.columns[n].not_null) for n, k in live.items()})
            target = mapping.target.columns.values()
            _create(connection, mapping.target.name, {c.name: (str(c.type), c.not_null) for c in target})
            _insert(connection, mapping.source_table, live, records)
            found = bind(
                mapping,
                catalog.find(connection, mapping.source_table, None),
                catalog.find(connection, mapping.target.name, None),
            )
            assert set(found.missing) == missing
            _hold(connection, found, records)
        finally:
            connection.rollback()

    check()


@pytest.mark.parametrize(
    ("live", "literals"),
    [
        ("jsonb", ['"a"', "null", "1.50", '{"a": [null]}', '"null"']),
        ("json", ['"a"', "null", "[1, 2]"]),
        ("text", ["", "null", " a ", '"', "\u00e4"]),
        ("character(5)", ["ab"]),
        ("uuid", ["7e12bde6-6ba7-434c-82f7-5ef61313fec3"]),
        ("boolean", ["true", "false"]),
        ("smallint", ["-32768"]),
        ("bigint", ["-9223372036854775808", "9223372036854775807"]),
        ("numeric", ["1.500", "NaN", "-123456789012345678901234567890.5"]),
        ("real", ["0.1", "NaN", "-Infinity", "1e-30"]),
        ("double precision", ["0.1", "Infinity", "1.7976931348623157e308", "5e-324"]),
        ("bytea", ["\\x00ff"]),
        ("inet", ["10.0.0.1", "10.0.0.1/8", "::1"]),
        ("cidr", ["10.0.0.0/8"]),
        ("date", ["infinity", "4713-01-01 BC", "5874897-12-31"]),
        ("timestamp without time zone", ["infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999"]),
        ("timestamp with time zone", ["-infinity", "4713-01-01 00:00:00+00 BC", "2020-01-01 00:00:00.5+00"]),
    ],
)
def test_an_undeclared_column_comes_back(
    live: str, literals: list[str], connection: Connection, tmp_path: Path
) -> None:
    """Whatever a column of type any really is, it goes into a JSON path and comes back, and NULL is not JSON's null."""
    columns = {"id": {"type": "bigint", "not_null": True}, "it": {"type": "any"}}
    fields = {"key": {"copy": "id"}, '"meta"."it"': {"copy": "it"}, '"meta"."mark"': {"origin": True}}
    types = {"key": {"type": "bigint", "not_null": True}, "meta": {"type": "jsonb"}}
    write(tmp_path, "target", {"table": "new", "key": "key", "columns": types})
    source = {"table": "old", "key": "id", "columns": columns}
    mapping = load_file(write(tmp_path, "any", {"source": source, "target": {"file": "target.toml"}, "fields": fields}))
    try:
        _create(connection, "old", {"id": ("bigint", True), "it": (live, False)})
        _create(connection, "new", {"key": ("bigint", True), "meta": ("jsonb", False)})
        statement = sql.SQL("INSERT INTO old SELECT n, t::{} FROM unnest($1::text[]) WITH ORDINALITY AS u(t, n)")
        execute(connection, statement.format(sql.SQL(live)), [*literals, None])
        tables = (catalog.find(connection, table, None) for table in ("old", "new"))
        binding = bind(mapping, *tables)
        _move(connection, binding, sql.SQL("true"))
        back = _select(connection, inverse(binding, "t"), sql.SQL("FROM new AS t ORDER BY key"))
        old = _select(connection, {"it": sql.SQL("it")}, sql.SQL("FROM old ORDER BY id"))
        assert [row["it"] for row in back] == [row["it"] for row in old]
        assert old[-1]["it"] is None
    finally:
        connection.rollback()
