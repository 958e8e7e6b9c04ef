"""The compatibility view is the legacy table, as far as anybody can tell who writes to it and reads from it.

A plain copy of each legacy table takes the same statements as the view in its place; what both hold, and what both
answer, has to be the same. Only rows that the mapping can carry are written: what it cannot, the view refuses
(test_view_rules.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from psycopg import sql

from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.sql import forward, is_ours
from tests.database import Database, Role, fresh_database
from tests.legacy import build
from tests.papers import TABLES, papers
from tests.view_statements import KEY, OTHERS, Step, steps
from tests.views import Switched, switch

EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ENTITIES = ("executions", "jobs", "execution_events", "papers")


def _do(connection: Connection, table: str, key: str, step: Step) -> tuple[str | None, list[Any]]:
    """The SQLSTATE if it fails, and what RETURNING says."""
    kind, values, which = step
    names = [sql.Identifier(name) for name in values]
    given_values = [sql.Literal(value) for value in values.values()]
    place, identifier = sql.Identifier(table), sql.Identifier(key)
    match kind:
        case "insert":
            statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING *").format(
                place,
                sql.SQL(", ").join([identifier, *names]),
                sql.SQL(", ").join([sql.Literal(which), *given_values]),
            )
        case "delete":
            statement = sql.SQL("DELETE FROM {} WHERE {} = {} RETURNING *").format(
                place, identifier, sql.Literal(which)
            )
        case _:
            statement = sql.SQL("UPDATE {} SET {} WHERE {} = {} RETURNING *").format(
                place,
                sql.SQL(", ").join(
                    sql.SQL("{} = {}").format(name, value) for name, value in zip(names, given_values, strict=True)
                ),
                identifier,
                sql.Literal(which),
            )
    # As text: psycopg loads no infinite timestamps.
    try:
        with connection.transaction():
            found = connection.execute(
                sql.SQL("WITH done AS ({}) SELECT done::text FROM done").format(statement)
            ).fetchall()
    except psycopg.Error as error:
        return error.sqlstate, []
    return None, found


def _rows(connection: Connection, table: str, key: str) -> list[Any]:
    return connection.execute(
        sql.SQL("SELECT t::text FROM (SELECT * FROM {}) AS t ORDER BY {}").format(
            sql.Identifier(table), sql.Identifier(key)
        )
    ).fetchall()


@pytest.fixture(scope="module")
def database(server_url: str, owner: Role) -> Iterator[Database]:
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as created:
        build(created).execute(TABLES)
        yield created


@pytest.fixture(scope="module")
def switched(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Switched]]:
    with connect(database.url) as tool:
        found = {"executions": switch(tool, "capture-spine/executions")}
        found["jobs"] = switch(tool, "capture-spine/jobs")
        found["execution_events"] = switch(tool, "capture-spine/execution_events", parent=found["executions"].facts)
        found["papers"] = switch(tool, papers(tmp_path_factory.mktemp("papers")))
        yield found


@pytest.fixture
def application(database: Database, switched: dict[str, Switched]) -> Iterator[Connection]:
    """With a copy of each legacy table, NAME_copy, and executions for events; nothing is committed."""
    with psycopg.connect(database.url) as connection:
        for entity in ENTITIES:
            copy, legacy = f"{entity}_copy", f"{entity}_legacy"
            connection.execute(
                sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING ALL)").format(
                    sql.Identifier(copy), sql.Identifier(legacy)
                )
            )
        # LIKE copies no foreign key; a temporary table cannot have one to a table that is none.
        connection.execute("CREATE TEMPORARY TABLE desks_copy AS TABLE desks")
        connection.execute("ALTER TABLE desks_copy ADD PRIMARY KEY (desk)")
        connection.execute("ALTER TABLE papers_copy ADD FOREIGN KEY (desk) REFERENCES desks_copy")
        yield connection
        connection.rollback()


def _forwarded(connection: Connection, made: Switched) -> list[Any]:
    """Runs of the mapping that are not what forward() makes of their row in the view, links that wait left out."""
    binding = made.facts.tables.binding
    links = {field.target for field in binding.mapping.links}
    columns = {name: value for name, value in forward(binding, "v").items() if name not in links}
    connection.execute("SET LOCAL timezone = 'UTC'")
    return execute(
        connection,
        sql.SQL(
            "SELECT ROW({made})::text, ROW({there})::text"
            " FROM {view} AS v JOIN {target} AS t ON t.{key} = {forward_key}"
            " WHERE ROW({made}) IS DISTINCT FROM ROW({there}) OR NOT {ours}"
        ).format(
            made=sql.SQL(", ").join(columns.values()),
            there=sql.SQL(", ").join(sql.Identifier("t", name) for name in columns),
            view=made.facts.legacy.name.identifier,
            target=binding.target.identifier,
            key=sql.Identifier(binding.mapping.target.key),
            forward_key=columns[binding.mapping.target.key],
            ours=is_ours(binding, "t"),
        ),
    ).fetchall()


@pytest.mark.parametrize("entity", ENTITIES)
def test_the_same_statements_leave_the_same_rows(
    entity: str, switched: dict[str, Switched], application: Connection
) -> None:
    """And get the same answers: an SQLSTATE, or rows by RETURNING. Each target row is what forward makes of its row."""
    key = KEY[entity][0]

    @EXAMPLES
    @given(steps=steps(entity))
    def check(steps: list[Step]) -> None:
        with application.transaction(force_rollback=True):
            if entity == "execution_events":
                for other in OTHERS:
                    application.execute(
                        "INSERT INTO executions (execution_id, pipeline_name) VALUES (%s, 'p')", (other,)
                    )
            for step in steps:
                expected = _do(application, f"{entity}_copy", key, step)
                assert _do(application, entity, key, step) == expected, step
                assert _rows(application, entity, key) == _rows(application, f"{entity}_copy", key), step
            assert _forwarded(application, switched[entity]) == []

    check()


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("INSERT INTO {} (code, label, doubled) VALUES ('b', 'l', 9)", "428C9"),
        ("UPDATE {} SET doubled = 9", "428C9"),
        ("UPDATE {} SET doubled = DEFAULT, price = 2", None),
        ("UPDATE {} SET desk = 3", "23503"),
        ("UPDATE {} SET tiny = 0", "23514"),
    ],
)
def test_generated_columns_and_constraints(
    switched: dict[str, Switched], application: Connection, statement: LiteralString, sqlstate: str | None
) -> None:
    found = []
    for table in ("papers", "papers_copy"):
        name = sql.Identifier(table)
        application.execute(sql.SQL("INSERT INTO {} (code, label) VALUES ('a', 'l')").format(name))
        try:
            with application.transaction():
                application.execute(sql.SQL(statement).format(name))
            state = None
        except psycopg.Error as error:
            state = error.sqlstate
        found.append((state, _rows(application, table, "code")))
    assert found[0] == found[1]
    assert found[0][0] == sqlstate
