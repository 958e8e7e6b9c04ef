"""Roles, views, functions and foreign keys around the tables: they go along, or close the gate."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.cutover.dependents import followers
from spine_migrate.cutover.gates import Gate, examine
from spine_migrate.cutover.group import group
from spine_migrate.cutover.switch import remade
from spine_migrate.db import catalog
from spine_migrate.db.captures import FORWARD
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.errors import Refused
from spine_migrate.mapping.load import load
from spine_migrate.sync.turn import turn_of
from tests.cutting import Pair, gate_of, ten_followed
from tests.database import Database
from tests.legacy import Legacy, build, filled, uuid

_CONSTRAINT: LiteralString = (
    "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'note_execution_id_fkey'"
)


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@pytest.fixture
def pair(database: Database) -> Pair:
    return Pair(filled(database, ten_followed))


def test_a_role_without_privileges_on_the_target_goes_on_by_the_view(database: Database, pair: Pair) -> None:
    role = database.add_role("app")
    legacy = pair.legacy
    name = sql.Identifier(role.name)
    legacy.execute(sql.SQL("GRANT SELECT, INSERT, UPDATE ON executions TO {}").format(name))
    pair.switch()
    with psycopg.connect(database.url_as(role), autocommit=True) as connection:
        connection.execute("UPDATE executions SET error = 'mine' WHERE execution_id = %s", (uuid(1),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM executions")
    pair.back()
    assert legacy.value("SELECT error FROM executions WHERE execution_id = %s", uuid(1)) == "mine"


def test_a_role_reads_the_view_where_functions_are_not_for_all(database: Database, legacy: Legacy) -> None:
    """Its condition names a function of ours, which default privileges may have kept from others."""
    role = database.add_role("reader")
    legacy.many_executions(10)
    legacy.execute(sql.SQL("GRANT SELECT ON executions TO {}").format(sql.Identifier(role.name)))
    legacy.execute("REVOKE EXECUTE ON FUNCTION spine_migrate.refuse_old_snapshot() FROM PUBLIC")
    acl = legacy.value("SELECT proacl::text FROM pg_proc WHERE proname = 'old_snapshot'")
    assert "=X/" in acl
    pair = Pair(legacy)
    pair.begin()
    pair.switch()
    with psycopg.connect(database.url_as(role)) as connection:
        assert connection.execute("SELECT count(*) FROM executions").fetchall() == [(10,)]


def test_what_was_granted_and_revoked_on_the_view_holds_for_the_table(database: Database, pair: Pair) -> None:
    legacy = pair.legacy
    names = [database.add_role(name).name for name in ("gone", "come")]
    gone, come = map(sql.Identifier, names)
    legacy.execute(sql.SQL("GRANT SELECT, INSERT, UPDATE (error) ON executions TO {}").format(gone))
    pair.switch()
    legacy.execute(sql.SQL("REVOKE INSERT ON executions FROM {}").format(gone))
    legacy.execute(sql.SQL("REVOKE UPDATE (error) ON executions FROM {}").format(gone))
    legacy.execute(sql.SQL("GRANT SELECT (status) ON executions TO {} WITH GRANT OPTION").format(come))
    pair.back()
    assert legacy.value("SELECT relkind FROM pg_class WHERE oid = 'executions'::regclass") == "r"
    asked = "has_table_privilege({0}, 'executions', 'SELECT'), has_table_privilege({0}, 'executions', 'INSERT'),"
    asked += " has_any_column_privilege({0}, 'executions', 'UPDATE'),"
    asked += " has_column_privilege({0}, 'executions', 'status', 'SELECT WITH GRANT OPTION')"
    held = [legacy.rows(sql.SQL("SELECT " + asked).format(sql.Literal(name))) for name in names]
    assert held == [[(True, False, False, False)], [(False, False, False, True)]]


def test_a_view_of_another_owner_closes_the_gate(database: Database, legacy: Legacy) -> None:
    """It has to be made again, which its owner alone may do."""
    role = database.add_role("analyst")
    name = sql.Identifier(role.name)
    legacy.execute(sql.SQL("GRANT SELECT ON executions TO {}").format(name))
    legacy.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(name))
    with psycopg.connect(database.url_as(role)) as connection:
        connection.execute("CREATE VIEW report AS SELECT status FROM executions")
    Pair(legacy).begin()
    for with_view in (True, False):
        with connect(legacy.url, settings=PINNED) as connection:
            members = group(connection, [load("capture-spine/executions")])
            examined = examine(
                connection,
                members,
                turn_of(connection, members, FORWARD),
                parity=Gate("parity", ok=True, evidence=""),
                with_view=with_view,
                max_lag=0,
                accepted=(),
            )
        (gate,) = [one for one in examined.gates if one.name == "privileges"]
        assert (gate.ok, "ownership of public.report" in gate.evidence) == (not with_view, with_view)


def test_what_was_made_over_the_view_since_goes_back_as_it_is_now(pair: Pair) -> None:
    """A deploy after the cutover made a view and changed another; what cannot be pointed anew is named."""
    legacy = pair.legacy
    pair.switch()
    legacy.execute("CREATE VIEW report AS SELECT execution_id FROM executions")
    legacy.execute("CREATE OR REPLACE VIEW report AS SELECT execution_id, status FROM executions")
    legacy.execute("CREATE MATERIALIZED VIEW kept AS SELECT execution_id FROM executions")
    with pytest.raises(Refused, match=r"materialized view public\.kept depends"):
        pair.back()
    legacy.execute("DROP MATERIALIZED VIEW kept")
    pair.back()
    legacy.executions(11, status="running")
    assert legacy.value("SELECT status FROM report WHERE execution_id = %s", uuid(11)) == "running"


def test_a_function_of_the_row_type_is_not_made_again(legacy: Legacy) -> None:
    """It would be another function beside the first, which goes on with the table's type; it blocks instead."""
    legacy.execute("CREATE FUNCTION label(executions) RETURNS text LANGUAGE sql AS 'SELECT $1.status::text'")
    with connect(legacy.url, settings=PINNED) as connection:
        relation = catalog.find(connection, "executions", "public")
        (found,) = [one for one in followers(connection, relation) if "label" in one.object]
    assert (found.blocks, remade([found])) == (True, [])


