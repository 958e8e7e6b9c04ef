"""Rows that others made, that the legacy table refuses, whose keys change: what the way back makes of them."""

from __future__ import annotations

import psycopg
import pytest

from spine_migrate.errors import Refused
from spine_migrate.sync.turn import Turn
from tests.cutting import BOTH, Pair, ten_followed
from tests.database import Database
from tests.legacy import Legacy, build, filled, uuid


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@pytest.fixture
def pair(database: Database) -> Pair:
    return Pair(filled(database, ten_followed))


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


def test_rows_that_a_constraint_has_not_looked_at_stay(database: Database) -> None:
    """NOT NULL, NOT VALID: the rows from before may be NULL all the same, and are the application's as before."""
    legacy = build(database)
    legacy.executions(1, lane=None)
    legacy.executions(2)
    if legacy.value("SELECT current_setting('server_version_num')::int") < 180000:
        with pytest.raises(psycopg.errors.SyntaxError):
            legacy.execute("ALTER TABLE executions ADD CONSTRAINT of_lane NOT NULL lane NOT VALID")
        return
    legacy.execute("ALTER TABLE executions ADD CONSTRAINT of_lane NOT NULL lane NOT VALID")
    pair = Pair(legacy)
    pair.begin()
    pair.switch()
    assert legacy.value("SELECT count(*) FROM executions") == 2
    with pytest.raises(psycopg.errors.NotNullViolation):
        legacy.execute("INSERT INTO executions (pipeline_name, lane) VALUES ('p', NULL)")
    legacy.execute("UPDATE executions SET lane = 'mended' WHERE lane IS NULL")
    pair.back()
    assert legacy.rows("SELECT lane FROM executions ORDER BY execution_id") == [("mended",), ("normal",)]
