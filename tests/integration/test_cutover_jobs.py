"""Cutover of a table whose target keys are hashes of its own: the legacy key stands elsewhere in the run."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.backfill.undo import Options, undo
from spine_migrate.cutover import key_index
from spine_migrate.cutover.group import facts_of, group
from spine_migrate.db import key_indexes, schema
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.mapping.load import load
from spine_migrate.sync.renew import renew
from tests.cutting import BOTH, PATIENCE, Pair
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid
from tests.syncing import apply
from tests.waiting import until

_SAME: LiteralString = """
    (TABLE jobs EXCEPT TABLE jobs_legacy) UNION ALL (TABLE jobs_legacy EXCEPT TABLE jobs)
"""
_LOOK_UPS: tuple[LiteralString, ...] = (
    "SELECT * FROM jobs WHERE job_id = 70",
    "SELECT * FROM jobs WHERE job_id = ANY ('{70,71}')",
    "SELECT * FROM wanted JOIN jobs USING (job_id)",
    "UPDATE jobs SET status = 'done' WHERE job_id = 70",
    "UPDATE jobs SET status = 'done' FROM wanted WHERE wanted.job_id = jobs.job_id",
    "DELETE FROM jobs WHERE job_id = 70",
)


@arranged
def legacy(legacy: Legacy) -> None:
    """Ten jobs, moved, their changes captured."""
    legacy.execute(
        "INSERT INTO jobs (job_type, status, priority, attempts, feed_id)"
        " SELECT 'fetch', CASE WHEN n %% 2 = 0 THEN 'done' ELSE 'queued' END, n %% 10, n %% 4,"
        "  ('f0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid FROM generate_series(1, %s) AS n",
        10,
    )
    Pair(legacy, ("jobs",)).begin()


@pytest.fixture
def jobs(legacy: Legacy) -> Pair:
    return Pair(legacy, ("jobs",))


def _write(legacy: Legacy) -> int:
    """As an application does, by the name that it knows, whatever it stands for; the key of the job that was added."""
    ((added, status, attempts),) = legacy.rows(
        "INSERT INTO jobs (job_type) VALUES ('new') RETURNING job_id, status, attempts"
    )
    assert (status, attempts) == ("queued", 0)
    legacy.execute("UPDATE jobs SET status = 'error', error_message = 'boom' WHERE job_id = 3")
    assert legacy.rows("UPDATE jobs SET job_id = -job_id WHERE job_id IN (5, -5) RETURNING job_type") == [("fetch",)]
    assert len(
        legacy.rows("DELETE FROM jobs WHERE job_id = (SELECT min(job_id) FROM jobs WHERE job_id > 5) RETURNING 1")
    )
    return int(added)


@pytest.mark.parametrize("with_view", [True, False])
def test_three_rounds(jobs: Pair, *, with_view: bool) -> None:
    """Writes before, between and after; keys go on in one row, and none is given twice."""
    legacy = jobs.legacy
    added = []
    for number in range(3):
        added.append(_write(legacy))
        jobs.switch(with_view=with_view)
        if with_view:
            added.append(_write(legacy))
            jobs.apply()
            assert legacy.rows(_SAME) == []
            _write(legacy)
        else:
            legacy.execute("UPDATE runs SET error = %s WHERE metadata #>> '{legacy,job_id}' = '3'", f"between {number}")
            legacy.execute("DELETE FROM runs WHERE metadata #>> '{legacy,job_id}' = '2'")
        jobs.back()
        legacy.prove("jobs")
    said = legacy.value("SELECT error_message FROM jobs WHERE job_id = 3")
    assert said == ("boom" if with_view else "between 2")
    assert added == sorted(set(added))
    assert legacy.value("SELECT count(*) FROM jobs WHERE job_id = 2") == int(with_view)


def test_only_the_row_that_a_key_leads_to_stands_for_it(jobs: Pair) -> None:
    """Runs that were made natively, a copy of a job's metadata among them, stay in runs and are no jobs."""
    legacy = jobs.legacy
    jobs.switch()
    legacy.execute(
        "INSERT INTO runs (kind, name, lane, metadata)"
        " SELECT 'task', 'native', 'default', m FROM unnest(ARRAY['{}', (SELECT metadata FROM runs WHERE metadata #>>"
        ' \'{legacy,job_id}\' = \'4\'), \'{"legacy": {"job_id": 99}}\', \'{"legacy": {"job_id": "x"}}\'::jsonb]) AS m'
    )
    legacy.execute("INSERT INTO runs (kind, name) VALUES ('pipeline', 'another kind')")
    assert legacy.value("SELECT count(*) FROM jobs") == 10
    with pytest.raises(psycopg.errors.UniqueViolation):
        legacy.execute("INSERT INTO jobs (job_id, job_type) VALUES (4, 'again')")
    # Whoever takes the kept key, or the key itself, from a run takes the job away.
    legacy.execute("UPDATE runs SET metadata = metadata - 'legacy' WHERE metadata #>> '{legacy,job_id}' = '6'")
    legacy.execute("UPDATE runs SET run_id = %s WHERE metadata #>> '{legacy,job_id}' = '7'", uuid(7))
    legacy.execute("UPDATE runs SET kind = 'step' WHERE metadata #>> '{legacy,job_id}' = '8'")
    jobs.apply()
    assert legacy.rows(_SAME) == []
    assert legacy.value("SELECT array_agg(job_id ORDER BY job_id) FROM jobs") == [1, 2, 3, 4, 5, 9, 10]
    jobs.back()
    assert legacy.value("SELECT count(*) FROM runs WHERE name = 'native'") == 4
    assert legacy.value("SELECT count(*) FROM jobs") == 7