def test_a_foreign_key_of_another_table_goes_along_and_comes_back(pair: Pair) -> None:
    """With what it does on deletion; rows that point to runs made since are taken, and hold afterwards."""
    legacy = pair.legacy
    legacy.execute(
        "CREATE TABLE note (note_id int PRIMARY KEY, execution_id uuid REFERENCES executions ON DELETE CASCADE)"
    )
    legacy.execute("INSERT INTO note VALUES (1, %s), (2, %s)", uuid(1), uuid(2))
    before = legacy.value(_CONSTRAINT)
    assert gate_of(legacy, "foreign-keys").ok
    assert gate_of(legacy, "dependents").ok
    assert pair.switch().unproven == []
    legacy.executions(50)
    legacy.execute("INSERT INTO note VALUES (3, %s)", uuid(50))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(1))
    assert legacy.rows("SELECT note_id FROM note ORDER BY 1") == [(2,), (3,)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        legacy.execute("INSERT INTO note VALUES (4, %s)", uuid(99))
    assert pair.back().unproven == []
    assert legacy.value(_CONSTRAINT) == before
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(50))
    assert legacy.rows("SELECT note_id FROM note ORDER BY 1") == [(2,)]


def test_a_foreign_key_of_the_table_to_another_closes_the_gate(legacy: Legacy) -> None:
    """What is deleted through the view is in the legacy table for a moment yet, and holds what it points to."""
    legacy.execute("CREATE TABLE feeds (feed_id uuid PRIMARY KEY)")
    legacy.execute("INSERT INTO feeds VALUES (%s), (%s)", uuid(1), uuid(2))
    legacy.executions(1, feed_id=uuid(1))
    legacy.executions(2, feed_id=uuid(2))
    Pair(legacy).begin()
    key = '"of_feed" ON "public"."executions"'
    assert gate_of(legacy, "dependents").ok
    for action in ("ON DELETE CASCADE", ""):
        legacy.execute(
            sql.SQL("ALTER TABLE executions ADD CONSTRAINT of_feed FOREIGN KEY (feed_id) REFERENCES feeds {}").format(
                sql.SQL(action)
            )
        )
        gate = gate_of(legacy, "dependents")
        assert (gate.ok, key in gate.evidence) == (False, True)
        assert gate_of(legacy, "dependents", accepted=[key]).ok
        if action:
            legacy.execute("ALTER TABLE executions DROP CONSTRAINT of_feed")
    Pair(legacy).switch()
    with psycopg.connect(legacy.url) as connection:
        connection.execute("DELETE FROM executions WHERE execution_id = %s", (uuid(1),))
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("DELETE FROM feeds WHERE feed_id = %s", (uuid(1),))


