"""Equal, different, or could not tell: which it is, and that counts reconcile, in histories of every shape."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db import schema
from spine_migrate.db.connect import connect
from spine_migrate.demo.generate import generate
from spine_migrate.errors import MappingError
from spine_migrate.mapping.load import find, load
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Comparison, Counts, Report, Verdict
from tests.comparing import both_methods, by_method
from tests.database import Database
from tests.legacy import Legacy, build, uuid

pytestmark = both_methods

EXECUTIONS = "capture-spine/executions"


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def compared(url: str, *names: str) -> Report:
    with connect(url) as connection:
        return compare(connection, names, by_method())


def only(report: Report) -> tuple[Comparison, Counts]:
    (comparison,) = report.comparisons
    assert comparison.counts is not None
    return comparison, comparison.counts


def codes(report: Report) -> list[str]:
    reasons = [report.reasons, *(comparison.reasons for comparison in report.comparisons)]
    return [reason.code for part in reasons for reason in part]


def _demonstration(url: str) -> None:
    with psycopg.connect(url) as connection:
        generate(connection, executions=1500, events_per_execution=3, jobs=400, seed=5, awkward=3)
    schema.upgrade(url)
    for entity in ("executions", "execution_events", "jobs"):
        Legacy(url).move(entity)


def test_the_demonstration_data_is_equal_and_its_counts_reconcile(database: Database) -> None:
    database.arrange(_demonstration)
    legacy = Legacy(database.url, database=database)
    report = compared(database.url)
    assert [(each.verdict, each.reasons, each.differences) for each in report.comparisons] == [
        (Verdict.EQUAL, [], [])
    ] * 3
    assert report.verdict is Verdict.EQUAL
    for comparison, table in zip(report.comparisons, ("executions", "execution_events", "jobs"), strict=True):
        counts = comparison.counts
        assert counts is not None
        in_quarantine = legacy.value(
            "SELECT count(*) FROM spine_migrate.quarantine WHERE migration_id = %s", comparison.migration_id
        )
        rows = legacy.value(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
        assert counts.quarantined == in_quarantine > 0
        assert counts.source_rows == rows == counts.matching + in_quarantine
        assert sum(held.open for held in comparison.quarantine) == in_quarantine
        assert all(equation.holds for equation in comparison.equations)
    links = {link.field: link for link in report.comparisons[0].links}
    assert links["parent_run_id"].found == links["parent_run_id"].waiting + links["parent_run_id"].broken > 0


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_table_and_a_single_row_are_equal(legacy: Legacy, rows: int) -> None:
    legacy.executions(*range(rows))
    legacy.move()
    report = compared(legacy.url)
    comparison, counts = only(report)
    assert (report.verdict, counts.source_rows, counts.matching) == (Verdict.EQUAL, rows, rows)
    assert comparison.reasons == []


def test_rejects_only_are_equal_and_counted(legacy: Legacy) -> None:
    legacy.executions(1, 2, 3, status="limbo")
    legacy.move()
    report = compared(legacy.url)
    comparison, counts = only(report)
    assert report.verdict is Verdict.EQUAL
    assert (counts.source_rows, counts.matching, counts.quarantined) == (3, 0, 3)
    assert [(held.reason, held.open) for held in comparison.quarantine] == [("unknown_value", 3)]


def test_a_discarded_row_is_still_accounted_for(legacy: Legacy) -> None:
    legacy.executions(1, status="limbo")
    legacy.move()
    legacy.execute("UPDATE spine_migrate.quarantine SET discarded_at = now(), discarded_by = 'dba'")
    comparison, counts = only(compared(legacy.url))
    assert (comparison.verdict, counts.quarantined) == (Verdict.EQUAL, 1)
    assert [(held.open, held.discarded) for held in comparison.quarantine] == [(0, 1)]


def test_jobs_with_bigint_keys_are_named_by_the_old_key(legacy: Legacy) -> None:
    legacy.add(
        "jobs", *({"job_id": n, "job_type": "ocr", "status": "done", "priority": 1} for n in (7, 9007199254740993))
    )
    legacy.move("jobs")
    assert compared(legacy.url).verdict is Verdict.EQUAL
    legacy.execute("UPDATE runs SET priority = 'low' WHERE metadata #>> '{legacy,job_id}' = '9007199254740993'")
    comparison, _ = only(compared(legacy.url))
    (found,) = comparison.differences
    assert (found.key, found.field, found.old, found.new) == ("9007199254740993", "priority", "realtime", "low")
    assert found.target_key != found.key


def test_a_partitioned_source_without_a_unique_key_of_its_own_is_searched_for_duplicates(database: Database) -> None:
    legacy = build(database)
    legacy.execute("DROP TABLE execution_events")
    legacy.execute(
        """CREATE TABLE execution_events (event_id uuid NOT NULL, execution_id uuid, event_type text,
               timestamp timestamptz NOT NULL, data jsonb, PRIMARY KEY (event_id, timestamp))
           PARTITION BY RANGE (timestamp)"""
    )
    legacy.execute("CREATE TABLE ev_1 PARTITION OF execution_events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    legacy.execute("CREATE TABLE ev_2 PARTITION OF execution_events DEFAULT")
    legacy.executions(1)
    legacy.add(
        "execution_events",
        *(
            {"event_id": uuid(n), "execution_id": uuid(1), "event_type": "started", "timestamp": f"{2023 + n}-05-01"}
            for n in (1, 2)
        ),
    )
    legacy.move("executions")
    legacy.execute(
        """INSERT INTO spine_migrate.migration (mapping, mapping_digest, source_table, target_table, step, tool_version)
           SELECT 'capture-spine/execution_events', %s, '"public"."execution_events"', '"public"."run_events"', 'done',
                  '0'""",
        load("capture-spine/execution_events").digest,
    )
    legacy.execute(
        """INSERT INTO run_events (event_id, run_id, event_type, timestamp, data, source)
           SELECT event_id, execution_id, event_type, timestamp, data, 'capture-spine/execution_events'
             FROM execution_events"""
    )
    legacy.execute(
        """INSERT INTO spine_migrate.checkpoint (migration_id, segment, leaf_schema, leaf_table, filenode, low_block,
                                                 position, rows_moved, done)
           SELECT migration_id, 0, 'public', 'ev_1', 0, 0, '(0,0)', 2, true FROM spine_migrate.migration
            WHERE mapping = 'capture-spine/execution_events'"""
    )
    comparison, counts = only(compared(legacy.url, "capture-spine/execution_events"))
    assert (comparison.verdict, counts.source_rows, counts.duplicate_keys) == (Verdict.EQUAL, 2, 0)
    legacy.execute("INSERT INTO execution_events SELECT event_id, execution_id, event_type, '2030-01-01' FROM ev_1")
    comparison, counts = only(compared(legacy.url, "capture-spine/execution_events"))
    assert (comparison.verdict, counts.duplicate_keys) == (Verdict.DIFFERENT, 1)
    first = comparison.differences[0]
    assert (first.kind, first.target_key, first.note) == ("duplicate", uuid(1), "2 legacy rows lead to this key")


def test_names_that_need_quoting(database: Database) -> None:
    legacy = build(database, source_schema='le"g %s a.cy', target_schema="Ziel; DROP %(x)s")
    legacy.executions(1, 2)
    legacy.move()
    report = compared(legacy.url)
    assert report.verdict is Verdict.EQUAL
    assert only(report)[0].source_table == '"le""g %s a.cy"."executions"'
    legacy.execute("UPDATE runs SET name = %s WHERE run_id = %s", "'; DROP TABLE runs; --", uuid(2))
    (found,) = only(compared(legacy.url))[0].differences
    assert (found.field, found.new) == ("name", "'; DROP TABLE runs; --")


def test_columns_with_unlike_collations_are_compared_byte_by_byte(legacy: Legacy) -> None:
    legacy.execute('ALTER TABLE executions ALTER pipeline_name TYPE text COLLATE "POSIX"')
    legacy.execute('ALTER TABLE runs ALTER name TYPE varchar(100) COLLATE "ucs_basic"')
    legacy.executions(1)
    legacy.move()
    assert compared(legacy.url).verdict is Verdict.EQUAL
    legacy.execute("UPDATE runs SET name = upper(name)")
    (found,) = only(compared(legacy.url))[0].differences
    assert (found.field, found.old, found.new) == ("name", "ingest", "INGEST")


def test_an_unfinished_migration_cannot_be_told(legacy: Legacy) -> None:
    legacy.executions(*range(10))
    legacy.move(limit=4, batch_rows=2)
    report = compared(legacy.url)
    comparison, counts = only(report)
    assert report.verdict is Verdict.UNKNOWN
    assert codes(report) == ["unfinished"]
    assert (counts.source_rows, counts.matching, counts.not_reached, counts.missing) == (10, 4, 6, 0)
    assert all(equation.holds for equation in comparison.equations)
    assert comparison.differences == []


def test_a_difference_in_an_unfinished_migration_is_certain(legacy: Legacy) -> None:
    legacy.executions(*range(10))
    legacy.move(limit=4, batch_rows=2)
    legacy.execute("UPDATE runs SET lane = 'x' WHERE run_id = (SELECT run_id FROM runs LIMIT 1)")
    report = compared(legacy.url)
    assert report.verdict is Verdict.DIFFERENT
    assert codes(report) == ["differing", "unfinished"]


def test_nothing_migrated_cannot_be_told(legacy: Legacy) -> None:
    report = compared(legacy.url)
    assert (report.verdict, codes(report)) == (Verdict.UNKNOWN, ["no-migration"])
    named = compared(legacy.url, EXECUTIONS)
    assert (named.verdict, codes(named)) == (Verdict.UNKNOWN, ["no-migration"])


def test_no_ledger_cannot_be_told(database: Database) -> None:
    report = compared(database.url)
    assert (report.verdict, codes(report)) == (Verdict.UNKNOWN, ["ledger-missing"])


def test_an_unknown_name_is_an_error(legacy: Legacy) -> None:
    with pytest.raises(MappingError, match="capture-spine/executions"):
        compared(legacy.url, "capture-spine/execution")


def test_another_mapping_than_the_one_moved_with_cannot_be_told(legacy: Legacy) -> None:
    legacy.executions(1)
    legacy.move()
    legacy.execute("UPDATE spine_migrate.migration SET mapping_digest = 'f00'")
    report = compared(legacy.url)
    assert (report.verdict, codes(report)) == (Verdict.UNKNOWN, ["mapping-changed"])
    assert report.comparisons[0].counts is None


def test_a_mapping_that_does_not_ship_is_named_by_its_file(legacy: Legacy, tmp_path: Path) -> None:
    file = tmp_path / "our-app" / "executions.toml"
    file.parent.mkdir()
    file.write_text(find(EXECUTIONS).read_text(encoding="utf-8"), encoding="utf-8")
    legacy.executions(1)
    legacy.move(mapping=str(file))
    assert codes(compared(legacy.url)) == ["mapping-unknown"]
    report = compared(legacy.url, str(file))
    assert report.verdict is Verdict.EQUAL
    assert only(report)[0].file == "our-app/executions.toml"


def test_drifted_tables_cannot_be_told_and_leave_the_others_comparable(legacy: Legacy) -> None:
    legacy.executions(1)
    legacy.move("executions")
    legacy.move("execution_events")
    legacy.execute("ALTER TABLE execution_events ADD severity text")
    report = compared(legacy.url)
    assert [each.verdict for each in report.comparisons] == [Verdict.EQUAL, Verdict.UNKNOWN]
    assert (report.verdict, codes(report)) == (Verdict.UNKNOWN, ["catalog-drift"])
    legacy.execute("DROP TABLE execution_events")
    assert codes(compared(legacy.url)) == ["table-missing"]


def test_a_value_that_the_rules_fail_on_cannot_be_told(database: Database, tmp_path: Path) -> None:
    """In quarantine such a row is expected and left alone; outside it, nothing can be said of the whole table."""
    file = tmp_path / "our-app" / "jobs.toml"
    file.parent.mkdir()
    zone = 'zone = "America/New_York"\nlossy = "one hour of the year is there twice"'
    text = find("capture-spine/jobs").read_text(encoding="utf-8").replace('zone = "UTC"', zone)
    file.write_text(text, encoding="utf-8")
    legacy = build(database)
    legacy.add(
        "jobs",
        {"job_id": 1, "job_type": "ocr", "status": "done", "created_at": "294276-12-31 23:59:59"},
        {"job_id": 2, "job_type": "ocr", "status": "done", "created_at": "2024-01-01"},
    )
    legacy.move("jobs", mapping=str(file))
    comparison, counts = only(compared(legacy.url, str(file)))
    assert (comparison.verdict, counts.matching, counts.quarantined) == (Verdict.EQUAL, 1, 1)
    legacy.execute("UPDATE jobs SET created_at = '294276-12-31 23:59:59' WHERE job_id = 2")
    report = compared(legacy.url, str(file))
    assert (report.verdict, codes(report)) == (Verdict.UNKNOWN, ["value-fails"])
    assert "22008" in report.comparisons[0].reasons[0].sentence


@pytest.mark.parametrize("params", ['{"a": 1e400000}', '{"a": "\\ud800"}', '{"a": "\\u0000"}'])
def test_json_that_jsonb_cannot_hold_is_in_quarantine_and_in_nobodys_way(legacy: Legacy, params: str) -> None:
    legacy.execute("ALTER TABLE executions ALTER params DROP DEFAULT, ALTER params TYPE json USING params::json")
    legacy.executions(1, params='{"a": 1}')
    legacy.executions(2, params=params)
    legacy.move()
    (comparison,) = compared(legacy.url).comparisons
    assert comparison.verdict is Verdict.EQUAL, comparison.reasons
    assert comparison.counts is not None
    assert (comparison.counts.matching, comparison.counts.quarantined) == (1, 1)


def test_select_is_enough_and_nothing_can_be_written(database: Database) -> None:
    legacy = build(database)
    legacy.executions(1, 2)
    legacy.move()
    reader = database.add_role("reader")
    with database.connect_admin() as admin:
        for grant in (
            sql.SQL("GRANT USAGE ON SCHEMA spine_migrate, public TO {}"),
            sql.SQL("GRANT SELECT ON executions, runs TO {}"),
            sql.SQL("GRANT SELECT ON spine_migrate.migration, spine_migrate.checkpoint TO {}"),
            sql.SQL("GRANT SELECT ON spine_migrate.quarantine, spine_migrate.link, spine_migrate.capture TO {}"),
        ):
            admin.execute(grant.format(sql.Identifier(reader.name)))
    assert compared(database.url_as(reader)).verdict is Verdict.EQUAL


def test_a_missing_privilege_is_the_servers_own_error(database: Database) -> None:
    legacy = build(database)
    legacy.executions(1)
    legacy.move()
    stranger = database.add_role("stranger")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        compared(database.url_as(stranger))


def test_what_is_written_meanwhile_is_not_seen(legacy: Legacy) -> None:
    """One snapshot: a row that is deleted on both sides between two comparisons is in both or in neither."""
    legacy.executions(*range(5))
    legacy.move("executions")
    legacy.move("execution_events")

    def delete(name: str, number: int, of: int) -> None:
        assert (name, of) != ("", 0)
        if number == 1:
            legacy.execute("DELETE FROM runs")

    with connect(legacy.url) as connection:
        assert compare(connection, options=by_method(), started=delete).verdict is Verdict.EQUAL
        assert compare(connection, options=by_method()).verdict is Verdict.DIFFERENT
