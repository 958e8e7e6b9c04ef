"""The compatibility view is the legacy table, as far as anybody can tell who writes to it and reads from it.

A plain copy of each legacy table takes the same statements as the view in its place; what both hold, and what both
answer, has to be the same. Only rows that the mapping can carry are written: what it cannot, the view refuses
(test_view_rules.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.sql import forward, is_ours, judgements, verdict
from spine_migrate.mapping.load import load_file
from spine_migrate.mapping.model import Mapping
from tests.composed import Composed, composed, write
from tests.database import Database, Role, fresh_database
from tests.legacy import build
from tests.values import BY_TYPE, json_text, to_text
from tests.views import Switched, switch

EXAMPLES = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ENTITIES = ("executions", "jobs", "execution_events", "papers")

# What the shipped tables have not: a text key, limits, an enum, json, a generated column, constraints, a link by hash.
_PAPERS: LiteralString = """
    CREATE TYPE mood AS ENUM ('new', 'done');
    CREATE TABLE desks (desk integer PRIMARY KEY);
    INSERT INTO desks VALUES (1), (2);
    CREATE TABLE papers (
        code varchar(12) COLLATE "C" PRIMARY KEY,
        label character(3) NOT NULL,
        mood mood DEFAULT 'new',
        price numeric(8, 2) DEFAULT 1.5,
        tiny smallint CONSTRAINT tiny_is_positive CHECK (tiny > 0),
        doc json DEFAULT '{}',
        of_code varchar(12),
        doubled numeric GENERATED ALWAYS AS (price * 2) STORED,
        made timestamp(3) DEFAULT '2020-01-01',
        desk integer REFERENCES desks
    );
