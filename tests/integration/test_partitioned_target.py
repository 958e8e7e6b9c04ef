"""A target in parts: what is captured and carried back, and which are refused."""

from __future__ import annotations

import threading
from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.carry.known import Known
from spine_migrate.cutover.group import facts_of, group
from spine_migrate.cutover.key_index import wanted
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.errors import Refused
from spine_migrate.mapping.load import load
from spine_migrate.sync.renew import renew
from tests.cutting import BOTH, PATIENCE, Pair, gate_of
from tests.database import Database
from tests.legacy import Legacy, build, uuid
from tests.partitions import partition_runs
from tests.syncing import move_live

_SAME: LiteralString = """
    (TABLE jobs EXCEPT TABLE jobs_legacy) UNION ALL (TABLE jobs_legacy EXCEPT TABLE jobs)
"""
_LOW: LiteralString = (
    "CREATE TABLE runs_low PARTITION OF runs FOR VALUES FROM (MINVALUE) TO ('00000000-0000-4000-8000-000000000100')"
)
_HIGH: LiteralString = (
    "CREATE TABLE runs_high PARTITION OF runs FOR VALUES FROM ('00000000-0000-4000-8000-000000000100') TO (MAXVALUE)"
)


@pytest.fixture
def legacy(database: Database) -> Legacy:
    legacy = build(database)
    partition_runs(legacy)
    return legacy


def test_executions_there_and_back(legacy: Legacy) -> None:
    """By the view and beside it, in a part directly; the way back takes it row by row."""
    legacy.many_executions(10)
    pair = Pair(legacy)
    pair.begin()
    for number in range(2):
        legacy.executions(20 + number, status="running")
        pair.switch()
        legacy.execute("UPDATE executions SET error = %s WHERE execution_id = %s", str(number), uuid(1))
        for part in ("runs_even", "runs_odd"):
            legacy.execute(
                sql.SQL("UPDATE {} SET error = 'directly' WHERE run_id <> %s").format(sql.Identifier(part)), uuid(1)
            )
        legacy.executions(30 + number)
        legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(2 + number))
        pair.apply()
        assert (
            legacy.rows(
                "(TABLE executions EXCEPT TABLE executions_legacy) UNION ALL"
                " (TABLE executions_legacy EXCEPT TABLE executions)"
            )
            == []
        )
        pair.back()
        legacy.prove(*BOTH)
    assert legacy.value("SELECT count(*) FROM executions WHERE error = 'directly'") == 10
    assert legacy.value("SELECT error FROM executions WHERE execution_id = %s", uuid(1)) == "1"


def test_jobs_there_and_back(legacy: Legacy) -> None:
    """No index of such a table is built beside its writers, so the gate asks for it; then as with any other."""
    legacy.execute("INSERT INTO jobs (job_type, status) SELECT 'fetch', 'done' FROM generate_series(1, 10)")
    jobs = Pair(legacy, ("jobs",))
    jobs.begin()
    gate = gate_of(legacy, "dependents", "jobs")
    assert (gate.ok, "reads all of" in gate.evidence) == (False, True), gate
    with connect(legacy.url, settings=PINNED) as connection:
        members = group(connection, [load("capture-spine/jobs")])
        legacy.execute(sql.SQL(_index_of(connection, members)))
    assert gate_of(legacy, "dependents", "jobs").ok
    for _ in range(2):
        jobs.switch()
        legacy.execute("UPDATE jobs SET status = 'error', error_message = 'boom' WHERE job_id = 3")
        legacy.execute("INSERT INTO jobs (job_type) VALUES ('new')")
        legacy.execute("UPDATE jobs SET job_id = -job_id WHERE job_id IN (5, -5)")
        legacy.execute("DELETE FROM jobs WHERE job_id = (SELECT min(job_id) FROM jobs WHERE job_id > 5)")
        legacy.execute("UPDATE runs_even SET metadata = metadata - 'legacy' WHERE metadata #>> '{legacy,job_id}' = '9'")
        legacy.execute("UPDATE runs_odd SET metadata = metadata - 'legacy' WHERE metadata #>> '{legacy,job_id}' = '9'")
        jobs.apply()
        assert legacy.rows(_SAME) == []
        jobs.back()
        legacy.prove("jobs")
    assert legacy.value("SELECT count(*) FROM jobs WHERE job_id = 9") == 0


def _index_of(connection: Connection, members: list[Known]) -> str:
    (made,) = facts_of(connection, members, {}).values()
    index = wanted(connection, made)
    assert index is not None
    return index.statement.as_string(None)


def test_a_part_that_is_added_after_the_cutover(database: Database) -> None:
    """Its rows are captured; it lacks the trigger for TRUNCATE, which is told, and made by sync start."""
    legacy = build(database)
    partition_runs(legacy, "RANGE (run_id)", (_LOW,))
    legacy.many_executions(10)
    pair = Pair(legacy)
    pair.begin()
    pair.switch()
    legacy.execute(_HIGH)
    legacy.executions(150)
    with pytest.raises(Refused, match='"runs_high" are not all captured'):
        pair.apply()
    with connect(legacy.url, settings=PINNED) as connection:
        members = group(connection, [load("capture-spine/executions")])
        assert [renew(connection, one, patience=PATIENCE, stop=threading.Event()) for one in members] == [True, False]
    # All of it, since runs refers to itself.
    legacy.execute("TRUNCATE runs_high CASCADE")
    legacy.executions(151)
    pair.apply()
    assert legacy.value("SELECT count(*) FROM executions_legacy") == 1
    pair.back()
    legacy.prove(*BOTH)
    assert legacy.value("SELECT count(*) FROM executions WHERE execution_id = %s", uuid(151)) == 1


def test_a_target_that_is_partitioned_by_time_is_refused(database: Database) -> None:
    """Nothing there keeps a run from being written twice."""
    legacy = build(database)
    partition_runs(
        legacy,
        "RANGE (created_at)",
        ("CREATE TABLE runs_all PARTITION OF runs DEFAULT",),
        "UNIQUE (run_id, created_at)",
    )
    legacy.many_executions(3)
    with pytest.raises(Refused, match="nothing keeps a row from being doubled") as refused:
        move_live(legacy)
    assert refused.value.precondition == "target-key-not-unique"
    assert legacy.value("SELECT count(*) FROM runs") == 0
    assert legacy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'spine%%'") == 0
