"""Many differences: each is named, and in one pass."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from spine_migrate.db import catalog
from spine_migrate.db.connect import connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.chosen import keyed
from spine_migrate.mapping.emit.parity import parity
from spine_migrate.mapping.load import load
from spine_migrate.parity.compare import compare
from spine_migrate.parity.options import Options
from tests.comparing import both_methods, by_method
from tests.legacy import Legacy, arranged, uuid

ROWS = 3000


@arranged
def moved(legacy: Legacy) -> None:
    legacy.many_executions(ROWS)
    legacy.move()
    legacy.execute("UPDATE runs SET error = error || ' '")


@both_methods
def test_all_are_named_where_all_are_asked_for(moved: Legacy) -> None:
    with connect(moved.url) as connection:
        (comparison,) = compare(connection, options=by_method(Options(max_differences=10 * ROWS))).comparisons
    assert {(one.key, one.field) for one in comparison.differences} == {(uuid(n + 1), "error") for n in range(ROWS)}


def test_the_rows_of_many_keys_are_hashed_and_not_looked_up_one_by_one(moved: Legacy) -> None:
    """Each look-up would go through all keys once more: minutes for 50,000 differences."""
    with connect(moved.url) as connection:
        source, target = (catalog.find(connection, table, "public") for table in ("executions", "runs"))
        made = parity(bind(load("capture-spine/executions"), source, target), target.columns)
        statement = sql.SQL("EXPLAIN (FORMAT JSON) {}").format(made.values(keyed(made, 2)))
        keys = [uuid(n + 1) for n in range(ROWS)]
        (((plan,),),) = execute(connection, statement, 1, keys, keys).fetchall()
    join = lowest(plan["Plan"], {"executions", "runs"})
    assert (join["Node Type"], join["Join Type"]) == ("Hash Join", "Full")


def lowest(node: dict[str, Any], tables: set[str]) -> dict[str, Any]:
    """The deepest node of a plan above all of these tables."""
    below = next((one for one in node.get("Plans", ()) if tables <= read(one)), None)
    return node if below is None else lowest(below, tables)


def read(node: dict[str, Any]) -> set[str]:
    return {node.get("Relation Name", "")}.union(*(read(one) for one in node.get("Plans", ())))
