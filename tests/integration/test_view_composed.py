"""Any mapping that can be composed has a view that writes what the mapping says."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from psycopg import sql

from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.legacy_key import LegacyKey
from spine_migrate.mapping.emit.sql import forward, judgements, verdict
from spine_migrate.mapping.load import load_file
from tests.composed import Composed, composed, write
from tests.database import Role, fresh_database
from tests.legacy import build
from tests.values import json_text, to_text
from tests.views import switch

EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def tool(server_url: str, owner: Role) -> Iterator[Connection]:
    """A session of the tool in a database of its own; nothing is committed."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as created:
        build(created)
        with connect(created.url, autocommit=False) as connection:
            yield connection


def _create(connection: Connection, table: str, columns: dict[str, tuple[str, str]]) -> None:
    """``columns``: name to SQL type and constraint."""
    parts = [
        sql.SQL("{} {} {}").format(sql.Identifier(name), sql.SQL(kind), sql.SQL(constraint))
        for name, (kind, constraint) in columns.items()
    ]
    statement = sql.SQL("CREATE TABLE public.{} ({})").format(sql.Identifier(table), sql.SQL(", ").join(parts))
    execute(connection, statement)


def _insert(connection: Connection, table: str, live: dict[str, str], record: dict[str, Any]) -> None:
    texts = [(json_text if kind in {"json", "jsonb"} else to_text)(record[name]) for name, kind in live.items()]
    statement = sql.SQL("INSERT INTO public.{} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, live)),
        sql.SQL(", ").join(sql.SQL(f"${number}::text::{kind}") for number, kind in enumerate(live.values(), 1)),
    )
    execute(connection, statement, *texts)


@EXAMPLES
@given(made=composed())
def test_any_mapping_has_a_view(made: Composed, tool: Connection, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever the mapping and its names: a row is written through the view or refused as the judge says, and what is
    written is what forward makes of the row. An UPDATE of every column to itself changes nothing. Each row of the
    target is logged by its legacy key.
    """
    folder = tmp_path_factory.mktemp("mapping")
    write(folder, "target", made.target)
    mapping = load_file(write(folder, "composed", made.document))
    key, target_key = mapping.key, mapping.target.key
    target = mapping.target.columns.values()
    try:
        _create(tool, mapping.source_table, {n: (k, "PRIMARY KEY" if n == key else "") for n, k in made.live.items()})
        _create(
            tool,
            mapping.target.name,
            {c.name: (str(c.type), "PRIMARY KEY" if c.name == target_key else "") for c in target},
        )
        switched = switch(tool, mapping, target_schema="public")
        binding = switched.facts.tables.binding
        for record in made.rows:
            _insert(tool, f"{mapping.source_table}_legacy", made.live, record)
        legacy = sql.Identifier("public", f"{mapping.source_table}_legacy")
        detail = verdict(list(judgements(binding, "s")), "detail")
        judged = sql.SQL("SELECT s.{}::text, {} FROM {} AS s").format(sql.Identifier(key), detail, legacy)
        refused = dict(execute(tool, judged).fetchall())
        for record in made.rows:
            try:
                with tool.transaction():
                    _insert(tool, mapping.source_table, made.live, record)
                written = True
            except psycopg.errors.CheckViolation:
                written = False
            assert written == (refused[str(record[key])] is None)
        values = forward(binding, "s")
        image = sql.SQL("ROW({})::text")
        expected = sql.SQL("SELECT {} FROM {} AS s WHERE ({}) IS NULL ORDER BY 1").format(
            image.format(sql.SQL(", ").join(values.values())),
            legacy,
            detail,
        )
        found = sql.SQL("SELECT {} FROM {} AS t ORDER BY 1").format(
            image.format(sql.SQL(", ").join(sql.Identifier("t", name) for name in values)), binding.target.identifier
        )
        rows = execute(tool, expected).fetchall()
        assert execute(tool, found).fetchall() == rows
        again = sql.SQL(", ").join(sql.SQL("{0} = {0}").format(sql.Identifier(name)) for name in made.live)
        execute(tool, sql.SQL("UPDATE {} SET {}").format(switched.facts.legacy.name.identifier, again))
        assert execute(tool, found).fetchall() == rows
        logged_key = LegacyKey(switched.facts.form).logged
        logged = sql.SQL("SELECT {} FROM {} AS t").format(logged_key.of("t"), binding.target.identifier)
        accepted = {name for name, reason in refused.items() if reason is None}
        assert {name for (name,) in execute(tool, logged).fetchall()} == accepted
    finally:
        tool.rollback()
