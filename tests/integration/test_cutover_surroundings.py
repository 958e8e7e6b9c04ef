"""Sessions and transactions that are in the way of a switch, and captures and keys that it cannot go by."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.cutover.group import group
from spine_migrate.db import captures
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.errors import Interrupted, Refused
from spine_migrate.mapping.load import load
from spine_migrate.resources import mappings_dir
from spine_migrate.sync import turn
from spine_migrate.sync.appliers import verify_whole
from spine_migrate.sync.renew import renew
from spine_migrate.sync.turn import Turn
from tests.conftest import StartServer
from tests.cutting import BOTH, PATIENCE, Pair, gate_of, ten_followed
from tests.database import Database
from tests.legacy import Legacy, build, filled, uuid
from tests.syncing import prepare


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@pytest.fixture
def pair(database: Database) -> Pair:
    return Pair(filled(database, ten_followed))


def test_a_way_back_that_was_cut_is_mended(pair: Pair) -> None:
    """A trigger disabled, a function replaced: what was written meanwhile is carried back all the same."""
    legacy = pair.legacy
    pair.switch()
    cuts: tuple[LiteralString, ...] = (
        "ALTER TABLE public.runs DISABLE TRIGGER {trigger}",
        "DROP TRIGGER {trigger} ON public.runs",
        "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    )
    for number, cut in enumerate(cuts):
        with connect(legacy.url, settings=PINNED) as connection:
            executions, _ = group(connection, [load(f"capture-spine/{entity}") for entity in BOTH])
            found = captures.captured(connection, executions.migration.migration_id, captures.REVERSE)
            assert found is not None
            trigger = sql.Identifier(f"spine_capture_{found.capture_id}_update")
            function = sql.Identifier("spine_migrate", f"capture_{found.capture_id}")
            legacy.execute(sql.SQL(cut).format(trigger=trigger, function=function))
            legacy.execute("UPDATE executions SET error = %s WHERE execution_id = %s", f"unseen {number}", uuid(1))
            with pytest.raises(Refused, match="sync start"):
                verify_whole(connection, executions, found)
            assert renew(connection, executions, patience=PATIENCE, stop=threading.Event())
            assert not renew(connection, executions, patience=PATIENCE, stop=threading.Event())
        pair.apply()
        said = legacy.value("SELECT error FROM executions_legacy WHERE execution_id = %s", uuid(1))
        assert said == f"unseen {number}"
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(2))
    pair.back()
    legacy.prove(*BOTH)


def test_a_reader_that_stays_holds_the_switch_up_and_nothing_is_changed(pair: Pair) -> None:
    """The attempts give up; the session is named."""
    legacy = pair.legacy
    with legacy.connect() as connection, connection.transaction():
        connection.execute("SELECT count(*) FROM executions")
        with pytest.raises(Interrupted, match=r"has ACCESS SHARE on \"public\"\.\"executions\", idle in transaction"):
            pair.switch(seconds=1)
    assert legacy.value("SELECT relkind FROM pg_class WHERE oid = 'executions'::regclass") == "r"
    pair.switch()
    pair.back()
    legacy.prove(*BOTH)


def test_a_prepared_transaction_closes_its_gate(start_server: StartServer) -> None:
    """Also after a restart, from which on it belongs to no session that ever was."""
    server = start_server(settings={"max_prepared_transactions": "1"})
    legacy = build(server.url())
    legacy.many_executions(3)
    Pair(legacy).begin()
    with legacy.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("UPDATE executions SET error = 'prepared'")
        connection.execute("PREPARE TRANSACTION 'half way'")
    closed = gate_of(legacy, "prepared-transactions")
    assert (closed.ok, closed.evidence) == (False, "Prepared transactions hold the tables: half way.")
    server.restart()
    assert gate_of(legacy, "prepared-transactions") == closed
    legacy.execute("ROLLBACK PREPARED 'half way'")
    assert gate_of(legacy, "prepared-transactions").ok


def test_mappings_whose_keys_lead_one_way_are_refused_by_name(legacy: Legacy, tmp_path: Path) -> None:
    """With what to add to the mapping. A key that another field carries comes back by that."""
    text = (mappings_dir() / "capture-spine" / "jobs.toml").read_text(encoding="utf-8")
    own = tmp_path / "own" / "jobs.toml"
    own.parent.mkdir()
    own.write_text(text.replace('keep = "metadata.legacy.job_id"', 'lossy = "nobody asks"', 1), encoding="utf-8")
    legacy.execute("INSERT INTO jobs (job_type, status) VALUES ('x', 'done')")
    legacy.move("jobs", mapping=str(own), prepare=prepare)
    gate = gate_of(legacy, "keys", str(own))
    assert (gate.ok, "the keys of own/jobs" in gate.evidence) == (False, True)
    assert 'add keep = "COLUMN.legacy.job_id" to run_id (own/jobs.toml:' in gate.remedy
    aside = '[fields."metadata.job"]\ncopy = "job_id"\n\n[fields.kind]'
    own.write_text(
        text.replace('keep = "metadata.legacy.job_id"\n', "", 1).replace("[fields.kind]", aside, 1), encoding="utf-8"
    )
    gate = gate_of(legacy, "keys", str(own))
    assert (gate.ok, "own/jobs by metadata.job" in gate.evidence) == (True, True)


def test_a_column_that_must_not_be_null_and_does_not_come_back_closes_its_gate(legacy: Legacy, tmp_path: Path) -> None:
    """Without a view, too, and whatever is accepted: no row has a legacy form, and the way back would delete them."""
    text = (mappings_dir() / "capture-spine" / "jobs.toml").read_text(encoding="utf-8")
    own = tmp_path / "own" / "jobs.toml"
    own.parent.mkdir()
    text = text.replace("[source.columns]", '[source.columns]\nregion = { type = "text" }', 1)
    own.write_text(f'{text}\n[dropped]\nregion = "nobody asks"\n', encoding="utf-8")
    legacy.execute("ALTER TABLE jobs ADD COLUMN region text NOT NULL DEFAULT 'eu'")
    legacy.execute("INSERT INTO jobs (job_type, status) VALUES ('x', 'done')")
    legacy.move("jobs", mapping=str(own), prepare=prepare)
    column = '"public"."jobs"."region"'
    gate = gate_of(legacy, "legacy-form", str(own), with_view=False, accepted=[column])
    assert (gate.ok, f"No rule gives {column} back" in gate.evidence) == (False, True)
    legacy.execute("ALTER TABLE jobs ALTER COLUMN region DROP NOT NULL")
    assert gate_of(legacy, "legacy-form", str(own), with_view=False).ok


def test_a_capture_that_is_not_whole_closes_its_gate(pair: Pair) -> None:
    legacy = pair.legacy
    name = legacy.value(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'executions'::regclass AND tgname LIKE '%%_insert'"
    )
    legacy.execute(sql.SQL("DROP TRIGGER {} ON executions").format(sql.Identifier(name)))
    assert not gate_of(legacy, "capture").ok


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
    assert len(attempts) >= 2
    assert legacy.value("SELECT count(*) FROM executions") == 30


def test_by_another_mapping_nothing_is_applied(pair: Pair) -> None:
    """A changed row would be another than what was moved; it stays in the log until the file is the old one again."""
    legacy = pair.legacy
    legacy.execute("UPDATE executions SET error = 'since' WHERE execution_id = %s", uuid(1))
    legacy.execute("UPDATE spine_migrate.migration SET mapping_digest = 'x' || mapping_digest")
    with pytest.raises(Refused, match=r"has changed since the move, .* --accept-mapping"):
        pair.apply()
    assert legacy.value("SELECT count(*) FROM runs WHERE error = 'since'") == 0
    legacy.execute("UPDATE spine_migrate.migration SET mapping_digest = substr(mapping_digest, 2)")
    pair.apply()
    legacy.prove(*BOTH)


def test_another_mapping_is_no_way_back(pair: Pair) -> None:
    """What it takes for a row without a legacy form would be deleted."""
    legacy = pair.legacy
    pair.switch()
    legacy.execute("UPDATE executions SET error = 'since' WHERE execution_id = %s", uuid(1))
    legacy.execute("UPDATE spine_migrate.migration SET mapping_digest = 'x' || mapping_digest")
    for work in (pair.apply, pair.back):
        with pytest.raises(Refused, match="has changed since the move"):
            work()
    legacy.execute("UPDATE spine_migrate.migration SET mapping_digest = substr(mapping_digest, 2)")
    pair.back()
    legacy.prove(*BOTH)
