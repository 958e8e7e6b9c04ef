"""What blocks, what is worth knowing, and what could not be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from spine_migrate.db import schema
from spine_migrate.db.connect import Connection, connect
from spine_migrate.demo.generate import create_legacy, generate
from spine_migrate.mapping.load import load
from spine_migrate.plan.make import Options, make_plan
from spine_migrate.plan.model import Finding, Plan
from spine_migrate.report.plan import as_json, as_text
from tests.database import Database
from tests.grants import give

_RUNS = "capture-spine/executions"


def _few_rows(url: str) -> None:
    schema.upgrade(url)
    with connect(url) as opened:
        generate(opened, executions=60, events_per_execution=1, jobs=0, seed=5)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """The legacy tables with a few rows, and the target."""
    database.arrange(_few_rows)
    with connect(database.url) as opened:
        yield opened


def _plan(connection: Connection, name: str = _RUNS) -> Plan:
    return make_plan(connection, load(name))


def _codes(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.code for finding in findings}


def _only_block(plan: Plan) -> Finding:
    assert not plan.ready
    (block,) = plan.blocks
    return block


def test_ordinary_tables_are_ready(connection: Connection) -> None:
    plan = _plan(connection)
    assert plan.ready
    assert as_text([plan]).endswith("\nready")
    assert as_json([plan])["ready"] is True
    assert plan.source is not None
    assert plan.source.inbound_keys == ("execution_events_execution_id_fkey on execution_events",)


def test_a_missing_source(database: Database) -> None:
    database.arrange(schema.upgrade)
    with connect(database.url) as connection:
        block = _only_block(_plan(connection))
    assert block.code == "table-missing"
    assert "'executions'" in block.sentence


def test_a_missing_target_and_ledger(database: Database) -> None:
    with connect(database.url) as connection:
        create_legacy(connection)
        plan = _plan(connection)
    block = _only_block(plan)
    assert block.code == "table-missing"
    assert "db upgrade" in block.remedy
    assert as_text([plan]).splitlines()[-2].startswith("1. ")


def test_a_missing_ledger(database: Database, connection: Connection) -> None:
    schema.downgrade(database.url, revision="spine_0002", force=True)
    plan = _plan(connection)
    assert _only_block(plan).code == "ledger-missing"
    assert plan.rows is not None


def test_drift_is_a_list(connection: Connection) -> None:
    connection.execute("ALTER TABLE executions ADD COLUMN surprise text, DROP COLUMN params")
    plan = _plan(connection)
    assert [block.code for block in plan.blocks] == ["catalog-drift", "catalog-drift"]
    assert any("surprise" in block.sentence for block in plan.blocks)
    assert plan.rows is None
    assert as_text([plan]).splitlines()[-4].startswith("1. ")


def test_missing_optional_columns_are_a_warning(connection: Connection) -> None:
    connection.execute("ALTER TABLE executions DROP COLUMN lane, DROP COLUMN result")
    plan = _plan(connection)
    assert plan.missing_columns == ("lane", "result")
    assert plan.ready
    assert "missing-columns" in _codes(plan.warnings)


def test_a_mapping_changed_since_the_migration_began(connection: Connection) -> None:
    mapping = load(_RUNS)
    connection.execute(
        "INSERT INTO spine_migrate.migration (mapping, mapping_digest, source_table, target_table, step, tool_version)"
        """ VALUES (%s, 'other', '"public"."executions"', '"public"."runs"', 'backfill', '0')""",
        [mapping.name],
    )
    plan = make_plan(connection, mapping)
    assert _only_block(plan).code == "mapping-changed"
    assert plan.started


def test_a_key_without_an_index_is_counted(connection: Connection) -> None:
    connection.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey")
    connection.execute("ALTER TABLE executions DROP CONSTRAINT executions_pkey")
    plan = _plan(connection)
    assert plan.ready
    assert any("doubles" in scan.purpose for scan in plan.scans)
    connection.execute("INSERT INTO executions SELECT * FROM executions LIMIT 1")
    block = _only_block(_plan(connection))
    assert block.code == "key-not-unique"


def test_a_target_without_its_key(connection: Connection) -> None:
    connection.execute("ALTER TABLE run_events DROP CONSTRAINT run_events_pkey")
    assert _only_block(_plan(connection, "capture-spine/execution_events")).code == "target-key-not-unique"


def test_what_hangs_on_the_tables(database: Database, connection: Connection) -> None:
    connection.execute("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    for table in ("executions", "runs"):
        connection.execute(
            sql.SQL("CREATE TRIGGER watch BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION nothing()").format(
                sql.Identifier(table)
            )
        )
    connection.execute("CREATE RULE twice AS ON INSERT TO runs WHERE NEW.name = 'x' DO ALSO SELECT 1")
    connection.execute("ALTER TABLE executions ALTER COLUMN result TYPE json USING result::json")
    connection.execute("ALTER TABLE executions REPLICA IDENTITY FULL")
    connection.execute("ALTER TABLE runs REPLICA IDENTITY NOTHING")
    connection.execute("CREATE PUBLICATION everything FOR TABLE runs")
    plan = _plan(connection)
    assert plan.ready
    assert _codes(plan.warnings) >= {
        *("source-triggers", "target-triggers", "target-rules", "json-columns", "published", "replica-identity"),
        "inbound-keys",
    }
    assert plan.source is not None
    assert plan.source.replica_identity == "full"


def test_an_invalid_index_is_no_guard(database: Database, connection: Connection) -> None:
    with connect(database.admin_url) as admin:
        admin.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_runs_one_active_per_entity'::regclass"
        )
    plan = _plan(connection)
    assert "invalid-index" in _codes(plan.warnings)
    assert plan.target is not None
    assert plan.target.invalid_indexes == ("ix_runs_one_active_per_entity",)


def test_unlogged_and_temporary_tables(connection: Connection) -> None:
    connection.execute("ALTER TABLE execution_events SET UNLOGGED")
    connection.execute("ALTER TABLE run_events SET UNLOGGED")
    plan = _plan(connection, "capture-spine/execution_events")
    assert [finding.code for finding in plan.warnings].count("unlogged") == 2
    connection.execute("CREATE TEMPORARY TABLE executions AS SELECT * FROM public.executions")
    connection.execute("ALTER TABLE pg_temp.executions ALTER COLUMN execution_id SET NOT NULL")
    assert "temporary-table" in _codes(_plan(connection).blocks)


def test_partitions_are_listed(connection: Connection) -> None:
    connection.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey")
    connection.execute("ALTER TABLE executions RENAME TO flat")
    connection.execute(
        "CREATE TABLE executions (LIKE flat, PRIMARY KEY (execution_id)) PARTITION BY HASH (execution_id)"
    )
    for part in (0, 1):
        connection.execute(
            sql.SQL("CREATE TABLE {} PARTITION OF executions FOR VALUES WITH (MODULUS 2, REMAINDER {})").format(
                sql.Identifier(f"part {part}"), part
            )
        )
    connection.execute("INSERT INTO executions SELECT * FROM flat")
    connection.execute("DROP TABLE flat")
    plan = _plan(connection)
    assert plan.ready
    assert plan.source is not None
    assert [part.name for part in plan.source.parts] == ['"public"."part 0"', '"public"."part 1"']
    assert "partitioned" in _codes(plan.warnings)
    assert plan.rows is not None
    assert plan.rows.total > 0


def test_locks_and_long_transactions_of_others(database: Database, connection: Connection) -> None:
    with database.connect() as other:
        other.execute("LOCK TABLE runs IN SHARE MODE")
        plan = make_plan(connection, load(_RUNS), options=Options(long_seconds=0))
    assert plan.locks is not None
    assert [(lock.table, lock.mode, lock.granted) for lock in plan.locks] == [('"public"."runs"', "ShareLock", True)]
    assert plan.long_transactions is not None
    # Autovacuum's transactions are told too; they are nobody's.
    assert [found.role for found in plan.long_transactions if found.role] == [database.owner.name]
    assert _codes(plan.warnings) >= {"locked", "long-transaction"}


def test_a_table_that_is_locked_away_could_not_be_told(database: Database, connection: Connection) -> None:
    connection.execute("SET lock_timeout = '20ms'")
    with database.connect() as other:
        other.execute("LOCK TABLE executions IN ACCESS EXCLUSIVE MODE")
        plan = _plan(connection)
    assert plan.rows is None
    assert any("lock timeout" in unknown.why for unknown in plan.unknown)
    assert "could not tell" in as_text([plan])
    assert _only_block(plan).code == "not-told"


def test_a_role_without_any_privilege_gets_a_plan_all_the_same(database: Database, connection: Connection) -> None:
    role = database.add_role("nobody")
    with connect(database.url_as(role)) as poor:
        plan = _plan(poor)
    block = _only_block(plan)
    assert block.code == "privilege-missing"
    assert plan.missing_grants is not None
    assert f'GRANT SELECT ON TABLE "public"."executions" TO "{role.name}";' in plan.missing_grants
    assert any("permission denied" in unknown.why for unknown in plan.unknown)
    for statement in plan.missing_grants:
        connection.execute(sql.SQL(statement))
    with connect(database.url_as(role)) as rich:
        assert _plan(rich).ready


def test_without_temporary_there_is_no_estimate(database: Database, connection: Connection) -> None:
    connection.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.name)))
    role = database.add_role("planner")
    give(database, role, "executions-to-runs")
    with connect(database.url_as(role)) as poor:
        plan = _plan(poor)
    assert plan.ready
    assert plan.estimate is None
    assert any("TEMPORARY" in unknown.why for unknown in plan.unknown)


def test_row_security_blocks(database: Database, connection: Connection) -> None:
    connection.execute("ALTER TABLE executions ENABLE ROW LEVEL SECURITY")
    role = database.add_role("mover")
    give(database, role, "executions-to-runs")
    assert _plan(connection).ready
    with connect(database.url_as(role)) as hidden:
        plan = _plan(hidden)
    assert _only_block(plan).code == "row-security"
    assert plan.rows is None


def test_a_session_that_takes_no_writes(connection: Connection) -> None:
    connection.execute("SET default_transaction_read_only = on")
    plan = _plan(connection)
    assert _only_block(plan).code == "read-only"
    assert plan.rows is not None
    assert plan.estimate is None


def test_a_terminal_does_not_act_on_row_values(connection: Connection) -> None:
    connection.execute("UPDATE executions SET status = E'\\x1b[2Jgone' WHERE status = 'completed'")
    text = as_text([_plan(connection)])
    assert "\x1b" not in text
    assert "\\x1b[2Jgone" in text


def test_a_mapping_of_ones_own(connection: Connection, tmp_path: Path) -> None:
    """Without a required mapping, in another schema."""
    connection.execute("CREATE SCHEMA elsewhere")
    connection.execute("CREATE TABLE elsewhere.run_events (LIKE run_events INCLUDING ALL)")
    plan = make_plan(connection, load("capture-spine/execution_events"), target_schema="elsewhere")
    # Its runs would have to be there too.
    assert "table-missing" in _codes(plan.blocks)
