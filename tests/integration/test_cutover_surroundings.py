"""Runs that others made, legacy tables that refuse, TRUNCATE, keys that change: what the way back makes of them."""

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
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.errors import Interrupted, Refused
from spine_migrate.mapping.load import load
from spine_migrate.sync import turn
from spine_migrate.sync.turn import Turn, turn_of
from tests.cutting import BOTH, Pair
from tests.database import Database
from tests.legacy import Legacy, build, uuid

_CONSTRAINT: LiteralString = (
    "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'note_execution_id_fkey'"
)


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database.url)


@pytest.fixture
def pair(legacy: Legacy) -> Pair:
    """Ten executions, moved, their changes captured."""
    legacy.many_executions(10)
    pair = Pair(legacy)
    pair.begin()
    return pair


def test_runs_of_others_with_a_legacy_form_follow_and_are_kept_as_they_were(pair: Pair) -> None:
    """The view shows them; after the rollback they are the migration's, and what the legacy row lacks is set aside."""
    legacy = pair.legacy
    pair.switch()
    legacy.execute(
        "INSERT INTO runs (run_id, kind, name, params, lane, tags, metadata, status)"
        " VALUES (%s, 'pipeline', 'native', '{}', 'normal', '{\"team\": \"x\"}', '{\"who\": 1}', 'running')",
        uuid(70),
    )
    legacy.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'task', 'other kind')", uuid(71))
    assert legacy.value("SELECT pipeline_name FROM executions WHERE execution_id = %s", uuid(70)) == "native"
    pair.back()
    legacy.prove(*BOTH)
    assert legacy.value("SELECT pipeline_name FROM executions WHERE execution_id = %s", uuid(70)) == "native"
    kept = legacy.value("SELECT before -> 'tags' FROM spine_migrate.set_aside WHERE target_key = %s", uuid(70))
    assert kept == {"team": "x"}
    assert legacy.value("SELECT count(*) FROM runs WHERE run_id = %s", uuid(71)) == 1
    assert legacy.value("SELECT count(*) FROM executions WHERE execution_id = %s", uuid(71)) == 0
    pair.switch()
    assert legacy.value("SELECT count(*) FROM executions") == 11


def test_a_run_that_loses_its_legacy_form_leaves_the_legacy_table(pair: Pair) -> None:
    legacy = pair.legacy
    pair.switch()
    legacy.execute("UPDATE runs SET kind = 'task' WHERE run_id = %s", uuid(5))
    pair.apply()
    assert legacy.value("SELECT count(*) FROM executions_legacy WHERE execution_id = %s", uuid(5)) == 0
    legacy.execute("UPDATE runs SET kind = 'pipeline' WHERE run_id = %s", uuid(5))
    pair.apply()
    assert legacy.value("SELECT count(*) FROM executions_legacy WHERE execution_id = %s", uuid(5)) == 1


def test_what_the_legacy_table_refuses_waits_and_holds_the_rollback_up(pair: Pair) -> None:
    """Nothing of it is lost; mended, it goes."""
    legacy = pair.legacy
    pair.switch()
    legacy.execute("ALTER TABLE executions_legacy ADD CONSTRAINT short CHECK (length(error) < 30) NOT VALID")
    legacy.execute("UPDATE executions SET error = repeat('x', 40) WHERE execution_id = %s", uuid(5))
    with pytest.raises(Refused, match=f"1 changed rows .*{uuid(5)}"):
        pair.back()
    assert legacy.value("SELECT relkind FROM pg_class WHERE oid = 'executions'::regclass") == "v"
    legacy.execute("UPDATE executions SET error = 'short' WHERE execution_id = %s", uuid(5))
    pair.back()
    assert legacy.value("SELECT error FROM executions WHERE execution_id = %s", uuid(5)) == "short"
    legacy.prove(*BOTH)


def test_values_of_a_unique_index_that_change_hands(pair: Pair) -> None:
    """One ends and another begins on the same feed: the legacy table has its own guard."""
    legacy = pair.legacy
    feed = uuid(7000)
    legacy.executions(20, status="running", feed_id=feed)
    legacy.executions(21, status="completed", feed_id=feed)
    pair.switch()
    with legacy.connect() as connection, connection.transaction():
        connection.execute("UPDATE executions SET status = 'completed' WHERE execution_id = %s", (uuid(20),))
        connection.execute("UPDATE executions SET status = 'running' WHERE execution_id = %s", (uuid(21),))
    pair.apply()
    assert legacy.rows("SELECT status FROM executions_legacy WHERE feed_id = %s ORDER BY execution_id", feed) == [
        ("completed",),
        ("running",),
    ]


def test_truncate_of_the_target(pair: Pair) -> None:
    """The legacy rows go as well, but for those that never were on the target."""
    legacy = pair.legacy
    legacy.executions(20, status="odd")
    pair.apply()
    pair.accept()
    pair.switch()
    legacy.execute("TRUNCATE runs CASCADE")
    legacy.executions(30)
    pair.apply()
    assert legacy.rows("SELECT execution_id::text FROM executions_legacy ORDER BY 1") == [(uuid(20),), (uuid(30),)]


