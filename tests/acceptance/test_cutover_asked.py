"""cutover and rollback at a terminal: the question and what happens until it is answered, and Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import LiteralString, Self

import psycopg
import pytest

from tests.command import PROGRAM, environment, run
from tests.cutting import Pair, ten_followed
from tests.database import Database
from tests.legacy import Legacy, filled, uuid
from tests.waiting import WAITING

_LONGEST = 60.0
_TABLES: LiteralString = (
    "SELECT oid::regclass::text, relkind FROM pg_class WHERE relname ~ '^execution.*(s|_legacy)$' ORDER BY 1"
)
_WAITERS: LiteralString = WAITING + " AND l.locktype = 'advisory' AND l.objid = 4711"


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return filled(database, ten_followed)


class _Asked:
    """A command that asks; gone with the block."""

    def __init__(self, legacy: Legacy, *words: str) -> None:
        self._process = subprocess.Popen(
            [PROGRAM, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(legacy.url),
        )
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def says(self, words: str) -> None:
        """Wait for it on stderr."""
        assert self._process.stderr is not None
        while words not in self._said:
            letter = self._process.stderr.read(1)
            assert letter, self._said
            self._said += letter

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def ends(self, answer: str = "") -> tuple[int, str]:
        told, said = self._process.communicate(answer, timeout=_LONGEST)
        assert "Traceback" not in said
        return self._process.returncode, told + said


def test_what_was_changed_before_the_answer_is_found(legacy: Legacy) -> None:
    """A view that was made, and a row that was damaged, each while somebody thinks about his answer."""
    with _Asked(legacy, "cutover") as asked:
        asked.says("Cut over ")
        legacy.execute("CREATE VIEW late AS SELECT execution_id FROM executions")
        code, told = asked.ends("y\n")
        assert (code, "(view public.late)" in told) == (3, True), told
    with _Asked(legacy, "cutover") as asked:
        asked.says("Cut over ")
        legacy.execute("CREATE MATERIALIZED VIEW later AS SELECT execution_id FROM executions")
        code, told = asked.ends("y\n")
        assert (code, "Closed since you were asked: dependents" in told) == (3, True), told
    legacy.execute("DROP MATERIALIZED VIEW later")
    with _Asked(legacy, "cutover", "--max-parity-age", "0") as asked:
        asked.says("Cut over ")
        legacy.execute("UPDATE runs SET name = 'damaged' WHERE run_id = %s", uuid(3))
        code, told = asked.ends("y\n")
        assert (code, "Closed since you were asked: parity" in told) == (3, True), told
    assert legacy.value("SELECT to_regclass('executions_legacy') IS NULL")


def test_ctrl_c_is_an_answer(legacy: Legacy) -> None:
    with _Asked(legacy, "cutover") as asked:
        asked.says("Cut over ")
        asked.interrupt()
        assert asked.ends()[0] == 4
    assert legacy.value("SELECT to_regclass('executions_legacy') IS NULL")


@pytest.mark.parametrize("command", ["cutover", "rollback"])
def test_ctrl_c_twice_ends_a_switch_that_hangs(legacy: Legacy, database: Database, command: str) -> None:
    """The first lets it come to its end; the second cancels what is at work, and nothing has happened."""
    if command == "rollback":
        Pair(legacy).switch()
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(
            "CREATE FUNCTION hang() RETURNS event_trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM pg_advisory_xact_lock(4711); END$$"
        )
        admin.execute(
            "CREATE EVENT TRIGGER hang ON ddl_command_start WHEN TAG IN ('CREATE VIEW', 'DROP VIEW')"
            " EXECUTE FUNCTION hang()"
        )
        admin.execute("SELECT pg_advisory_lock(4711)")
        before = legacy.rows(_TABLES)
        with _Asked(legacy, command, "--yes", "--lock-timeout", "10000") as asked:
            end = time.monotonic() + _LONGEST
            while not admin.execute(_WAITERS).fetchall():
                assert time.monotonic() < end
                time.sleep(0.05)
            asked.interrupt()
            asked.says("press Ctrl-C again to cancel it")
            asked.interrupt()
            code, told = asked.ends()
        # Or the lock is given up just between the two.
        assert (code, "Cancelled" in told or "Stopped while locks" in told) == (4, True), told
        assert legacy.rows(_TABLES) == before
        admin.execute("DROP EVENT TRIGGER hang")
    assert run(legacy.url, command, "--yes").returncode == 0


def test_nobody_is_made_to_wait_for_minutes(legacy: Legacy) -> None:
    done = run(legacy.url, "cutover", "--yes", "--lock-timeout", "600000")
    assert (done.returncode, "--lock-within" in done.stderr) == (2, True), done.stderr
