"""The list of runs as one query, composed from the filters that are given."""

from __future__ import annotations

from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from spine_migrate.execution.ledgers.protocol import RunFilter

_EQUAL = ("kind", "status", "name", "parent_run_id", "lane")


def listing(
    runs: sql.Composable, filters: RunFilter, *, limit: int, offset: int, tag_in_order: bool = False
) -> tuple[sql.Composed, dict[str, Any]]:
    """The newest runs first, as columns of ``RunSummary``. ``tag_in_order``: an index has the values of the tag's key
    in the order of the list, which the planner finds for the expression that is indexed only.
    """
    values: dict[str, Any] = {"limit": limit, "offset": offset}
    conditions: list[sql.Composable] = [sql.SQL("true")]
    for name in _EQUAL:
        if (value := getattr(filters, name)) is not None:
            values[name] = str(value)
            conditions.append(sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)))
    if filters.since is not None:
        values["since"] = filters.since
        conditions.append(sql.SQL("created_at >= %(since)s"))
    if filters.until is not None:
        values["until"] = filters.until
        conditions.append(sql.SQL("created_at < %(until)s"))
    if filters.tag is not None:
        key, equals, value = filters.tag.partition("=")
        if equals and tag_in_order:
            values |= {"tag": key, "tagged": value}
            # Of all values those that are text, as the other form finds them; said so that the planner expects most.
            conditions.append(
                sql.SQL(
                    "tags ->> %(tag)s::text = %(tagged)s"
                    " AND jsonb_typeof(tags -> %(tag)s::text) <> ALL ('{number,boolean,array,object}')"
                )
            )
        else:
            values["tag"] = Jsonb({key: value}) if equals else key
            conditions.append(sql.SQL("tags @> %(tag)s" if equals else "tags ? %(tag)s"))
    query = sql.SQL(
        "SELECT run_id, kind, name, status, coalesce(lane, 'default') AS lane, coalesce(attempt, 1) AS attempt,"
        " error_type, coalesce(created_at, started_at, completed_at, 'epoch') AS created_at, started_at, completed_at"
        # By the table's column, not the one above: backwards through an index (spine_migrate.db.run_indexes).
        " FROM {} AS r WHERE {} ORDER BY r.created_at DESC NULLS LAST, r.run_id DESC LIMIT %(limit)s OFFSET %(offset)s"
    ).format(runs, sql.SQL(" AND ").join(conditions))
    return query, values