def test_a_kept_key_may_be_spelled_otherwise(jobs: Pair) -> None:
    """As JSON takes 3.0 for 3, a client that writes numbers so takes no job away; 3.5 is no key."""
    legacy = jobs.legacy
    jobs.switch()
    for number, spelled in ((3, "3.0"), (4, '"04"'), (5, "5.50")):
        legacy.execute(
            "UPDATE runs SET metadata = jsonb_set(metadata, '{legacy,job_id}', %s::jsonb)"
            " WHERE metadata #>> '{legacy,job_id}' = %s",
            spelled,
            str(number),
        )
    legacy.execute("UPDATE jobs SET error_message = 'seen' WHERE job_id = 3")
    assert legacy.value("SELECT array_agg(job_id ORDER BY job_id) FROM jobs") == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    jobs.apply()
    assert legacy.rows(_SAME) == []
    jobs.back()
    assert legacy.value("SELECT error_message FROM jobs WHERE job_id = 3") == "seen"


def test_a_job_is_deleted_with_what_the_runtime_has_noted_of_its_run(jobs: Pair) -> None:
    """The application deletes a job that a new worker has run, and knows nothing of events; those of others stay."""
    legacy = jobs.legacy
    jobs.switch()
    legacy.execute(
        "INSERT INTO run_events (run_id, event_type) SELECT run_id, 'started' FROM runs WHERE trigger_source = 'jobs'"
    )
    assert len(legacy.rows("DELETE FROM jobs WHERE job_id IN (3, 4) RETURNING 1")) == 2
    assert legacy.value("SELECT count(*) FROM run_events JOIN runs USING (run_id)") == 8
    jobs.apply()
    assert legacy.rows(_SAME) == []
    jobs.back()
    assert legacy.value("SELECT count(*) FROM jobs") == 8
    assert legacy.value("SELECT count(*) FROM run_events") == 8


def _run_of(legacy: Legacy, job: int) -> str:
    return str(legacy.value("SELECT run_id FROM runs WHERE metadata #>> '{legacy,job_id}' = %s", str(job)))


