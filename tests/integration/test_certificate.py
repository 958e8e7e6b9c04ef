"""Certificates: they can be found again on unchanged data, and any change of a row is seen."""

from __future__ import annotations

from hashlib import sha256
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from spine_migrate.db.raw import rows
from spine_migrate.mapping.bind import declared
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.load import load
from spine_migrate.parity.certificate import Certificate, seal
from spine_migrate.parity.certificate_check import Outcome
from spine_migrate.parity.compare import compare
from tests.certificates import issue, one, roots, verify
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid

EXECUTIONS, EVENTS = "capture-spine/executions", "capture-spine/execution_events"


@arranged
def moved(legacy: Legacy) -> None:
    """Rows of many kinds with two events each, one row in quarantine, one link that waits and one that is broken."""
    legacy.many_executions(40)
    legacy.executions(
        50,
        params='{"a": [1.50, {"b": "x.0} \\" 2.00,"}], "n": 1e3, "z": 0.00}',
        result="7.10",
        error='naïve, "quoted" (1.0) \\ and\ttabs',
        created_at="2024-01-01 00:00:00.000001+00",
        completed_at="infinity",
    )  # fmt: skip
    legacy.executions(51, parent_execution_id=uuid(52), retry_of_execution_id=uuid(99))
    legacy.executions(52, status="limbo")
    legacy.executions(53, parent_execution_id=uuid(50))
    legacy.two_events_each(20, data='{"k": 1.0}')
    legacy.move("executions")
    legacy.move("execution_events")


def test_both_sides_have_one_root_and_it_can_be_found_again(moved: Legacy) -> None:
    certificate = issue(moved.url)
    executions, events = certificate.migrations
    assert (executions.mapping, events.mapping) == (EXECUTIONS, EVENTS)
    assert (executions.old, events.old) == (executions.new, events.new)
    assert (executions.counts.source_rows, executions.old.rows, executions.counts.quarantined) == (44, 43, 1)
    assert [(link.field, link.waiting, link.broken) for link in executions.links] == [
        ("parent_run_id", 1, 0),
        ("retry_of_run_id", 0, 1),
    ]
    assert roots(issue(moved.url)) == roots(certificate)
    assert [found.outcome for found in verify(moved.url, certificate).migrations] == [Outcome.HOLDS] * 2


def test_the_root_is_what_the_documentation_says(moved: Legacy) -> None:
    """Computed a second time, by hand, from the rows as they lie on the target."""
    digests = issue(moved.url, EVENTS).migrations[0]
    moved.execute("UPDATE run_events SET data = '{\"k\": 1}'")  # the one spelling of a number that is hashed
    leaves: list[list[bytes]] = [[] for _ in range(256)]
    with psycopg.connect(moved.url, options="-c timezone=UTC") as connection:
        for key, text in connection.execute(
            "SELECT event_id::text, ROW(event_id, run_id, event_type, timestamp, data, source)::text FROM run_events"
        ):
            leaves[sha256(key.encode()).digest()[0]].append(sha256(text.encode()).digest())
    buckets = [sha256(b"".join(sorted(bucket))) for bucket in leaves]
    assert [bucket.hexdigest() for bucket in buckets] == list(digests.new.buckets)
    assert sha256(b"".join(bucket.digest() for bucket in buckets)).hexdigest() == digests.new.root


def test_the_statements_of_a_certificate_give_its_digests(moved: Legacy) -> None:
    sealed = issue(moved.url, EXECUTIONS).migrations[0]
    with connect(moved.url) as connection:
        for statement in sealed.statements:
            # A literal text, as somebody would paste it.
            found = rows(connection, sql.SQL(statement), sealed.migration_id)
            assert {row["bucket"]: row["digest"].hex() for row in found}.items() <= dict(
                enumerate(sealed.new.buckets)
            ).items()
            assert sum(row["rows"] for row in found) == 43


def run_change(assignment: LiteralString, number: LiteralString = "50") -> LiteralString:
    return "UPDATE runs SET " + assignment + " WHERE run_id = '00000000-0000-4000-8000-0000000000" + number + "'"  # noqa: S608 - literals


