"""The SQL of the laws that hold between runs: attempts, parents, idempotency keys, one active run per entity.

Asked of the rows themselves, since an index or a foreign key may be missing, invalid, or not yet validated. Every
statement has the columns ``code, runs, inherited, flying, run, of_legacy, note`` and the parameters of
``Lives.judged``. A run is on its way here also where one is that it is judged by.
"""

from __future__ import annotations

from psycopg import sql

from spine_migrate.execution.events import EventType
from spine_migrate.execution.history import AGAIN
from spine_migrate.execution.invariants import ENTITY
from spine_migrate.execution.runs import ACTIVE
from spine_migrate.mapping.emit.letters import types
from spine_migrate.mapping.emit.narrow import Narrow
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.types import typename

COLUMNS = (
    "run_id",
    "attempt",
    "parent_run_id",
    "retry_of_run_id",
    "idempotency_key",
    "status",
    "metadata",
    "created_at",
)
LINKS = ("parent_run_id", "retry_of_run_id")
#: The longest circle of links that is looked for, in runs.
CIRCLE = 100


def _told(code: str, tables: dict[str, Sql], *, recursive: bool = False) -> sql.Composed:
    """``found`` among the tables has ``run, of_legacy, note`` and ``others``, the runs that it is judged by as well."""
    return sql.SQL(
        "WITH {recursive} {tables}, told AS (SELECT *, NOT of_legacy AND (run::text = ANY ($2::text[])"
        " OR coalesce(others::text[] && $2::text[], false)) AS flies FROM found)"
        " SELECT {code} AS code, count(*) FILTER (WHERE NOT flies) AS runs,"
        " count(*) FILTER (WHERE of_legacy) AS inherited, count(*) FILTER (WHERE flies) AS flying, NULL AS run,"
        " NULL::boolean AS of_legacy, NULL AS note FROM told UNION ALL (SELECT {code}, NULL, NULL, NULL, run::text,"
        " of_legacy, note FROM told WHERE NOT flies ORDER BY of_legacy, run LIMIT $1::bigint)"
    ).format(
        recursive=sql.SQL("RECURSIVE" if recursive else ""),
        tables=sql.SQL(", ").join(
            sql.SQL("{} AS ({})").format(sql.Identifier(name), part) for name, part in tables.items()
        ),
        code=sql.Literal(code),
    )


def attempts(runs: Narrow, events: Narrow | None) -> sql.Composed:
    """A run counts its attempts on from that of the run that it retries, one more for each time that its history says
    that it was tried again. Where the history does not begin with the creation, there may have been more of them.

    Events are read on the target only; those that were moved are the legacy ones, as long as the histories are equal.
    """
    new, old = (side("run_id", "attempt", "retry_of_run_id") for side in (runs.new, runs.old))
    kind = typename(runs.binding.mapping.target.columns["run_id"].type.name)
    again = sql.SQL("SELECT NULL::{} AS run_id, 0::bigint AS again, 0::bigint AS moved WHERE false").format(kind)
    whole = sql.SQL("SELECT NULL::{} AS run_id WHERE false").format(kind)
    if events:
        again = sql.SQL(
            "SELECT run_id, count(*) AS again, count(*) FILTER (WHERE ours) AS moved FROM {} AS e"
            " WHERE event_type IN {} GROUP BY run_id"
        ).format(events.new("run_id", "event_type"), types(AGAIN))
        whole = sql.SQL(
            "SELECT DISTINCT run_id FROM {} AS e WHERE event_type = {} AND run_id IN (SELECT run_id FROM known)"
        ).format(events.new("run_id", "event_type"), sql.Literal(str(EventType.CREATED)))
    # In a CASE, as the mark is the dearer question.
    some = sql.SQL(
        "CASE WHEN r.retry_of_run_id IS NOT NULL OR r.run_id IN (SELECT run_id FROM again) THEN r.ours ELSE false END"
    )
    return _told(
        "attempts",
        {
            "again": again,
            "known": _retrying(new, some),
            "whole": whole,
            "counted": sql.SQL(
                "SELECT k.*, coalesce(a.again, 0) AS again, coalesce(a.moved, 0) AS moved,"
                " w.run_id IS NOT NULL AS whole"
                " FROM known AS k LEFT JOIN again AS a USING (run_id) LEFT JOIN whole AS w USING (run_id)"
                " WHERE k.retried IS NOT NULL OR a.again > 0"
            ),
            "bad": sql.SQL("SELECT * FROM counted AS c WHERE {}").format(_miscounted("c", "c.again")),
            "past": _retrying(old, sql.SQL("r.run_id IN (SELECT run_id FROM bad)")),
            "found": sql.SQL(
                "SELECT b.run_id AS run, coalesce((p.attempt, p.retried) IS NOT DISTINCT FROM (b.attempt, b.retried)"
                " AND {}, false) AS of_legacy, ARRAY[b.other, p.other] AS others,"
                " concat_ws(', ', 'attempt ' || b.attempt, 'that of the run it retries ' || b.retried,"
                " 'times tried again ' || nullif(b.again, 0)) AS note"
                " FROM bad AS b LEFT JOIN past AS p USING (run_id)"
            ).format(_miscounted("b", "b.moved")),
        },
    )


