"""The gates of retire one by one, and who is at work while the legacy side goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from spine_migrate.carry.known import Known
from spine_migrate.cutover import retire as stage
from spine_migrate.cutover.archive.model import Table
from spine_migrate.cutover.gates import Gate
from spine_migrate.cutover.group import group
from spine_migrate.cutover.retire_gates import Examined, examine
from spine_migrate.db.captures import REVERSE
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.patience import Patience
from spine_migrate.errors import Interrupted, Refused
from spine_migrate.sync.turn import turn_of
from tests.cutting import Pair
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid
from tests.waiting import WAITING

_OPEN = Gate("parity", ok=True, evidence="")
_PATIENCE = Patience(100, 10)


@arranged
def legacy(legacy: Legacy) -> None:
    """Ten executions, cut over."""
    legacy.many_executions(10)
    pair = Pair(legacy)
    pair.begin()
    pair.switch()


def _examined(legacy: Legacy, after: float = 0) -> Examined:
    with connect(legacy.url, settings=PINNED) as connection:
        members = group(connection, [])
        turning = turn_of(connection, members, REVERSE)
        span = timedelta(days=after)
        return examine(connection, members, turning, parity=_OPEN, after=span, frozen=False, accepted=())


def _closed(legacy: Legacy, after: float = 0) -> dict[str, str]:
    """The evidence of the gates that are closed, by name."""
    return {gate.name: gate.evidence for gate in _examined(legacy, after).gates if not gate.ok}


def _now(legacy: Legacy) -> Any:
    return legacy.value("SELECT clock_timestamp()")


def _allow(
    legacy: Legacy,
    connection: Connection,
    members: Sequence[Known],
    kept: stage.Kept,
    *,
    patience: Patience = _PATIENCE,
    report: Callable[[Table], None] = lambda _: None,
) -> None:
    stage.allow(
        connection,
        members,
        kept,
        evidence={},
        looked_at=_now(legacy),
        patience=patience,
        stop=threading.Event(),
        report=report,
    )


def _retire(
    legacy: Legacy,
    directory: Path,
    *,
    seconds: float = 20,
    lock_timeout: int = 100,
    report: Callable[[Table], None] = lambda _: None,
) -> stage.Retired:
    patience = Patience(lock_timeout, seconds)
    stop = threading.Event()
    with connect(legacy.url, settings=PINNED) as connection:
        members = group(connection, [])
        stage.alone(connection, members, wait=False, stop=stop)
        _allow(legacy, connection, members, stage.Kept(directory), patience=patience, report=report)
        return stage.retire(connection, members, patience=patience, stop=stop)


def _there(legacy: Legacy) -> bool:
    return bool(legacy.value("SELECT to_regclass('executions_legacy') IS NOT NULL"))


def test_each_gate_opens_again(legacy: Legacy) -> None:
    """What closes it, by name; and nothing else does."""
    assert _closed(legacy) == {}
    assert set(_closed(legacy, after=7)) == {"age"}
    legacy.execute("UPDATE spine_migrate.cutover SET at = at - interval '8 days'")
    assert _closed(legacy, after=7) == {}
    legacy.execute("UPDATE executions SET error = 'x' WHERE execution_id = %s", uuid(1))
    assert "UPDATE" in _closed(legacy, after=7)["view-writes"]
    legacy.execute("UPDATE spine_migrate.view_write SET at = at - interval '8 days'")
    assert _closed(legacy, after=7) == {}
    # A session may write to the end of the hour of its note without another.
    legacy.execute("UPDATE spine_migrate.view_write SET at = date_trunc('hour', clock_timestamp()) - interval '59 min'")
    assert "UPDATE" in _closed(legacy, after=61 / 1440)["view-writes"]
    # Within ten seconds of its end, of the next hour.
    legacy.execute("UPDATE spine_migrate.view_write SET at = date_trunc('hour', clock_timestamp() + interval '10 s')")
    assert "UPDATE" in _closed(legacy, after=1 / 86_400_000)["view-writes"]
    legacy.execute("UPDATE spine_migrate.view_write SET at = at - interval '8 days'")

    legacy.execute("UPDATE spine_migrate.migration SET mapping_digest = 'x' || mapping_digest")
    assert set(_closed(legacy)) == {"mapping"}
    legacy.execute("UPDATE spine_migrate.migration SET mapping_digest = substr(mapping_digest, 2)")

    legacy.execute(
        "INSERT INTO spine_migrate.quarantine (migration_id, source_key, source_row, reason, detail)"
        " SELECT migration_id, 'x', '{}', 'unknown_value', 'x' FROM spine_migrate.migration LIMIT 1"
    )
    assert set(_closed(legacy)) == {"quarantine"}
    Pair(legacy).accept()
    assert _closed(legacy) == {}

    legacy.execute("CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$")
    for name in ("executions_legacy", "runs"):
        table = sql.Identifier(name)
        legacy.execute(
            sql.SQL("CREATE TRIGGER mine BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION noop()").format(table)
        )
        assert set(_closed(legacy)) == ({"dependents"} if name == "executions_legacy" else set())
        legacy.execute(sql.SQL("DROP TRIGGER mine ON {}").format(table))

    trigger = legacy.value(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'runs'::regclass AND tgname LIKE 'spine_capture%%_insert'"
    )
    named = sql.Identifier(str(trigger))
    legacy.execute(sql.SQL("ALTER TABLE runs DISABLE TRIGGER {}").format(named))
    assert set(_closed(legacy)) == {"capture"}
    legacy.execute(sql.SQL("ALTER TABLE runs ENABLE ALWAYS TRIGGER {}").format(named))
    assert _closed(legacy) == {}


def test_a_prepared_transaction_closes_its_gate(legacy: Legacy) -> None:
    """Where the server allows such transactions at all."""
    if legacy.value("SHOW max_prepared_transactions") == "0":
        assert "prepared-transactions" not in _closed(legacy)
        return
    with psycopg.connect(legacy.url) as connection:
        connection.tpc_begin(connection.xid(1, "spine", "retire"))
        connection.execute("UPDATE runs SET error = 'prepared'")
        connection.tpc_prepare()
        assert set(_closed(legacy)) == {"prepared-transactions"}
        connection.tpc_rollback(connection.xid(1, "spine", "retire"))


@pytest.mark.parametrize("place", ["executions", "runs"])
def test_who_stays_in_a_transaction_holds_it_up_and_is_named(legacy: Legacy, tmp_path: Path, place: str) -> None:
    """Nobody else waits for longer than an attempt; nothing is dropped, and once he has gone it is."""
    with legacy.connect() as reader, legacy.connect() as other, reader.transaction():
        reader.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(place)))
        other.execute("SET statement_timeout = '60s'")
        ends = threading.Event()
        failed: list[psycopg.Error] = []

        def work() -> None:
            while not ends.wait(0.01):
                try:
                    other.execute("UPDATE runs SET error = 'goes on' WHERE run_id = %s", (uuid(3),))
                except psycopg.Error as error:
                    failed.append(error)
                    return

        writer = threading.Thread(target=work)
        writer.start()
        with pytest.raises(Interrupted, match=r"(?i)access ?share"):
            _retire(legacy, tmp_path / "archive", seconds=1)
        assert _there(legacy)
        ends.set()
        writer.join()
        assert failed == []
    done = _retire(legacy, tmp_path / "archive")
    assert done.statements[0].startswith("DROP VIEW")
    assert not _there(legacy)
    assert legacy.value("SELECT error FROM runs WHERE run_id = %s", uuid(3)) == "goes on"


def test_who_writes_through_the_view_while_the_archive_is_written_is_noticed(legacy: Legacy, tmp_path: Path) -> None:
    """Which may take hours, after the gates were looked at."""
    with pytest.raises(Refused, match="written through the view since"):
        _retire(
            legacy,
            tmp_path / "archive",
            report=lambda _: legacy.execute("UPDATE executions SET error = 'here' WHERE execution_id = %s", uuid(1)),
        )
    assert _there(legacy)
    assert legacy.value("SELECT count(*) FROM spine_migrate.retirement") == 0
    _retire(legacy, tmp_path / "archive")
    assert not _there(legacy)


def test_who_reads_is_shown_but_for_this_tool(legacy: Legacy) -> None:
    """By its own names, not by all that begin like the applications'."""
    legacy.execute(
        """
        CREATE SCHEMA stats;
        CREATE TABLE stats.kept (dbid oid, query text, calls bigint);
        INSERT INTO stats.kept SELECT d.oid, s.query, 3 FROM pg_database d, (VALUES
            ('SELECT * FROM executions JOIN spine_core.feeds USING (feed_id)'),
            ('SELECT count(*) FROM executions AS spine_row')) AS s (query) WHERE d.datname = current_database();
        CREATE VIEW stats.pg_stat_statements AS SELECT * FROM stats.kept;
        """
    )
    assert _examined(legacy).readers.statements == [
        ("SELECT * FROM executions JOIN spine_core.feeds USING (feed_id)", 3)
    ]