TARGET_CHANGES: list[LiteralString] = [
    run_change("kind = 'task'"),
    run_change("name = name || ' '"),
    run_change("params = jsonb_set(params, '{a,1,b}', '\"x.00} \\\" 2.00,\"')"),
    run_change("params = jsonb_set(params, '{z}', '0.01')"),
    run_change("params = NULL"),
    run_change("params = '{}'"),
    run_change("priority = 'high'"),
    run_change("lane = 'NORMAL'"),
    run_change("idempotency_key = ''"),
    run_change("parent_run_id = '00000000-0000-4000-8000-000000000001'"),
    run_change("status = 'failed'"),
    run_change("external_ref = ''"),
    run_change("result = '\"7.1\"'"),
    run_change("result = 'null'"),
    run_change("error = replace(error, '1.0', '1.00')"),
    run_change("error_type = 'E'"),
    run_change("attempt = attempt + 1"),
    run_change("retry_of_run_id = '00000000-0000-4000-8000-000000000001'"),
    run_change("max_retries = max_retries + 1"),
    run_change("trigger_source = 'x'"),
    run_change("metadata = metadata || '{\"x\": null}'"),
    run_change("tags = '{\"x\": 1}'"),
    run_change("created_at = created_at + interval '1 microsecond'"),
    run_change("started_at = 'infinity'"),
    run_change("completed_at = '-infinity'"),
    run_change("metadata = metadata - 'migrated_from'", "39"),
    run_change("run_id = '00000000-0000-4000-8000-0000000000ff'", "38"),
    "DELETE FROM runs WHERE run_id = '00000000-0000-4000-8000-000000000040'",
]

LEGACY_CHANGES: list[LiteralString] = [
    "UPDATE executions SET lane = 'vip' WHERE execution_id = '00000000-0000-4000-8000-000000000003'",
    "UPDATE executions SET status = 'failed' WHERE execution_id = '00000000-0000-4000-8000-000000000003'",
    "UPDATE executions SET parent_execution_id = NULL WHERE execution_id = '00000000-0000-4000-8000-000000000053'",
    "DELETE FROM executions WHERE execution_id = '00000000-0000-4000-8000-000000000040'",
    "INSERT INTO executions (execution_id, pipeline_name, status) VALUES (gen_random_uuid(), 'x', 'pending')",
    "UPDATE executions SET status = 'pending' WHERE status = 'limbo'; DELETE FROM spine_migrate.quarantine",
    "DELETE FROM spine_migrate.link WHERE field = 'parent_run_id'",
]


@pytest.mark.parametrize("changes", [TARGET_CHANGES, LEGACY_CHANGES], ids=["target", "legacy"])
def test_any_change_of_one_row_is_seen(moved: Legacy, changes: list[LiteralString]) -> None:
    """One after the other: each gives the changed side a root that it never had, and leaves the other side alone."""
    certificate = issue(moved.url, EXECUTIONS)
    seen = {certificate.migrations[0].new.root}
    for change in changes:
        moved.execute(change)
        found = one(moved.url, certificate)
        assert found.old is not None
        assert found.new is not None
        side, other = (found.new, found.old) if changes is TARGET_CHANGES else (found.old, found.new)
        assert found.outcome is Outcome.CHANGED, change
        assert side.root_now not in seen, change
        assert (other.buckets, found.agree) == ([], False), change
        seen.add(side.root_now)


def test_the_changes_cover_every_column_that_a_rule_writes() -> None:
    changed = {change.split(" SET ")[1].split(" = ")[0] for change in TARGET_CHANGES if " SET " in change}
    assert changed == set(forward(declared(load(EXECUTIONS)), "s"))


def test_a_changed_row_changes_the_bucket_of_its_key(moved: Legacy) -> None:
    certificate = issue(moved.url, EXECUTIONS)
    moved.execute("UPDATE runs SET lane = 'x' WHERE run_id = %s", uuid(7))
    found = one(moved.url, certificate)
    assert found.new is not None
    assert found.new.buckets == [sha256(uuid(7).encode()).digest()[0]]


