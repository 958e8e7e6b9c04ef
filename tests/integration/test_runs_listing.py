"""Indexes for lists: each filter is read from one of them, in the order of the list, and they come and go safely."""

from __future__ import annotations

import json
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from spine_migrate.carry.references import references
from spine_migrate.db import catalog, schema
from spine_migrate.db.connect import connect
from spine_migrate.db.run_indexes import DEFINITIONS, Patience, RunIndexes, chosen
from spine_migrate.errors import ConfigurationError, Refused
from spine_migrate.execution.ledgers.listing import listing
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import RunFilter
from spine_migrate.execution.ledgers.statements import Statements
from spine_migrate.execution.retention import Bound, Purge
from spine_migrate.execution.runs import RunStatus
from tests.database import Database, url_for
from tests.runs import NOW, cli, key, told
from tests.structure import structure

_PARENT = "00000000-0000-0000-0000-000000000100"
# Every filter, with the index that serves it; what is rare is what a walk through all runs would be slow at.
_FILTERS = {
    "none": (RunFilter(), "created_at"),
    "status": (RunFilter(status=RunStatus.DEAD_LETTERED), "status"),
    "name": (RunFilter(name="rare"), "name"),
    "lane": (RunFilter(lane="slow"), "lane"),
    "kind": (RunFilter(kind="workflow"), "kind"),
    "parent": (RunFilter(parent_run_id=_PARENT), "parent_run_id"),
    "tag": (RunFilter(tag="customer"), "tags"),
    "tag and value": (RunFilter(tag="customer=7"), "tags"),
    "since": (RunFilter(since=NOW - timedelta(minutes=9000)), "created_at"),
    "until": (RunFilter(until=NOW - timedelta(minutes=9000)), "created_at"),
    "since and until": (RunFilter(since=NOW - timedelta(days=8), until=NOW - timedelta(days=7)), "created_at"),
    "frequent status": (RunFilter(status=RunStatus.COMPLETED), None),
    "frequent tag": (RunFilter(tag="team=search"), None),
}

_FILL = """
INSERT INTO runs (run_id, kind, name, status, lane, parent_run_id, tags, created_at, completed_at)
SELECT lpad(to_hex(n), 32, '0')::uuid,
       CASE WHEN n %% 1000 = 1 THEN 'workflow' ELSE 'task' END,
       CASE WHEN n %% 1000 = 2 THEN 'rare' ELSE 'handler ' || n %% 20 END,
       CASE WHEN n %% 1000 = 3 THEN 'dead_lettered' ELSE 'completed' END,
       CASE WHEN n %% 1000 = 4 THEN 'slow' ELSE 'default' END,
       CASE WHEN n %% 1000 = 5 AND n > 1000 THEN %(parent)s::uuid END,
       CASE WHEN n %% 1000 = 6 THEN '{"customer": "7"}' WHEN n %% 2 = 0 THEN '{"team": "search"}' ELSE '{}' END::jsonb,
       %(now)s - make_interval(mins => n), %(now)s - make_interval(mins => n)
  FROM generate_series(1, 12000) AS n
"""


@pytest.fixture
def runs(database: Database) -> Database:
    database.arrange(schema.upgrade)
    return database


def _twelve_thousand(url: str) -> None:
    schema.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL, {"parent": _PARENT, "now": NOW})
        connection.execute("VACUUM ANALYZE runs")


@pytest.fixture
def filled(database: Database) -> Database:
    database.arrange(_twelve_thousand)
    return database


def create(database: Database, *keys: str, lock_timeout: str = "5s", retry_seconds: float = 0) -> list[str]:
    with connect(database.url) as connection:
        indexes = RunIndexes(connection, catalog.find(connection, "runs", None))
        patience = Patience(lock_timeout, retry_seconds, threading.Event())
        return indexes.create(chosen(keys), patience, lambda _: None)


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for below in plan.get("Plans", []) for node in _nodes(below))]


def explained(connection: psycopg.Connection[Any], query: sql.Composed, values: dict[str, Any]) -> list[dict[str, Any]]:
    ((plan,),) = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) {}").format(query), values).fetchall()
    return _nodes(plan[0]["Plan"])


def _listed(database: Database) -> dict[str, list[str]]:
    with ConnectionPool(database.url, min_size=1) as pool:
        ledger = PostgresLedger(pool)
        return {name: [run.run_id for run in ledger.list_runs(one)] for name, (one, _) in _FILTERS.items()}


