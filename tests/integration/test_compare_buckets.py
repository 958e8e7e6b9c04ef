"""What only digests have to get right: several tables in one, many suspects, their sessions, the choice itself."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from spine_migrate.parity import digest, find, snapshot
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Comparison, Difference, Report, Verdict
from spine_migrate.parity.options import Finding, Options
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid
from tests.waiting import until


def compared(url: str, method: Finding = Finding.BUCKETS, *, workers: int = 2, named: int = 100) -> Report:
    with connect(url) as connection:
        return compare(connection, options=Options(method=method, workers=workers, max_differences=named))


def only(report: Report) -> Comparison:
    (comparison,) = report.comparisons
    return comparison


@arranged
def legacy(old: Legacy) -> None:
    """Three hundred executions: some in quarantine, some with links that lead nowhere."""
    old.many_executions(300)
    old.execute("UPDATE executions SET status = 'zombie' WHERE right(execution_id::text, 2) = '77'")
    old.execute(
        "UPDATE executions SET parent_execution_id = %s, retry_of_execution_id = %s"
        " WHERE right(execution_id::text, 2) IN ('11', '12')",
        uuid(77),
        uuid(9999),
    )
    old.move()


def harmed(legacy: Legacy) -> None:
    """Differences of every kind, and links and quarantine that are as they should be beside them."""
    for statement in (
        "UPDATE runs SET lane = 'touched' WHERE right(run_id::text, 1) = '3'",
        "UPDATE runs SET error = NULL, name = 'other' WHERE right(run_id::text, 2) = '11'",
        "DELETE FROM runs WHERE right(run_id::text, 2) = '24'",
        "DELETE FROM executions WHERE right(execution_id::text, 2) = '25'",
        "UPDATE executions SET retry_count = 2147483647 WHERE right(execution_id::text, 2) = '26'",
        """INSERT INTO spine_migrate.quarantine (migration_id, source_key, source_row, reason, detail)
           SELECT migration_id, '00000000-0000-4000-8000-000000000030', '{}', 'too_long', 'by hand'
             FROM spine_migrate.migration""",
        "DELETE FROM executions WHERE execution_id = '00000000-0000-4000-8000-000000000177'",
        "UPDATE runs SET metadata = metadata || '{\"by\": \"hand\"}' WHERE right(run_id::text, 3) = '040'",
    ):
        legacy.execute(statement)


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
@pytest.mark.parametrize("aside", [0, 50_000])
def test_a_join_and_buckets_say_the_same(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch, chunk: int, aside: int
) -> None:
    monkeypatch.setattr(find, "_CHUNK", chunk)
    monkeypatch.setattr(digest, "_MOST_ASIDE", aside)
    assert only(compared(legacy.url)).verdict is Verdict.EQUAL
    harmed(legacy)
    join, buckets = (only(compared(legacy.url, method, named=1000)) for method in (Finding.JOIN, Finding.BUCKETS))
    assert join.verdict is Verdict.DIFFERENT
    assert (buckets.counts, buckets.equations) == (join.counts, join.equations)
    assert (buckets.links, buckets.reasons, buckets.fields) == (join.links, join.reasons, join.fields)
    assert sorted(map(repr, buckets.differences)) == sorted(map(repr, join.differences))
    assert buckets.differences_total == join.differences_total == len(join.differences)


def test_the_list_is_limited_and_every_kind_of_difference_is_in_it(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_CHUNK", 7)
    legacy.execute("UPDATE runs SET lane = 'touched' WHERE run_id <> %s", uuid(300))
    legacy.execute("UPDATE runs SET error = 'rare' WHERE run_id = %s", uuid(300))

    def place(one: Difference) -> tuple[str | None, str | None]:
        return one.key, one.field

    comparison = only(compared(legacy.url, named=3))
    assert comparison.differences_total == 297
    assert [place(one) for one in comparison.differences] == [
        (uuid(1), "lane"),
        (uuid(300), "error"),
        (uuid(2), "lane"),
    ]


def test_partitions_and_tables_that_inherit_are_read_each_by_itself(database: Database) -> None:
    legacy = build(database)
    legacy.execute("CREATE TABLE executions_old () INHERITS (executions)")
    legacy.execute("ALTER TABLE executions_old ADD PRIMARY KEY (execution_id)")
    legacy.many_executions(40)
    legacy.execute(
        "WITH gone AS (DELETE FROM executions WHERE right(execution_id::text, 1) < '5' RETURNING *)"
        " INSERT INTO executions_old SELECT * FROM gone"
    )
    legacy.move()
    comparison = only(compared(legacy.url))
    assert comparison.verdict is Verdict.EQUAL, comparison.reasons
    assert comparison.counts is not None
    assert comparison.counts.matching == 40
    legacy.execute("UPDATE executions_old SET lane = 'touched' WHERE execution_id = %s", uuid(12))
    assert [one.key for one in only(compared(legacy.url)).differences] == [uuid(12)]


@pytest.mark.parametrize("workers", [1, 5])
def test_any_number_of_workers(legacy: Legacy, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """With portions of one block there is something to do for all of them."""
    monkeypatch.setattr(digest, "SMALLEST", 1)
    assert only(compared(legacy.url, workers=workers)).verdict is Verdict.EQUAL
    legacy.execute("DELETE FROM runs WHERE run_id IN (%s, %s)", uuid(1), uuid(298))
    assert {one.key for one in only(compared(legacy.url, workers=workers)).differences} == {uuid(1), uuid(298)}


def test_all_sessions_see_the_one_snapshot(legacy: Legacy) -> None:
    """What is written after it was taken, and before the blocks are read, is not seen by any of them."""
    with connect(legacy.url) as connection:

        def write(_name: str, _number: int, _of: int) -> None:
            legacy.execute("DELETE FROM runs")

        assert compare(connection, options=Options(method=Finding.BUCKETS), started=write).verdict is Verdict.EQUAL


def test_progress_goes_up_to_all_blocks(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "SMALLEST", 1)
    told: list[tuple[int, int]] = []
    with connect(legacy.url) as connection:
        compare(
            connection,
            options=Options(method=Finding.BUCKETS),
            progress=lambda done, of: told.append((done, of)),
        )
    assert told[0][0] == 0
    assert told == sorted(told)
    assert len(told) > 4
    assert told[-1][0] == told[-1][1] == told[0][1]


def test_no_session_outlives_an_interrupt(legacy: Legacy, database: Database) -> None:
    def interrupt(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with connect(legacy.url) as connection, pytest.raises(KeyboardInterrupt):
        compare(connection, options=Options(method=Finding.BUCKETS), progress=interrupt)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        # The server's side of a closed connection takes a moment to end, and autovacuum is none of ours.
        sessions = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
            " AND pid <> pg_backend_pid()"
        )
        until(lambda: admin.execute(sessions).rowcount == 0, "a session is left")


def test_buckets_are_taken_where_a_join_would_not_fit_into_memory(
    legacy: Legacy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = only(compared(legacy.url, Finding.AUTO)).method
    assert method is not None
    assert (method.name, "fits into memory" in method.why) == ("join", True)
    monkeypatch.setitem(snapshot.SETTINGS, "work_mem", "64kB")
    # What was known when the table was small says little of it now.
    legacy.execute("ANALYZE")
    legacy.many_executions(2000, first=1000)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} SET temp_file_limit = '8kB'").format(sql.Identifier(database.name)))
    legacy.move()
    comparison = only(compared(legacy.url, Finding.AUTO))
    assert comparison.method is not None
    assert comparison.method.name == "buckets"
    assert "temporary files" in comparison.method.why
    assert "temp_file_limit" in comparison.method.why
    assert comparison.verdict is Verdict.EQUAL


def test_a_target_whose_key_may_be_null_is_joined(legacy: Legacy) -> None:
    legacy.execute("ALTER TABLE runs DROP CONSTRAINT runs_pkey CASCADE")
    legacy.execute("ALTER TABLE runs ALTER run_id DROP NOT NULL")
    legacy.execute("INSERT INTO runs SELECT * FROM runs LIMIT 1")
    comparison = only(compared(legacy.url))
    assert comparison.method is not None
    assert (comparison.method.name, comparison.method.why) == ("join", "runs.run_id may be NULL")
    assert "duplicates" in [reason.code for reason in comparison.reasons]