def test_what_no_rule_writes_is_not_certified_and_that_is_said(moved: Legacy) -> None:
    certificate = issue(moved.url, EXECUTIONS)
    moved.execute("UPDATE runs SET correlation_id = 'c'")
    assert one(moved.url, certificate).outcome is Outcome.HOLDS
    assert "correlation_id" in certificate.migrations[0].not_compared[0]


def test_the_same_change_on_both_sides_is_a_change_in_which_they_agree(moved: Legacy) -> None:
    certificate = issue(moved.url, EXECUTIONS)
    moved.execute("DELETE FROM executions WHERE execution_id = %s", uuid(40))
    moved.execute("DELETE FROM runs WHERE run_id = %s", uuid(40))
    found = one(moved.url, certificate)
    assert (found.outcome, found.agree) == (Outcome.CHANGED, True)
    assert found.old is not None
    assert (found.old.rows_certified, found.old.rows_now) == (43, 42)


def test_what_is_no_change_is_not_seen_as_one(moved: Legacy) -> None:
    """Rows lie elsewhere and are spelled otherwise, others' rows come and go."""
    certificate = issue(moved.url)
    moved.execute("UPDATE runs SET priority = priority")
    moved.execute(run_change('params = \'{"z": 0, "a": [1.5, {"b": "x.0} \\" 2.00,"}], "n": 1000.0}\''))
    moved.execute("UPDATE runs SET result = '7.1' WHERE result = '7.10'")
    moved.execute("VACUUM FULL runs")
    moved.execute("CLUSTER executions USING executions_pkey")
    moved.execute("INSERT INTO runs (run_id, kind, name) VALUES (gen_random_uuid(), 'task', 'mine')")
    assert verify(moved.url, certificate).outcome is Outcome.HOLDS
    assert roots(issue(moved.url)) == roots(certificate)


ELSEWHERE = {
    "timezone": "Asia/Kolkata",
    "datestyle": "German",
    "intervalstyle": "postgres_verbose",
    "extra_float_digits": "0",
    "bytea_output": "escape",
}


def test_the_session_and_the_database_do_not_count(moved: Legacy, database: Database) -> None:
    certificate = issue(moved.url)
    with database.connect_admin(autocommit=True) as admin:
        for name, value in ELSEWHERE.items():
            admin.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(database.name), sql.Identifier(name), sql.Literal(value)
                )
            )
    with psycopg.connect(moved.url, autocommit=True) as connection:
        shown = connection.execute("SELECT '2024-02-01 12:00+00'::timestamptz::text").fetchall()
        assert shown == [("01.02.2024 17:30:00 IST",)]
    assert roots(issue(moved.url)) == roots(certificate)


def test_a_session_that_is_not_ours_hashes_the_same(moved: Legacy) -> None:
    certificate = issue(moved.url, EVENTS)
    issued: list[Certificate] = []
    options = "-c timezone=Asia/Kolkata -c datestyle=ISO,DMY -c bytea_output=escape"
    with psycopg.connect(moved.url, autocommit=True, options=options) as other:
        compare(other, [EVENTS], closing=lambda report: issued.append(seal(other, report)))
    assert roots(issued[0]) == roots(certificate)


def test_another_place_for_rows_of_a_partitioned_table_is_no_change(database: Database) -> None:
    legacy = build(database)
    legacy.execute(
        "CREATE TABLE parts (LIKE executions INCLUDING DEFAULTS, PRIMARY KEY (execution_id))"
        " PARTITION BY RANGE (execution_id)"
    )
    legacy.execute("DROP TABLE executions CASCADE")
    legacy.execute("ALTER TABLE parts RENAME TO executions")
    legacy.execute(
        "CREATE TABLE low PARTITION OF executions FOR VALUES FROM (MINVALUE) TO"
        " ('00000000-0000-4000-8000-000000000020')"
    )
    legacy.execute("CREATE TABLE rest PARTITION OF executions DEFAULT")
    legacy.many_executions(40)
    legacy.move()
    certificate = issue(legacy.url)
    assert certificate.migrations[0].old.rows == 40
    legacy.execute("ALTER TABLE executions DETACH PARTITION low")
    legacy.execute("INSERT INTO executions TABLE low")
    assert legacy.value("SELECT count(*) FROM rest") == 40
    assert verify(legacy.url, certificate).outcome is Outcome.HOLDS