def test_each_filter_is_read_from_its_index_in_the_order_of_the_list(filled: Database) -> None:
    before = _listed(filled)
    assert all(before.values())
    assert create(filled) == list(DEFINITIONS)
    with filled.connect() as connection:
        connection.execute("ANALYZE runs")
        for name, (one, index) in _FILTERS.items():
            query, values = listing(sql.Identifier("runs"), one, limit=100, offset=0)
            nodes = explained(connection, query, values)
            used = {node["Index Name"] for node in nodes if "Index Name" in node}
            kinds = {node["Node Type"] for node in nodes}
            assert "Seq Scan" not in kinds, name
            assert len(used) == 1, name
            assert index is None or used == {f"ix_runs_list_{index}"}, name
            # The few that a rare value has may be sorted; what many runs have must come in order.
            assert index not in (None, "created_at") or "Sort" not in kinds, name
    assert _listed(filled) == before


_RUNBOOK = Path(__file__).parents[2] / "runbooks" / "runs.md"


def test_a_tag_with_an_index_of_its_own_is_read_in_order(filled: Database) -> None:
    """The statement is the runbook's; other tags, and values that are no text, are found as before."""
    odd = "a'b\\c %s"
    with filled.connect() as connection:
        connection.execute("UPDATE runs SET tags = '{\"customer\": 7}' WHERE run_id = %s", (str(key(1006)),))
        connection.execute("UPDATE runs SET tags = %s WHERE run_id = %s", (Jsonb({odd: "7"}), str(key(8))))
    tags = ("customer=7", "customer=", "customer", "team=search", f"{odd}=7")

    def listed() -> dict[str, list[str]]:
        with ConnectionPool(filled.url, min_size=1) as pool:
            return {
                tag: [run.run_id for run in PostgresLedger(pool, schema).list_runs(RunFilter(tag=tag))]
                for tag in tags
                for schema in (None, "public")
            }

    before = listed()
    assert [len(found) for found in before.values()] == [11, 0, 12, 100, 1]
    (statement,) = re.findall(r"^ *CREATE INDEX .*?;$", _RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    create(filled)
    with filled.connect(autocommit=True) as connection:
        connection.execute(statement.encode())
        connection.execute(statement.replace("'customer'", sql.Literal(odd).as_string(connection)).encode())
        # Of no use to a list of all statuses.
        connection.execute("CREATE INDEX ON runs ((tags ->> 'team'), created_at) WHERE status = 'failed'")
        connection.execute("ANALYZE runs")
    with filled.connect(autocommit=True) as connection:
        query, values = listing(sql.Identifier("runs"), RunFilter(tag="customer=7"), limit=100, offset=0,
                                tag_in_order=True)  # fmt: skip
        nodes = explained(connection, query, values)
        assert [node["Node Type"] for node in nodes if "Scan" in node["Node Type"]] == ["Index Scan"]
        (scan,) = [node for node in nodes if "Index Name" in node]
        assert scan["Index Name"] not in {one.name for one in DEFINITIONS.values()}
        assert "Sort" not in {node["Node Type"] for node in nodes}
        with ConnectionPool(filled.url, min_size=1) as pool, Statements(pool, None).session() as session:
            ledger = PostgresLedger(pool)
            asked = [tag for tag in tags if ledger._tag_in_order(session, tag)]  # noqa: SLF001 - which way it takes
    assert asked == ["customer=7", "customer=", tags[-1]]
    assert listed() == before


def test_a_purge_finds_old_runs_and_children_by_index(filled: Database) -> None:
    create(filled, "created_at", "parent_run_id", "retry_of_run_id")
    with connect(filled.url) as connection:
        work = Purge(connection, Bound(NOW - timedelta(days=2), migrated=True))
        position = {"last_at": NOW - timedelta(days=3), "last_id": _PARENT, "before": work.bound.before, "limit": 1000}
        statuses = {"statuses": ["completed"]}
        window = work._queries["window"]  # noqa: SLF001 - what is asked is how the server answers it
        nodes = explained(connection, window, {**position, **statuses})
        (scan,) = [node for node in nodes if node.get("Index Name") == "ix_runs_list_created_at"]
        assert "ROW(" in scan["Index Cond"]
        assert "Sort" not in {node["Node Type"] for node in nodes}
        found = references(connection, catalog.find(connection, "runs", None).oid)
        assert {one.columns[0] for one in found if one.own and one.indexed} == {"parent_run_id", "retry_of_run_id"}


def test_dropping_leaves_the_schema_as_the_revisions_made_it(runs: Database) -> None:
    before = structure(runs.url)
    assert told(cli(runs, "runs", "index", "create", "--json")) == {"format": 1, "created": list(DEFINITIONS)}
    assert structure(runs.url) != before
    assert told(cli(runs, "runs", "index", "create", "--json")) == {"format": 1, "created": []}
    assert told(cli(runs, "runs", "index", "drop", "tags", "--json")) == {"format": 1, "dropped": ["tags"]}
    assert "Nothing to do" in cli(runs, "runs", "index", "drop", "tags").stdout
    assert cli(runs, "runs", "index", "drop").exit_code == 0
    assert structure(runs.url) == before


def test_status(runs: Database) -> None:
    create(runs, "status", "lane")
    with runs.connect_admin(autocommit=True) as admin:
        admin.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_runs_list_lane'::regclass")
    shown = cli(runs, "runs", "index", "status", "--json")
    assert shown.exit_code == 1
    states = {one["key"]: (one["bytes"] is not None, one["valid"]) for one in json.loads(shown.stdout)["indexes"]}
    assert states == {
        **dict.fromkeys(DEFINITIONS, (False, False)),
        "status": (True, True),
        "lane": (True, False),
    }
    text = cli(runs, "runs", "index", "status").stdout
    assert "invalid: create builds it anew" in text
    assert create(runs, "status", "lane") == ["lane"]
    create(runs)
    assert cli(runs, "runs", "index", "status").exit_code == 0


def test_a_transaction_that_does_not_end_is_not_waited_for_for_ever(runs: Database) -> None:
    """What could not be built is said; later it is built, whatever the first try has left."""
    with runs.connect() as other:
        other.execute("INSERT INTO runs (kind, name) VALUES ('task', 'x')")
        with pytest.raises(Refused) as refused:
            create(runs, "status", lock_timeout="50ms")
        assert refused.value.precondition == "lock-in-time"
        assert "pg_stat_activity" in refused.value.sentence
    assert create(runs, "status") == ["status"]
    with connect(runs.url) as connection:
        states = RunIndexes(connection, catalog.find(connection, "runs", None)).states()
    assert [one.key for one in states if one.valid] == ["status"]


def test_writers_go_on_while_a_build_waits(runs: Database) -> None:
    with runs.connect() as other, runs.connect(autocommit=True) as writer:
        other.execute("INSERT INTO runs (kind, name) VALUES ('task', 'x')")
        # It must not give up before the writer has had its turn.
        building = threading.Thread(target=create, args=(runs, "status"), kwargs={"lock_timeout": "1min"})
        building.start()
        waiting = "SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%%' AND wait_event_type = 'Lock'"
        while not writer.execute(waiting + " AND datname = current_database()").rowcount:
            assert building.is_alive()
        writer.execute("SET lock_timeout = '1s'")
        writer.execute("INSERT INTO runs (kind, name) VALUES ('task', 'y')")
        other.commit()
        building.join()
    assert create(runs, "status") == []


@pytest.mark.parametrize(
    "statements", ["CREATE TABLE ix_runs_list_kind (x int)",
                   "CREATE TABLE other (x int); CREATE INDEX ix_runs_list_tags ON other (x)"]
)  # fmt: skip
def test_a_name_that_is_taken(runs: Database, statements: str) -> None:
    with runs.connect() as connection:
        connection.execute(statements.encode())
    with pytest.raises(Refused, match="belongs to something else"):
        create(runs)


def test_an_offline_load_that_is_not_finished(runs: Database) -> None:
    with runs.connect() as connection:
        connection.execute(
            "WITH m AS (INSERT INTO spine_migrate.migration"
            " (mapping, mapping_digest, source_table, target_table, step, tool_version)"
            """ VALUES ('mine', 'd', '"public"."s"', '"public"."runs"', 'backfill', '0') RETURNING migration_id)"""
            " INSERT INTO spine_migrate.deferred_ddl (migration_id, ordinal, object, kind, drop_sql, create_sql)"
            " SELECT migration_id, 0, 'x', 'index', '', '' FROM m"
        )
    with pytest.raises(Refused, match="offline load of mine"):
        create(runs)


def test_only_the_owner_builds(runs: Database) -> None:
    role = runs.add_role("reader")
    with runs.connect() as connection:
        connection.execute(sql.SQL("GRANT ALL ON runs, run_handoff TO {}").format(sql.Identifier(role.name)))
    with connect(url_for(runs.server_url, runs.name, role)) as connection:
        indexes = RunIndexes(connection, catalog.find(connection, "runs", None))
        with pytest.raises(Refused, match="Only the owner"):
            indexes.create(chosen(()), Patience("5s", 0, threading.Event()), lambda _: None)


def test_a_partitioned_table_is_refused(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE runs (run_id uuid, status text) PARTITION BY LIST (status)")
    with pytest.raises(Refused, match="is partitioned"):
        create(database)


def test_usage(runs: Database) -> None:
    with pytest.raises(ConfigurationError, match=r"'colour'.*created_at"):
        chosen(["colour"])
    with pytest.raises(ConfigurationError, match="'soon' is not a duration"):
        create(runs, lock_timeout="soon")