def test_a_write_that_is_not_committed_closes_its_gate(legacy: Legacy) -> None:
    """Its note is seen by nobody before."""
    with psycopg.connect(legacy.url, application_name="long") as writer:
        writer.execute("UPDATE executions SET error = 'late' WHERE execution_id = %s", (uuid(1),))
        assert "(long)" in _closed(legacy)["view-writes"]
    assert _closed(legacy) == {}


def test_a_writer_to_the_legacy_table_is_noticed(legacy: Legacy, tmp_path: Path) -> None:
    """Between the archive and its comparison, and between that and the drop: nothing is dropped that no archive has."""
    directory = tmp_path / "archive"
    stop, patience = threading.Event(), Patience(100, 10)
    with connect(legacy.url, settings=PINNED) as connection:
        members = group(connection, [])

        def allow() -> None:
            kept = stage.Kept(directory)
            _allow(legacy, connection, members, kept, patience=patience)

        allow()
        legacy.execute("DELETE FROM executions_legacy WHERE execution_id = %s", uuid(5))
        with pytest.raises(Refused, match="its rows have changed"):
            stage.retire(connection, members, patience=patience, stop=stop)
        with pytest.raises(Refused, match="is not as the archive"):
            allow()
        said: list[str] = []
        assert not stage.ready(connection, members, directory, said.append)
        assert "is kept as" in said[0]
        allow()
        assert stage.ready(connection, members, directory, said.append)
        stage.retire(connection, members, patience=patience, stop=stop)
    assert not _there(legacy)


