"""Differences to inject into a moved history, each in rows of its own, and what a comparison must say of them.

Written against the tables themselves, in SQL by hand: it shares nothing with the compiled mapping or the self-test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

Connection = psycopg.Connection[TupleRow]

#: Difference.kind, the key on the target, the field.
Place = tuple[str, str, str | None]


@dataclass(frozen=True)
class Kind:
    """``change`` touches the rows whose keys are in the table ``pick``, and those alone; ``where`` says which rows of
    ``runs r`` fit. What is reported for each is ``found`` and ``field``, under the target key ``key``. Before, the
    statements ``first`` make both tables such that the change means something. ``least`` is how many rows it takes.
    Where it is ``exact``, only byte identity tells the two sides apart.
    """

    name: str
    change: LiteralString | sql.Composed
    found: str
    field: str | None = None
    where: LiteralString = "true"
    key: LiteralString = "run_id"
    first: tuple[LiteralString, ...] = ()
    least: int = 1
    exact: bool = False


def _set(
    name: str,
    field: str,
    assignment: LiteralString,
    where: LiteralString = "true",
    *,
    first: tuple[LiteralString, ...] = (),
    exact: bool = False,
) -> Kind:
    """A change of one place in rows of the target."""
    change = sql.SQL("UPDATE runs r SET {} FROM pick WHERE r.run_id = pick.run_id").format(sql.SQL(assignment))
    return Kind(name, change, "field", field, where, first=first, exact=exact)


def _in_made(name: str, assignment: LiteralString, *, exact: bool = False) -> Kind:
    """A change inside ``params.made``, which both sides are given before."""
    return _set(name, "params", assignment, "jsonb_typeof(r.params) = 'object'", first=_MADE, exact=exact)


_PARAMS: LiteralString = (
    ' SET params = params || \'{"made": {"deep": [{"leaf": 1}], "number": 1.0, "flag": true, "nothing": null,'
    ' "list": [1, 2], "long": 0.12345678901234567890}}\' FROM pick'
)
_MADE = (
    f"UPDATE executions x {_PARAMS} WHERE x.execution_id = pick.run_id",
    f"UPDATE runs r {_PARAMS} WHERE r.run_id = pick.run_id",
)
_KEPT = (
    "UPDATE executions x SET retry_count = NULL, error_type = NULL FROM pick WHERE x.execution_id = pick.run_id",
    """UPDATE runs r SET attempt = 1, error_type = NULL, metadata = metadata || '{"legacy": {"retry_count": null}}'
         FROM pick WHERE r.run_id = pick.run_id""",
)
_UNNAMED: LiteralString = (
    "r.run_id NOT IN (SELECT unnest(ARRAY[parent_execution_id, retry_of_execution_id]) FROM executions"
    " WHERE num_nonnulls(parent_execution_id, retry_of_execution_id) = 2 UNION SELECT coalesce(parent_execution_id,"
    " retry_of_execution_id) FROM executions WHERE num_nonnulls(parent_execution_id, retry_of_execution_id) = 1)"
    " AND r.run_id NOT IN (SELECT execution_id FROM execution_events WHERE execution_id IS NOT NULL)"
)

KINDS: tuple[Kind, ...] = (
    Kind("missing row", "DELETE FROM runs r USING pick WHERE r.run_id = pick.run_id", "missing", where=_UNNAMED),
    Kind(
        "extra row",
        "INSERT INTO runs (run_id, kind, name, status, metadata)"
        " SELECT overlay(run_id::text PLACING 'e' FROM 15)::uuid, kind, name, 'completed',"
        " jsonb_build_object('migrated_from', metadata -> 'migrated_from') FROM runs JOIN pick USING (run_id)",
        "extra",
        where="substr(r.run_id::text, 15, 1) = '4'",
        key="overlay(run_id::text PLACING 'e' FROM 15)",
    ),
    Kind(
        "legacy row gone",
        "DELETE FROM executions x USING pick WHERE x.execution_id = pick.run_id",
        "extra",
        where=_UNNAMED,
    ),
    Kind(
        "mark of origin lost",
        "UPDATE runs r SET metadata = metadata - 'migrated_from' FROM pick WHERE r.run_id = pick.run_id",
        "missing",
    ),
    _set("1 microsecond", "created_at", "created_at = created_at + interval '1 microsecond'"),
    _set("1 millisecond less", "started_at", "started_at = started_at - interval '1 millisecond'",
         "r.started_at IS NOT NULL"),
    _set("1 hour", "completed_at", "completed_at = completed_at + interval '1 hour'", "r.completed_at IS NOT NULL"),
    _set("infinity", "completed_at", "completed_at = 'infinity'", "r.completed_at IS NOT NULL"),
    _set("a time lost", "started_at", "started_at = NULL", "r.started_at IS NOT NULL"),
    _set("a time invented", "completed_at", "completed_at = created_at", "r.completed_at IS NULL"),
    _set("NULL as ''", "error", "error = ''", "r.error IS NULL"),
    _set("a text lost", "error", "error = NULL", "r.error IS NOT NULL"),
    _set("trailing space", "error", "error = error || ' '", "r.error <> ''"),
    _set("leading space", "error", "error = ' ' || error", "r.error <> ''"),
    _set("trailing newline", "error", "error = error || chr(10)", "r.error <> ''"),
    _set("upper case", "error", "error = upper(error)", "r.error <> upper(r.error)"),
    _set("a character more", "error", "error = error || chr(8203)", "r.error <> ''"),
    _set("a text cut", "error", "error = left(error, -1)", "r.error <> ''"),
    _set("composed as decomposed", "error", "error = replace(error, chr(233), 'e' || chr(769))",
         first=("UPDATE executions x SET error = 'caf' || chr(233) FROM pick WHERE x.execution_id = pick.run_id",
                "UPDATE runs r SET error = 'caf' || chr(233) FROM pick WHERE r.run_id = pick.run_id")),
    _set("another name", "name", "name = name || '_'", "length(r.name) < 100"),
    _set("trailing space of a name", "name", "name = name || ' '", "length(r.name) < 100"),
    _set("another error type", "error_type", "error_type = 'Other'", "r.error_type <> 'Other'"),
    _set("another status", "status", "status = 'cancelled'", "r.status IN ('completed', 'failed')"),
    _set("attempt + 1", "attempt", "attempt = attempt + 1"),
    _set("a number lost", "max_retries", "max_retries = NULL", "r.max_retries IS NOT NULL"),
    _set("NULL as 0", "max_retries", "max_retries = 0", "r.max_retries IS DISTINCT FROM 0"),
    _set("another kind", "kind", "kind = 'task'"),
    _set("another priority", "priority", "priority = 'high'"),
    _set("another lane", "lane", "lane = 'elsewhere'"),
    _set("another trigger", "trigger_source", "trigger_source = 'elsewhere'"),
    _set("an idempotency key lost", "idempotency_key", "idempotency_key = NULL", "r.idempotency_key IS NOT NULL"),
    _set("an idempotency key invented", "idempotency_key", "idempotency_key = 'made up ' || r.run_id",
         "r.idempotency_key IS NULL"),
    _set("a reference changed", "external_ref", "external_ref = reverse(external_ref)",
         "r.external_ref <> reverse(r.external_ref)"),
    _set("a parent lost", "parent_run_id", "parent_run_id = NULL", "r.parent_run_id IS NOT NULL"),
    _set("another parent", "parent_run_id", "parent_run_id = r.run_id", "r.parent_run_id IS NOT NULL"),
    _set("a parent invented", "parent_run_id", "parent_run_id = r.run_id", "r.parent_run_id IS NULL"),
    _set("another retried run", "retry_of_run_id", "retry_of_run_id = r.run_id",
         "r.retry_of_run_id IS DISTINCT FROM r.run_id"),
    _set("tags", "tags", "tags = '{\"a\": 1}'"),
    _set("no tags", "tags", "tags = NULL"),
    _set("a key of params lost", "params", "params = params - 'made'", "jsonb_typeof(r.params) = 'object'",
         first=_MADE),
    _set("a key of params more", "params", "params = params || '{\"more\": null}'",
         "jsonb_typeof(r.params) = 'object'"),
    _in_made("deep in params", "params = jsonb_set(params, '{made,deep,0,leaf}', '2')"),
    _in_made("a number as text", "params = jsonb_set(params, '{made,number}', '\"1.0\"')"),
    _in_made("true as text", "params = jsonb_set(params, '{made,flag}', '\"true\"')"),
    _in_made("null as absent", "params = params #- '{made,nothing}'"),
    _in_made("order of an array", "params = jsonb_set(params, '{made,list}', '[2, 1]')"),
    _in_made("last digit", "params = jsonb_set(params, '{made,long}', '0.12345678901234567891')"),
    _in_made("scale of a number", "params = jsonb_set(params, '{made,number}', '1.00')", exact=True),
    _set("an object as NULL", "params", "params = NULL", "r.params IS NOT NULL"),
    _set("NULL as JSON null", "result", "result = 'null'", "r.result IS NULL"),
    _set("a result lost", "result", "result = NULL", "jsonb_typeof(r.result) = 'object'"),
    _set("another feed", "metadata.feed_id",
         "metadata = jsonb_set(metadata, '{feed_id}', '\"00000000-0000-4000-8000-000000000000\"')",
         "r.metadata ? 'feed_id'"),
    _set("an entity lost", "metadata.entity_id", "metadata = metadata - 'entity_id'", "r.metadata ? 'entity_id'"),
    _set("another entity type", "metadata.entity_type", "metadata = jsonb_set(metadata, '{entity_type}', '\"job\"')",
         "r.metadata ? 'entity_type' AND r.status IN ('completed', 'failed', 'cancelled')"),
    _set("a key of metadata more", "metadata.more", "metadata = metadata || '{\"more\": 1}'"),
    _set("what was kept is lost", "metadata.legacy.retry_count", "metadata = metadata #- '{legacy,retry_count}'",
         first=_KEPT),
    Kind(
        "a legacy text changed",
        "UPDATE executions x SET error = 'changed since' FROM pick WHERE x.execution_id = pick.run_id",
        "field",
        "error",
    ),
    Kind(
        "a legacy time moved",
        "UPDATE executions x SET created_at = created_at - interval '1 microsecond' FROM pick"
        " WHERE x.execution_id = pick.run_id",
        "field",
        "created_at",
    ),
    Kind(
        "rows that swapped a value",
        "UPDATE runs r SET created_at = s.other FROM (SELECT run_id, coalesce(lead(created_at) OVER w,"
        " first_value(created_at) OVER w) AS other FROM runs JOIN pick USING (run_id)"
        " WINDOW w AS (ORDER BY run_id)) AS s WHERE s.run_id = r.run_id",
        "field",
        "created_at",
        least=2,
    ),
)  # fmt: skip


def inject(connection: Connection, kinds: tuple[Kind, ...], rows: int) -> Iterator[tuple[Kind, set[Place]]]:
    """Each kind into ``rows`` rows of its own, or as many as there are that it fits; gives what is to be found.
    ``connection`` may write both tables.
    """
    connection.execute("""
        CREATE TEMP TABLE free AS
        SELECT r.run_id FROM runs r JOIN executions x ON x.execution_id = r.run_id
         WHERE r.metadata ->> 'migrated_from' = 'capture-spine/executions'
           AND r.run_id NOT IN (SELECT target_key::uuid FROM spine_migrate.link)""")
    connection.execute("ALTER TABLE free ADD PRIMARY KEY (run_id)")
    connection.execute("ANALYZE free")
    connection.execute("CREATE TEMP TABLE pick (run_id uuid PRIMARY KEY)")
    for kind in kinds:
        connection.execute("TRUNCATE pick")
        connection.execute(
            sql.SQL(
                "INSERT INTO pick SELECT run_id FROM free JOIN runs r USING (run_id)"
                " WHERE ({where}) AND run_id > {start}::uuid ORDER BY run_id LIMIT {rows}"
            ).format(
                where=sql.SQL(kind.where),
                start=sql.Literal(_start(kind.name)),
                rows=sql.Literal(max(rows, kind.least)),
            )
        )
        connection.execute("DELETE FROM free USING pick WHERE free.run_id = pick.run_id")
        for statement in kind.first:
            connection.execute(statement)
        keys = connection.execute(sql.SQL("SELECT {}::text FROM pick").format(sql.SQL(kind.key))).fetchall()
        changed = connection.execute(kind.change).rowcount
        assert changed == len(keys) >= kind.least, f"{kind.name}: {changed} changed, {len(keys)} picked"
        yield kind, {(kind.found, key, kind.field) for (key,) in keys}
    connection.execute("DROP TABLE free, pick")


def _start(name: str) -> str:
    """A key from which on a kind picks its rows, in the lower half of all keys."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return "01234567"[int(digest[0], 16) // 2] + digest[1:]