"""
_PAPERS_MAPPING: dict[str, Any] = {
    "source": {
        "table": "papers",
        "key": "code",
        "columns": {
            "code": {"type": "text", "not_null": True},
            "label": {"type": "text"},
            "mood": {"type": "text"},
            "price": {"type": "numeric"},
            "tiny": {"type": "integer"},
            "doc": {"type": "jsonb"},
            "of_code": {"type": "text"},
            "doubled": {"type": "numeric"},
            "made": {"type": "timestamp"},
            "desk": {"type": "any"},
        },
    },
    "target": {"table": "runs"},
    "fields": {
        "run_id": {"copy": "code", "uuid": "papers", "keep": "metadata.old.code"},
        "kind": {"constant": "step"},
        "name": {"constant": "paper"},
        "external_ref": {"copy": "label"},
        "status": {
            "copy": "mood",
            "default": "new",
            "values": {"new": "pending", "done": "completed"},
            "keep": "metadata.old.mood",
        },
        "params": {"copy": "doc"},
        "parent_run_id": {"copy": "of_code", "uuid": "papers", "keep": "metadata.old.of_code", "link": True},
        '"metadata"."price"': {"copy": "price"},
        '"metadata"."tiny"': {"copy": "tiny"},
        '"metadata"."doubled"': {"copy": "doubled"},
        '"metadata"."desk"': {"copy": "desk"},
        "created_at": {"copy": "made", "zone": "Europe/Berlin", "keep": "metadata.old.made"},
        '"metadata"."migrated_from"': {"origin": True},
    },
}


def _papers(folder: Path) -> Mapping:
    return load_file(write(folder, "papers", _PAPERS_MAPPING))


_STATUS = {
    "executions": ["pending", "queued", "running", "completed", "failed", "cancelled"],
    "jobs": ["queued", "processing", "done", "error", "cancelled", "retrying"],
}
_EVENTS = ["created", "queued", "started", "progress", "completed", "failed", "retried"]
_short = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_json = BY_TYPE["jsonb"].map(json_text)
_when = BY_TYPE["timestamptz"].map(to_text)
_small = st.integers(0, 9)
_KEYS = [f"00000000-0000-4000-8000-{number:012}" for number in range(3)]
_OTHERS = [f"00000000-0000-4000-8000-{number:012}" for number in range(3, 5)]

_VALUES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "executions": {
        "pipeline_name": _short,
        "params": st.none() | _json,
        "lane": st.none() | _short,
        "trigger_source": st.none() | _short,
        "status": st.sampled_from(_STATUS["executions"]),
        "backend_task_id": st.none() | _short,
        # No two of one feed: the guards of the two tables are not the same, see the demo's legacy.sql.
        "feed_id": st.none() | st.uuids().map(str),
        "retry_count": st.none() | _small,
        "max_retries": st.none() | _small,
        "parent_execution_id": st.none() | st.sampled_from(_KEYS + _OTHERS),
        "retry_of_execution_id": st.none() | st.sampled_from(_KEYS + _OTHERS),
        "result": st.none() | _json,
        "error": st.none() | _short,
        "error_type": st.none() | _short | st.integers(99, 102).map(lambda length: "\u00e9" * length),
        "created_at": st.none() | _when,
        "started_at": st.none() | _when,
        "completed_at": st.none() | _when,
    },
    "jobs": {
        "job_type": _short,
        "payload": st.none() | _json,
        "status": st.sampled_from(_STATUS["jobs"]),
        "priority": st.none() | _small,
        "attempts": st.none() | _small,
        "max_attempts": st.none() | _small,
        "user_id": st.none() | st.integers(-(2**63), 2**63 - 1),
        "feed_id": st.none() | st.uuids().map(str),
        "celery_task_id": st.none() | _short,
        "error_message": st.none() | _short,
        "result": st.none() | _json,
        "created_at": st.none() | BY_TYPE["timestamp"].map(to_text),
        "started_at": st.none() | BY_TYPE["timestamp"].map(to_text),
        "finished_at": st.none() | BY_TYPE["timestamp"].map(to_text),
    },
    "papers": {
        "label": st.sampled_from(["", "a", "abc", "abcd", " b "]),
        "mood": st.sampled_from(["new", "done"]) | st.just("odd"),
        "price": st.none() | st.sampled_from(["0", "-1.5", "1.505", "123456.78", "1234567", "NaN"]),
        "tiny": st.none() | st.sampled_from([1, 7, 32767, 0, 32768]),
        "doc": st.none() | st.sampled_from(["null", "{}", '{"a": [1.50, null]}', '"text"']),
        "of_code": st.none() | st.sampled_from(["a", "\u00e4 %'", "gone"]),
        "made": st.none() | st.sampled_from(["2021-03-28 02:30:00.1234", "2021-10-31 02:30:00", "infinity"]),
        "desk": st.none() | st.integers(1, 3),
    },
    "execution_events": {
        "execution_id": st.sampled_from(_OTHERS),
        "event_type": st.sampled_from(_EVENTS),
        "timestamp": st.none() | _when,
        "data": st.none() | _json,
    },
}
_KEY: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "executions": ("execution_id", st.sampled_from(_KEYS)),
    "jobs": ("job_id", st.sampled_from([1, -(2**63), 2**63 - 1])),
    "papers": ("code", st.sampled_from(["a", "\u00e4 %'", "thirteen char"])),
    "execution_events": ("event_id", st.sampled_from(_KEYS)),
}

# What is done: insert a row, change some columns of one, move one to another key, remove one. Each names its columns.
Step = tuple[str, dict[str, Any], Any]


@st.composite
def _steps(draw: st.DrawFn, entity: str) -> list[Step]:
    key, keys = _KEY[entity]
    values = _VALUES[entity]
    made: list[Step] = []
    for number in range(draw(st.integers(1, 8))):
        kind = "insert" if number == 0 else draw(st.sampled_from(["insert", "update", "update", "rekey", "delete"]))
        some = draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=6, unique=True))
        match kind:
            case "insert":
                # All columns or some, so that defaults are tried; what has to be there, is.
                names = sorted(values) if draw(st.booleans()) else some
                needed = {"pipeline_name", "job_type", "execution_id", "event_type", "label"} & set(values)
                made.append((kind, {name: draw(values[name]) for name in sorted({*names} | needed)}, draw(keys)))
            case "update":
                made.append((kind, {name: draw(values[name]) for name in some}, draw(keys)))
            case "rekey":
                made.append((kind, {key: draw(keys)}, draw(keys)))
            case _:
                made.append((kind, {}, draw(keys)))
    return made


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
        build(created.url).execute(_PAPERS)
        yield created


@pytest.fixture(scope="module")
def switched(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Switched]]:
    with connect(database.url) as tool:
        found = {"executions": switch(tool, "capture-spine/executions")}
        found["jobs"] = switch(tool, "capture-spine/jobs")
        found["execution_events"] = switch(tool, "capture-spine/execution_events", parent=found["executions"].facts)
        found["papers"] = switch(tool, _papers(tmp_path_factory.mktemp("papers")))
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
    key = _KEY[entity][0]

    @EXAMPLES
    @given(steps=_steps(entity))
    def check(steps: list[Step]) -> None:
        with application.transaction(force_rollback=True):
            if entity == "execution_events":
                for other in _OTHERS:
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


@pytest.fixture(scope="module")
def tool(server_url: str, owner: Role) -> Iterator[Connection]:
    """A session of the tool in a database of its own; nothing is committed."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as created:
        build(created.url)
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
    written is what forward makes of the row. An UPDATE of every column to itself changes nothing.
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
    finally:
        tool.rollback()