def test_what_was_made_since_and_depends_on_it_is_named(legacy: Legacy, tmp_path: Path) -> None:
    """The server refuses the drop of what the gates have not seen; all of it stays."""
    legacy.execute("CREATE VIEW late AS SELECT count(*) FROM executions")
    with pytest.raises(Refused, match=r"view public\.late depends on"):
        _retire(legacy, tmp_path / "archive")
    assert legacy.value("SELECT count(*) FROM executions") == 10
    assert legacy.value("SELECT count(*) FROM spine_migrate.capture") == 2
    legacy.execute("DROP VIEW late")
    _retire(legacy, tmp_path / "archive")
    assert not _there(legacy)


def test_jobs_with_their_sequence_and_the_index_of_the_view(database: Database, tmp_path: Path) -> None:
    legacy = build(database)
    legacy.execute("INSERT INTO jobs (job_type, status) VALUES ('fetch', 'done'), ('fetch', 'queued')")
    pair = Pair(legacy, ("jobs",))
    pair.begin()
    pair.switch()
    index = "SELECT count(*) FROM pg_class WHERE relname LIKE 'spine_key%%'"
    assert legacy.value(index) == 1
    assert _closed(legacy) == {}
    assert any(one.startswith("DROP INDEX") for one in _retire(legacy, tmp_path / "archive").statements)
    assert legacy.value(index) == 0
    assert legacy.value("SELECT to_regclass('jobs') IS NULL AND to_regclass('jobs_job_id_seq') IS NULL")
    assert legacy.value("SELECT count(*) FROM runs") == 2


def test_a_permission_that_is_just_taken_back_is_none(legacy: Legacy, tmp_path: Path) -> None:
    """Its transaction is under way while the drop looks whether it is there, and ends before the drop's."""
    patience, kept = Patience(5000, 60), stage.Kept(tmp_path / "archive")
    failed: list[Refused] = []
    with connect(legacy.url, settings=PINNED) as connection, legacy.connect() as other:
        members = group(connection, [])
        _allow(legacy, connection, members, kept, patience=patience)
        other.execute("BEGIN")
        other.execute("DELETE FROM spine_migrate.retirement")

        def drop() -> None:
            try:
                stage.retire(connection, members, patience=patience, stop=threading.Event())
            except Refused as refused:
                failed.append(refused)

        worker = threading.Thread(target=drop)
        worker.start()
        while not legacy.rows(WAITING):
            assert worker.is_alive()
        other.execute("COMMIT")
        worker.join()
    assert [one.precondition for one in failed] == ["not-allowed"]
    assert _there(legacy)


def test_a_long_log_holds_nobody_up(legacy: Legacy, tmp_path: Path) -> None:
    """What has gathered since it was allowed goes before the locks are taken, and is not read again under them."""
    directory = tmp_path / "archive"
    with connect(legacy.url, settings=PINNED) as connection:
        members = group(connection, [])
        kept = stage.Kept(directory)
        _allow(legacy, connection, members, kept)
    legacy.execute(
        "INSERT INTO spine_migrate.change_log (capture_id, row_key)"
        " SELECT c.capture_id, 'x' FROM spine_migrate.capture c, generate_series(1, %s) ORDER BY 1",
        30000,
    )
    numbers = [one.migration.migration_id for one in members]
    with legacy.connect() as connection, connection.transaction():

        def read() -> tuple[int, int]:
            """Scans of the log as a whole, and entries of its index that were met."""
            found = connection.execute(
                "SELECT pg_stat_get_xact_numscans('spine_migrate.change_log'::regclass),"
                " pg_stat_get_xact_tuples_returned('spine_migrate.ix_change_log'::regclass)"
            ).fetchone()
            assert found is not None
            return found[0], found[1]

        connection.execute("SELECT spine_migrate.retire_check(%s)", (numbers,))
        connection.execute(
            "INSERT INTO spine_migrate.change_log (capture_id) SELECT capture_id FROM spine_migrate.capture"
        )
        scans, met = read()
        connection.execute("SELECT spine_migrate.retire_drop(%s, '1 second', 'test')", (numbers,))
        assert read()[0] == scans
        assert read()[1] - met < 25000
        assert connection.execute("SELECT count(*) FROM spine_migrate.change_log").fetchone() == (0,)
    assert not _there(legacy)