def test_a_key_that_changes_through_the_view(pair: Pair) -> None:
    legacy = pair.legacy
    pair.switch()
    legacy.execute("UPDATE executions SET execution_id = %s WHERE execution_id = %s", uuid(90), uuid(1))
    pair.back()
    legacy.prove(*BOTH)
    assert legacy.value("SELECT count(*) FROM executions WHERE execution_id IN (%s, %s)", uuid(1), uuid(90)) == 1


def test_a_reader_that_stays_holds_the_switch_up_and_nothing_is_changed(pair: Pair) -> None:
    """The attempts give up; the session is named."""
    legacy = pair.legacy
    with legacy.connect() as connection, connection.transaction():
        connection.execute("SELECT count(*) FROM executions")
        with pytest.raises(Interrupted, match="AccessShareLock"):
            pair.switch(seconds=1)
    assert legacy.value("SELECT relkind FROM pg_class WHERE oid = 'executions'::regclass") == "r"
    pair.switch()
    pair.back()
    legacy.prove(*BOTH)


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


def test_a_prepared_transaction_closes_its_gate(pair: Pair) -> None:
    """Where the server allows such transactions at all."""
    legacy = pair.legacy
    if legacy.value("SHOW max_prepared_transactions") == "0":
        assert _gate(legacy, "prepared-transactions").ok
        return
    with psycopg.connect(legacy.url) as connection:
        connection.tpc_begin(connection.xid(1, "spine", "one"))
        connection.execute("UPDATE executions SET error = 'prepared'")
        connection.tpc_prepare()
        assert not _gate(legacy, "prepared-transactions").ok
        connection.tpc_rollback(connection.xid(1, "spine", "one"))


def test_mappings_whose_keys_lead_one_way_are_refused_by_name(legacy: Legacy) -> None:
    legacy.execute("INSERT INTO jobs (job_type, status) VALUES ('x', 'done')")
    jobs = Pair(legacy, ("jobs",))
    jobs.begin()
    gate = _gate(legacy, "keys", "jobs")
    assert not gate.ok
    assert "capture-spine/jobs" in gate.evidence


def test_a_capture_that_is_not_whole_closes_its_gate(pair: Pair) -> None:
    legacy = pair.legacy
    name = legacy.value(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'executions'::regclass AND tgname LIKE '%%_insert'"
    )
    legacy.execute(sql.SQL("DROP TRIGGER {} ON executions").format(sql.Identifier(name)))
    assert not _gate(legacy, "capture").ok


def _gate(legacy: Legacy, name: str, *entities: str) -> Gate:
    with connect(legacy.url, settings=PINNED) as connection:
        members = group(connection, [load(f"capture-spine/{entity}") for entity in entities or BOTH])
        found = examine(
            connection,
            members,
            turn_of(connection, members, FORWARD),
            parity=Gate("parity", ok=True, evidence=""),
            with_view=True,
            max_lag=0,
            accepted=(),
        )
    return next(gate for gate in found.gates if gate.name == name)


def test_a_transaction_with_an_older_snapshot_is_told_to_try_again(pair: Pair) -> None:
    """It would not see what was applied since: at the switch by the view, at the way back when it writes."""
    legacy = pair.legacy
    with legacy.connect() as old:
        old.execute("SET default_transaction_isolation = 'repeatable read'")
        for switch, statement in (
            (pair.switch, "SELECT count(*) FROM executions"),
            (pair.back, "UPDATE executions SET error = 'x'"),
            (pair.switch, "INSERT INTO executions (execution_id, pipeline_name) VALUES (gen_random_uuid(), 'x')"),
        ):
            old.execute("BEGIN")
            old.execute("SELECT count(*) FROM runs WHERE false")
            switch()
            with pytest.raises(psycopg.errors.SerializationFailure, match="due to a cutover"):
                old.execute(sql.SQL(statement))
            old.execute("ROLLBACK")
            with old.transaction():
                old.execute(sql.SQL(statement))


def test_a_foreign_key_of_another_table_goes_along_and_comes_back(pair: Pair) -> None:
    """With what it does on deletion; rows that point to runs made since are taken, and hold afterwards."""
    legacy = pair.legacy
    legacy.execute(
        "CREATE TABLE note (note_id int PRIMARY KEY, execution_id uuid REFERENCES executions ON DELETE CASCADE)"
    )
    legacy.execute("INSERT INTO note VALUES (1, %s), (2, %s)", uuid(1), uuid(2))
    before = legacy.value(_CONSTRAINT)
    assert _gate(legacy, "foreign-keys").ok
    assert _gate(legacy, "dependents").ok
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