def test_a_table_that_points_to_it_and_is_another_roles_closes_the_gate(database: Database, legacy: Legacy) -> None:
    role = database.add_role("notary")
    name = sql.Identifier(role.name)
    legacy.execute(sql.SQL("GRANT REFERENCES ON executions TO {}").format(name))
    legacy.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(name))
    with psycopg.connect(database.url_as(role)) as connection:
        connection.execute("CREATE TABLE note (execution_id uuid REFERENCES executions)")
        connection.execute(sql.SQL("GRANT SELECT ON note TO {}").format(sql.Identifier(database.owner.name)))
    Pair(legacy).begin()
    gate = gate_of(legacy, "privileges")
    assert (gate.ok, "ownership of public.note" in gate.evidence) == (False, True)


def test_a_partitioned_table_that_points_to_it(legacy: Legacy) -> None:
    """Its foreign key goes along where the server makes one NOT VALID, and closes the gate where it does not."""
    legacy.executions(1)
    legacy.execute("CREATE TABLE note (n int, execution_id uuid REFERENCES executions) PARTITION BY LIST (n)")
    legacy.execute("CREATE TABLE note_1 PARTITION OF note FOR VALUES IN (1)")
    legacy.execute("INSERT INTO note VALUES (1, %s)", uuid(1))
    pair = Pair(legacy)
    pair.begin()
    gate = gate_of(legacy, "foreign-keys")
    if legacy.value("SELECT current_setting('server_version_num')::int") < 180000:
        assert (gate.ok, "before PostgreSQL 18" in gate.evidence) == (False, True)
        return
    assert gate.ok
    assert (pair.switch().unproven, pair.back().unproven) == ([], [])


def test_what_pointed_to_it_and_is_gone_or_renamed_holds_no_way_back_up(pair: Pair) -> None:
    legacy = pair.legacy
    legacy.execute("CREATE TABLE gone (execution_id uuid REFERENCES executions)")
    legacy.execute("CREATE TABLE note (execution_id uuid REFERENCES executions ON DELETE CASCADE)")
    before = legacy.value(_CONSTRAINT)
    pair.switch()
    legacy.execute("DROP TABLE gone")
    legacy.execute("ALTER TABLE note RENAME TO notes")
    assert pair.back().unproven == []
    assert legacy.value(_CONSTRAINT) == before
    legacy.executions(50)
    legacy.execute("INSERT INTO notes VALUES (%s)", uuid(50))


def test_a_view_that_was_dropped_holds_no_way_back_up(pair: Pair) -> None:
    """What has its name is not taken for it."""
    legacy = pair.legacy
    pair.switch()
    legacy.execute("DROP VIEW executions, execution_events")
    legacy.execute("CREATE VIEW executions AS SELECT 1 AS n")
    with pytest.raises(Refused, match=r'"public"\."executions", the name that the legacy table gets back'):
        pair.back()
    legacy.execute("DROP VIEW executions")
    legacy.execute("UPDATE runs SET error = 'since' WHERE run_id = %s", uuid(1))
    pair.back()
    assert legacy.value("SELECT error FROM executions WHERE execution_id = %s", uuid(1)) == "since"
    assert legacy.value("SELECT count(*) FROM pg_proc WHERE proname LIKE 'view\\_%%'") == 0
    pair.switch()
    assert legacy.value("SELECT count(*) FROM executions") == 10


def test_a_session_of_a_replica_writes_nothing_through_the_view(database: Database, pair: Pair) -> None:
    """As the runbook says: the server calls no trigger there, and takes that for done."""
    pair.switch()
    with database.connect_admin(autocommit=True) as admin:
        admin.execute("SET session_replication_role = replica")
        admin.execute("INSERT INTO executions (execution_id, pipeline_name) VALUES (%s, 'p')", (uuid(77),))
    assert pair.legacy.value("SELECT count(*) FROM runs") == 10