def test_a_job_takes_what_is_of_its_run_alone_to_another_key(jobs: Pair) -> None:
    """What the runtime has noted, who has the run, and runs of the new side that point to it; in one statement with
    other changes, and back again.
    """
    legacy = jobs.legacy
    jobs.switch()
    before = run = _run_of(legacy, 3)
    legacy.execute(
        "INSERT INTO run_events (run_id, event_type) VALUES (%s, 'started'), (%s, 'completed')", before, before
    )
    legacy.execute(
        "INSERT INTO run_handoff (run_id, lane, due_at, retry_delay_seconds, retries_left)"
        " VALUES (%s, 'default', now(), 60, 0)",
        before,
    )
    legacy.execute(
        "INSERT INTO runs (kind, name, parent_run_id, retry_of_run_id) VALUES ('step', 'native', %s, %s)",
        before,
        before,
    )
    for there, to in ((3, 33), (33, -3)):
        changed = "UPDATE jobs SET job_id = %s, attempts = attempts + 5, user_id = 8 WHERE job_id = %s RETURNING job_id"
        assert legacy.rows(changed, to, there) == [(to,)]
        run = _run_of(legacy, to)
        assert run != before
        pointing = legacy.rows(
            "SELECT run_id::text FROM run_events UNION SELECT run_id::text FROM run_handoff"
            " UNION SELECT unnest(ARRAY[parent_run_id, retry_of_run_id])::text FROM runs WHERE name = 'native'"
        )
        assert pointing == [(run,)]
    assert legacy.rows("SELECT job_id, attempts, user_id FROM jobs WHERE job_id IN (3, 33, -3)") == [(-3, 13, 8)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        legacy.execute("UPDATE jobs SET job_id = 4 WHERE job_id = -3")
    jobs.apply()
    assert legacy.rows(_SAME) == []
    jobs.back()
    legacy.prove("jobs")
    assert legacy.value("SELECT count(*) FROM run_events WHERE run_id = %s", run) == 2


def test_a_job_that_is_deleted_after_a_rollback_goes_with_its_events_which_are_kept(jobs: Pair) -> None:
    """The runtime has noted them since the cutover; nobody waits for anybody, and the next cutover finds nothing."""
    legacy = jobs.legacy
    jobs.switch()
    legacy.execute(
        "INSERT INTO run_events (run_id, event_type, data) SELECT run_id, 'started', metadata FROM runs"
        " WHERE trigger_source = 'jobs'"
    )
    jobs.back()
    gone = {_run_of(legacy, number) for number in (3, 4)}
    legacy.execute("DELETE FROM jobs WHERE job_id IN (3, 4)")
    (followed,) = apply(legacy, "jobs")
    assert (followed.applied.deleted, followed.applied.set_aside, followed.lag.nothing) == (2, 2, True)
    assert legacy.value("SELECT count(*) FROM runs") == legacy.value("SELECT count(*) FROM run_events") == 8
    kept = legacy.rows(
        "SELECT target_key, before ->> 'event_type', before -> 'data' -> 'legacy' FROM spine_migrate.set_aside"
    )
    assert {(key, kind) for key, kind, _ in kept} == {(key, "started") for key in gone}
    assert {data["job_id"] for _, _, data in kept} == {3, 4}
    legacy.execute("INSERT INTO jobs (job_id, job_type) VALUES (3, 'again')")
    jobs.apply()
    legacy.execute("TRUNCATE jobs")
    jobs.apply()
    assert legacy.value("SELECT count(*) FROM runs") == legacy.value("SELECT count(*) FROM run_events") == 0
    assert legacy.value("SELECT count(*) FROM spine_migrate.set_aside") == 10
    jobs.switch()


def test_a_way_back_that_was_cut_is_made_anew(jobs: Pair) -> None:
    """What was written meanwhile, a kept key that was taken away among it; what is in quarantine is not looked at."""
    legacy = jobs.legacy
    legacy.execute("INSERT INTO jobs (job_id, job_type, status) VALUES (20, 'odd', 'unheard of')")
    jobs.apply()
    jobs.accept()
    jobs.switch()
    name = legacy.value("SELECT tgname FROM pg_trigger WHERE tgrelid = 'runs'::regclass AND tgname LIKE '%%_update'")
    legacy.execute(
        sql.SQL("ALTER TABLE runs DISABLE TRIGGER {0}; ALTER TABLE runs DISABLE TRIGGER {1}").format(
            sql.Identifier(name), sql.Identifier(name.replace("_update", "_key"))
        )
    )
    legacy.execute("UPDATE runs SET metadata = metadata - 'legacy' WHERE metadata #>> '{legacy,job_id}' = '6'")
    legacy.execute("UPDATE jobs SET error_message = 'meanwhile' WHERE job_id = 1")
    with connect(legacy.url, settings=PINNED) as connection:
        (one,) = group(connection, [load("capture-spine/jobs")])
        assert renew(connection, one, patience=PATIENCE, stop=threading.Event())
    jobs.apply()
    assert legacy.rows(_SAME) == [(20, *legacy.rows("SELECT * FROM jobs_legacy WHERE job_id = 20")[0][1:])]
    assert legacy.value("SELECT error_message FROM jobs_legacy WHERE job_id = 1") == "meanwhile"


def test_a_key_is_looked_up_by_an_index(database: Database, jobs: Pair) -> None:
    """By itself, in a list, by a join; to read, to change and to delete. What a broken build has left is built anew."""
    legacy = jobs.legacy
    jobs.switch()
    jobs.back()
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(
            "UPDATE pg_index SET indisvalid = false FROM pg_class WHERE oid = indexrelid AND relname LIKE 'spine_key_%'"
        )
    jobs.switch()
    ((name, valid, partial),) = legacy.rows(
        "SELECT indexrelid::regclass::text, indisvalid, indpred IS NOT NULL FROM pg_index"
        " WHERE indexrelid::regclass::text LIKE 'spine_key_%%'"
    )
    assert (valid, partial) == (True, True)
    legacy.execute("INSERT INTO jobs (job_id, job_type) SELECT n, 'many' FROM generate_series(11, 3000) AS n")
    legacy.execute(
        "INSERT INTO runs (kind, name) SELECT (ARRAY['pipeline', 'task'])[n %% 2 + 1], 'native'"
        " FROM generate_series(1, %s) AS n",
        3000,
    )
    with legacy.connect() as connection:
        until(lambda: _all_visible(connection), "The pages of runs are not all visible.")
        connection.execute("CREATE TEMPORARY TABLE wanted AS SELECT 70::bigint AS job_id")
        connection.execute("ANALYZE wanted")
        for statement in _LOOK_UPS:
            plan = str(connection.execute(sql.SQL("EXPLAIN (COSTS off) {}").format(sql.SQL(statement))).fetchall())
            assert name in plan, plan
            assert "Seq Scan on runs" not in plan, plan
        # What is in the index need not be asked again whether its key leads to it, and the rows need not be read.
        connection.execute("SET enable_seqscan = off")
        plan = str(connection.execute("EXPLAIN (COSTS off) SELECT count(*) FROM jobs").fetchall())
        assert "Index Only Scan using " + name in plan, plan
        assert "sha256" not in plan, plan
        assert connection.execute("SELECT count(*) FROM jobs").fetchall() == [(3000,)]


def _all_visible(connection: psycopg.Connection[Any]) -> bool:
    """What another session may still see, autovacuum's for example, VACUUM leaves to the next."""
    connection.execute("VACUUM ANALYZE runs")
    visible = "SELECT relallvisible = relpages FROM pg_class WHERE oid = 'runs'::regclass"
    return connection.execute(visible).fetchall() == [(True,)]


def _key_indexes(legacy: Legacy) -> int:
    return int(legacy.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'spine_key_%%'"))


def test_what_a_cutover_has_built_goes_with_the_migration(database: Database, jobs: Pair) -> None:
    """By undo, where sync stop had to leave it since somebody was reading; of another migration it stays."""
    legacy = jobs.legacy
    jobs.switch()
    jobs.back()
    legacy.execute("CREATE INDEX spine_key_99_theirs ON runs (name)")
    with database.connect_admin() as reader:
        reader.execute("SELECT count(*) FROM runs")
        with connect(legacy.url, settings={**PINNED, "lock_timeout": "100ms"}) as connection:
            (one,) = group(connection, [load("capture-spine/jobs")])
            key_indexes.drop_all(connection, one.tables.target, one.migration.migration_id)
    assert _key_indexes(legacy) == 2
    legacy.execute("DELETE FROM spine_migrate.capture")
    done = undo(legacy.url, options=Options(), stop=threading.Event(), report=lambda _: None)
    assert [one.state for one in done] == ["undone"]
    assert legacy.rows("SELECT relname FROM pg_class WHERE relname LIKE 'spine_key_%%'") == [("spine_key_99_theirs",)]


def test_what_a_cutover_has_built_goes_with_the_revision(jobs: Pair) -> None:
    """Of one that did not come to its switch."""
    legacy = jobs.legacy
    with connect(legacy.url, settings=PINNED) as connection:
        made = facts_of(connection, group(connection, [load("capture-spine/jobs")]), {})
        key_index.build(connection, made.values(), patience=PATIENCE, stop=threading.Event())
    legacy.execute("CREATE INDEX spine_key_99_theirs ON runs (name)")
    assert _key_indexes(legacy) == 2
    schema.downgrade(legacy.url, revision="spine_0007", force=True)
    assert legacy.rows("SELECT relname FROM pg_class WHERE relname LIKE 'spine_key_%%'") == [("spine_key_99_theirs",)]


def test_a_key_that_is_equal_and_spelled_otherwise_is_another(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server can, under a collation that does not tell A from a: the row is not taken for the one it was."""
    legacy = build(database)
    file = tmp_path / "capture-spine" / "jobs.toml"
    file.parent.mkdir()
    file.write_text(
        Path("mappings/capture-spine/jobs.toml")
        .read_text()
        .replace('job_id = { type = "bigint"', 'job_id = { type = "text"')
    )
    for module in ("tests.cutting", "tests.syncing", "tests.legacy"):
        monkeypatch.setattr(f"{module}.load", lambda _: load(str(file)))
    legacy.execute("ALTER TABLE jobs ALTER job_id DROP IDENTITY")
    legacy.execute("ALTER TABLE jobs ALTER job_id TYPE text")
    with suppress(psycopg.errors.FeatureNotSupported):
        legacy.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        legacy.execute("ALTER TABLE jobs ALTER job_id TYPE text COLLATE loose")
    legacy.execute("INSERT INTO jobs (job_id, job_type) VALUES ('a', 'one'), ('b', 'two')")
    jobs = Pair(legacy, ("jobs",))
    jobs.begin()
    jobs.switch()
    legacy.execute("UPDATE jobs SET job_id = 'A' WHERE job_id = 'a'")
    jobs.apply()
    assert legacy.value("SELECT array_agg(job_id ORDER BY job_type) FROM jobs_legacy") == ["A", "b"]
    jobs.back()
    assert legacy.value("SELECT array_agg(job_id ORDER BY job_type) FROM jobs") == ["A", "b"]
    assert legacy.value("SELECT count(*) FROM runs") == 2


def test_one_of_two_goes_over_and_the_other_stays(legacy: Legacy) -> None:
    """Executions and jobs share runs: each goes there and back by itself, and both are written all the while."""
    legacy.many_executions(10)
    executions, jobs = Pair(legacy), Pair(legacy, ("jobs",))
    executions.begin()

    def write(number: int) -> None:
        legacy.executions(number, status="running")
        legacy.execute("UPDATE executions SET error = %s WHERE execution_id = %s", str(number), uuid(1))
        legacy.execute("INSERT INTO jobs (job_id, job_type) VALUES (%s, 'both')", number)
        legacy.execute("UPDATE jobs SET error_message = %s WHERE job_id = 1", str(number))

    for number, (pair, over) in enumerate(
        [(executions, True), (jobs, True), (executions, False), (executions, True), (jobs, False), (executions, False)]
    ):
        write(100 + number)
        pair.switch() if over else pair.back()
    write(200)
    executions.apply()
    jobs.apply()
    legacy.prove(*BOTH, "jobs")
    assert legacy.value("SELECT count(*) FROM executions") == 17
    assert legacy.value("SELECT count(*) FROM jobs WHERE job_type = 'both'") == 7