def test_a_row_that_comes_into_quarantine_after_the_gates_stops_the_switch(pair: Pair) -> None:
    """The target would go on with the row as it was before; accepted as it is now, it may."""
    legacy = pair.legacy
    legacy.execute("UPDATE executions SET status = 'odd' WHERE execution_id = %s", uuid(1))
    with pytest.raises(Refused, match="1 rows of capture-spine/executions came into quarantine"):
        pair.switch()
    assert legacy.value("SELECT to_regclass('executions_legacy') IS NULL")
    pair.apply()
    pair.accept()
    pair.switch()
    assert legacy.value("SELECT status FROM executions_legacy WHERE execution_id = %s", uuid(1)) == "odd"


def test_what_only_the_target_holds_is_not_written_over_before_it_is_set_aside(pair: Pair) -> None:
    """The application writes to the legacy table as soon as it is back, and somebody may apply that at once."""
    legacy = pair.legacy
    pair.switch()
    legacy.execute('UPDATE runs SET tags = \'{"team": "x"}\' WHERE run_id = %s', uuid(1))
    pair.back(settled=False)
    legacy.execute("UPDATE executions SET error = 'since' WHERE execution_id = %s", uuid(1))
    with pytest.raises(Refused, match="give spine-migrate rollback again"):
        pair.apply()
    assert legacy.value("SELECT tags FROM runs WHERE run_id = %s", uuid(1)) == {"team": "x"}


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


def test_constraints_that_wait_for_the_commit_hold_no_switch_up(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written between the last drain and the lock is carried in the switch itself, which alters the table."""
    legacy.many_executions(3)
    legacy.execute(
        "ALTER TABLE executions ADD CONSTRAINT parent FOREIGN KEY (parent_execution_id) REFERENCES executions"
        " DEFERRABLE INITIALLY DEFERRED"
    )
    legacy.execute("CREATE FUNCTION same() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    legacy.execute("CREATE TRIGGER same BEFORE UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION same()")
    pair = Pair(legacy)
    pair.begin()
    monkeypatch.setattr(Turn, "drain", lambda *_, **__: None)
    pair.switch()
    legacy.executions(9, parent_execution_id=uuid(1))
    pair.back()
    assert legacy.value("SELECT parent_execution_id::text FROM executions WHERE execution_id = %s", uuid(9)) == uuid(1)


def test_a_constraint_that_waits_for_the_commit_refuses_its_own_rows_alone(pair: Pair) -> None:
    legacy = pair.legacy
    pair.switch()
    legacy.execute("UPDATE executions SET error = execution_id::text")
    pair.apply()
    legacy.execute("ALTER TABLE executions_legacy ADD CONSTRAINT apart UNIQUE (error) DEFERRABLE INITIALLY DEFERRED")
    legacy.execute("UPDATE executions SET error = 'same' WHERE execution_id IN (%s, %s)", uuid(1), uuid(2))
    legacy.execute("UPDATE executions SET error = 'other' WHERE execution_id = %s", uuid(3))
    with pytest.raises(Refused, match="1 changed rows"):
        pair.back()
    assert legacy.value("SELECT error FROM executions_legacy WHERE execution_id = %s", uuid(3)) == "other"


def test_an_accepted_row_is_kept_when_the_application_writes_over_it(pair: Pair) -> None:
    """It stayed behind as it was last written; an update of the state that the view shows takes its place."""
    legacy = pair.legacy
    legacy.execute("UPDATE executions SET status = 'odd', error = 'last' WHERE execution_id = %s", uuid(1))
    pair.apply()
    pair.accept()
    pair.switch()
    legacy.execute("UPDATE executions SET error = 'since' WHERE execution_id = %s", uuid(1))
    pair.apply()
    assert legacy.value("SELECT error FROM executions_legacy WHERE execution_id = %s", uuid(1)) == "since"
    kept = legacy.value("SELECT before FROM spine_migrate.set_aside WHERE target_key = %s", uuid(1))
    assert (kept["status"], kept["error"]) == ("odd", "last")


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


def test_what_is_written_between_two_attempts_is_applied_before_the_next(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the application waiting, where only so much may be left."""
    legacy = pair.legacy
    monkeypatch.setattr(turn, "FEW", 5)
    monkeypatch.setattr(turn, "MOST", 10)
    hold = Turn.hold
    attempts: list[int] = []

    def held_up(self: Turn, connection: Connection) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            legacy.many_executions(20, first=100)
            raise psycopg.errors.LockNotAvailable("somebody reads")
        hold(self, connection)

    monkeypatch.setattr(Turn, "hold", held_up)
    pair.switch()
    assert (len(attempts), legacy.value("SELECT count(*) FROM executions")) == (2, 30)


def test_a_function_of_the_row_type_is_not_made_again(legacy: Legacy) -> None:
    """It would be another function beside the first, which goes on with the table's type; it blocks instead."""
    legacy.execute("CREATE FUNCTION label(executions) RETURNS text LANGUAGE sql AS 'SELECT $1.status::text'")
    with connect(legacy.url, settings=PINNED) as connection:
        relation = catalog.find(connection, "executions", "public")
        (found,) = [one for one in followers(connection, relation) if "label" in one.object]
    assert (found.blocks, remade([found])) == (True, [])