def _retrying(runs: Sql, rows: Sql) -> Sql:
    """Runs with their attempt and that of the run they retry; ``rows`` is a condition on the run ``r``."""
    return sql.SQL(
        "SELECT r.run_id, coalesce(r.attempt, 1) AS attempt,"
        " CASE WHEN x.run_id IS NOT NULL THEN coalesce(x.attempt, 1) END AS retried, r.retry_of_run_id AS other"
        " FROM {runs} AS r LEFT JOIN {runs} AS x ON x.run_id = r.retry_of_run_id WHERE {rows}"
    ).format(runs=runs, rows=rows)


def _miscounted(alias: str, again: str) -> Sql:
    return sql.SQL(
        "({c}.attempt < coalesce({c}.retried, 0) + 1 + {again}"
        " OR {c}.whole AND {c}.attempt > coalesce({c}.retried, 0) + 1 + {again})"
    ).format(c=sql.Identifier(alias), again=sql.Identifier(*again.split(".")))


def parents(runs: Narrow) -> sql.Composed:
    """A link leads to a run that is there, and not back to where it began in at most ``CIRCLE`` steps.

    In a circle some run is not younger than the one that names it, so only those are followed.
    """
    tables: dict[str, Sql] = {}
    parts: list[Sql] = []
    for name in LINKS:
        column = sql.Identifier(name)
        edges = sql.SQL("SELECT run_id, {0} AS other, created_at FROM {1} AS r WHERE {0} IS NOT NULL")
        new = edges.format(column, runs.new("run_id", name, "created_at"))
        old = edges.format(column, runs.old("run_id", name, "created_at"))
        ids = {part: sql.Identifier(f"{name}_{part}") for part in ("new", "old", "walk", "ring", "past")}
        tables[f"{name}_new"] = sql.SQL("{} AND ours").format(new)
        tables[f"{name}_old"] = old
        tables[f"{name}_walk"] = sql.SQL(
            "SELECT e.run_id AS start, e.other AS at, 1 AS steps FROM {new} AS e JOIN {runs} AS p ON p.run_id = e.other"
            " WHERE (p.created_at < e.created_at) IS NOT TRUE UNION ALL SELECT w.start, e.other, w.steps + 1"
            " FROM {walk} AS w JOIN {new} AS e ON e.run_id = w.at WHERE w.at <> w.start AND w.steps < {circle}"
        ).format(**ids, runs=runs.new("run_id", "created_at"), circle=sql.Literal(CIRCLE))
        tables[f"{name}_ring"] = sql.SQL(
            "SELECT DISTINCT at AS run FROM {walk} WHERE start IN (SELECT start FROM {walk} WHERE at = start)"
        ).format(**ids)
        tables[f"{name}_past"] = sql.SQL(
            "SELECT run_id AS start, other AS at, 1 AS steps FROM {old} WHERE run_id IN (SELECT run FROM {ring})"
            " UNION ALL SELECT w.start, e.other, w.steps + 1 FROM {past} AS w JOIN {old} AS e ON e.run_id = w.at"
            " WHERE w.at <> w.start AND w.steps < {circle}"
        ).format(**ids, circle=sql.Literal(CIRCLE))
        parts.append(
            sql.SQL(
                "SELECT run, EXISTS (SELECT FROM {past} AS p WHERE p.start = r.run AND p.at = r.run) AS of_legacy,"
                " ARRAY(SELECT b.at::text FROM {walk} AS a JOIN {walk} AS b USING (start) WHERE a.at = r.run)"
                " AS others, {leads} AS note FROM {ring} AS r"
                " UNION ALL SELECT e.run_id, false, ARRAY[e.other::text], format({lost}, e.other) FROM {new} AS e"
                " LEFT JOIN {target} AS p ON p.run_id = e.other WHERE p.run_id IS NULL"
            ).format(
                **ids,
                leads=sql.Literal(f"{name} leads back to the run"),
                lost=sql.Literal(f"{name} names %s, which is not there"),
                target=runs.new("run_id"),
            )
        )
    tables["found"] = sql.SQL(
        "SELECT run, bool_and(of_legacy) AS of_legacy,"
        " string_to_array(string_agg(array_to_string(others, ','), ','), ',') AS others,"
        " string_agg(note, ', ') AS note FROM ({}) AS f GROUP BY run"
    ).format(sql.SQL(" UNION ALL ").join(parts))
    return _told("parents", tables, recursive=True)


def idempotency(runs: Narrow) -> sql.Composed:
    """No two runs have one idempotency key, whoever wrote them."""
    key = sql.SQL("SELECT run_id AS run, idempotency_key AS value{} FROM {} AS r WHERE idempotency_key IS NOT NULL")
    new, old = runs.new("run_id", "idempotency_key"), runs.old("run_id", "idempotency_key")
    return _shared("idempotency", "idempotency_key", key.format(sql.SQL(", ours"), new), key.format(sql.SQL(""), old))


def one_active(runs: Narrow) -> sql.Composed:
    """No two active runs are about one entity, as the guard's index knows it, whoever wrote them."""
    parts = [sql.SQL("metadata ->> {}").format(sql.Literal(part)) for part in ENTITY]
    entity = sql.SQL(
        "SELECT run_id AS run, ROW({parts})::text AS value{ours} FROM {rows} AS r"
        " WHERE status IN ({active}) AND {given}"
    )
    names = {
        "parts": sql.SQL(", ").join(parts),
        "active": sql.SQL(", ").join(sql.Literal(str(status)) for status in sorted(ACTIVE)),
        "given": sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(part) for part in parts),
    }
    new, old = runs.new("run_id", "status", "metadata"), runs.old("run_id", "status", "metadata")
    return _shared(
        "one-active",
        "entity",
        entity.format(ours=sql.SQL(", ours"), rows=new, **names),
        entity.format(ours=sql.SQL(""), rows=old, **names),
    )


def _shared(code: str, name: str, new: Sql, old: Sql) -> sql.Composed:
    """Runs of ours whose ``value`` others have too; ``old`` are the legacy rows that were carried."""
    often = "SELECT value, count(*) AS runs, array_agg(run) AS others FROM {} GROUP BY value HAVING count(*) > 1"
    return _told(
        code,
        {
            "new": new,
            "old": old,
            "new_often": sql.SQL(often).format(sql.Identifier("new")),
            "old_often": sql.SQL(often).format(sql.Identifier("old")),
            "bad": sql.SQL("SELECT n.*, f.runs, f.others FROM new AS n JOIN new_often AS f USING (value) WHERE n.ours"),
            "past": sql.SQL("SELECT o.run FROM old AS o JOIN old_often USING (value) JOIN bad USING (run)"),
            "found": sql.SQL(
                "SELECT b.run, p.run IS NOT NULL AS of_legacy, b.others, format({}, b.value, b.runs) AS note"
                " FROM bad AS b LEFT JOIN past AS p USING (run)"
            ).format(sql.Literal(f"{name} %s: %s runs")),
        },
    )
