"""runbooks/two-in-the-morning.md: each failure is made, what the book shows is seen, and what it tells to do helps."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.command import environment, run, start
from tests.conftest import StartServer
from tests.cutting import Pair
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid
from tests.waiting import until

_BOOK = Path(__file__).parents[2] / "runbooks" / "two-in-the-morning.md"
_PATIENCE = 60.0
# What is another each time: moments, durations, sessions.
_MASKS = {
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+": "MOMENT",
    r"\b\d[\d,.]* (ms|s|kB)\b": r"SOME \1",
    r"\bsession \d+": "session N",
}


@arranged
def legacy(legacy: Legacy) -> None:
    """Ten executions, moved, their changes captured and applied."""
    legacy.many_executions(10)
    Pair(legacy).begin()


def sections() -> dict[int, str]:
    text = _BOOK.read_text(encoding="utf-8")
    found = re.split(r"^## ", text, flags=re.MULTILINE)
    return {int(one.split(".")[0]): one for one in found if re.match(r"\d+\. ", one)}


def masked(line: str) -> str:
    for pattern, name in _MASKS.items():
        line = re.sub(pattern, name, line)
    return line.rstrip()


@dataclass
class Night:
    """Somebody with a terminal. ``session`` is whom the book calls 4711."""

    legacy: Legacy
    role: str
    session: int = 0

    def does(self, number: int, part: str) -> None:
        """One part of a section, block by block; each ``text`` is compared with what the block before has given."""
        found = re.search(
            rf"^\*\*{re.escape(part)}\.\*\*(.*?)(?=^\*\*|\Z)", sections()[number], re.MULTILINE | re.DOTALL
        )
        assert found is not None, f"{number} has no {part}"
        given = ""
        blocks = re.findall(r"^```(\w+)\n(.*?)^```", found[1], re.MULTILINE | re.DOTALL)
        assert blocks
        for kind, body in blocks:
            if kind == "text":
                self._compare(body, given)
            else:
                given = self._types(body) if kind == "sh" else self._asks(body)

    def _types(self, lines: str) -> str:
        given = ""
        for line in lines.splitlines():
            done = subprocess.run(
                ["/bin/sh", "-c", line],
                check=False,
                capture_output=True,
                text=True,
                env=environment(self.legacy.url),
                timeout=240,
            )
            exits = re.search(r"# exits with (\d)", line)
            assert done.returncode == int(exits[1] if exits else 0), f"{line}\n{done.stdout}\n{done.stderr}"
            given += done.stdout + done.stderr
        return given

    def _asks(self, statement: str) -> str:
        try:
            with self.legacy.connect() as connection:
                cursor = connection.execute(sql.SQL(statement.replace("4711", str(self.session))))
                rows = cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            return f"ERROR:  {error.diag.message_primary}"
        return "\n".join(" | ".join(map(str, row)) for row in rows)

    def _compare(self, shown: str, given: str) -> None:
        """In this order, with nothing between but where the book has a line of dots."""
        left = [masked(line.replace(self.role, "dba")) for line in given.splitlines()]
        wanted = shown.splitlines()
        assert wanted, f"nothing is shown of\n{given}"
        while wanted:
            chunk = list(takewhile(lambda line: line != "...", wanted))
            wanted = wanted[len(chunk) + 1 :]
            patterns = [".*".join(map(re.escape, masked(line).split("…"))) for line in chunk]
            at = next((n for n in range(len(left)) if _matches(patterns, left[n : n + len(chunk)])), None)
            assert at is not None, f"shown:\n{shown}\nis not in:\n{given}"
            left = left[at + len(chunk) :]


def _matches(patterns: list[str], lines: list[str]) -> bool:
    return len(patterns) == len(lines) and all(re.fullmatch(*pair) for pair in zip(patterns, lines, strict=True))


@pytest.fixture
def night(legacy: Legacy, database: Database) -> Night:
    return Night(legacy, database.owner.name)


@contextmanager
def moving(legacy: Legacy) -> Iterator[subprocess.Popen[str]]:
    """Three thousand executions on their way, slowly; some have arrived."""
    legacy.many_executions(3000)
    tool = start(
        legacy.url, "executions-to-runs", "--no-events", "--batch-size", "20", "--max-rows-per-second", "200", "--quiet"
    )
    try:
        until(lambda: legacy.value("SELECT count(*) FROM runs"), "nothing is moved")
        yield tool
    finally:
        tool.kill()
        tool.communicate()


def test_there_are_ten() -> None:
    assert list(sections()) == list(range(1, 11))


def _stands_still(legacy: Legacy) -> bool:
    """The other worker may have been before its batch when the first one saw the pause."""
    said = run(legacy.url, "status").stdout
    return "held back by pause" in said and "at work, 0 rows/s" in said


def test_1_the_backfill_stands_still(database: Database) -> None:
    legacy = build(database.url)
    night = Night(legacy, database.owner.name)
    with moving(legacy) as tool:
        assert run(legacy.url, "pause").returncode == 0
        until(lambda: _stands_still(legacy), "it does not pause")
        run(legacy.url, "set", "rows-per-second=none", "batch-size=1000")
        night.does(1, "You see")
        night.does(1, "Do")
        tool.wait(_PATIENCE)
        night.does(1, "Check")


def test_2_the_target_falls_behind(night: Night) -> None:
    night.legacy.execute("UPDATE executions SET error = 'later'")
    for part in ("You see", "Do", "Check"):
        night.does(2, part)
    night.legacy.prove("executions")


def test_3_the_tool_was_killed(database: Database) -> None:
    legacy = build(database.url)
    night = Night(legacy, database.owner.name)
    with moving(legacy) as tool:
        tool.kill()
        until(lambda: "nobody is at work" in run(legacy.url, "status").stdout, "it is still at work")
        for part in ("You see", "Do", "Check"):
            night.does(3, part)
    legacy.prove("executions")


def test_4_the_server_restarted(start_server: StartServer) -> None:
    server = start_server()
    legacy = build(server.url())
    legacy.many_executions(10)
    Pair(legacy).begin()
    legacy.execute("UPDATE executions SET error = 'later'")
    server.stop()
    night = Night(legacy, "postgres")
    night.does(4, "You see")
    server.start()
    night.does(4, "Do")
    night.does(4, "Check")
    legacy.prove("executions")


def test_5_the_cutover_does_not_get_its_locks(night: Night) -> None:
    reader = psycopg.connect(night.legacy.url, application_name="report")
    try:
        reader.execute("SELECT count(*) FROM executions")
        night.session = reader.info.backend_pid
        night.does(5, "You see")
        night.does(5, "Do")
    finally:
        reader.close()
    night.does(5, "Check")


def test_6_the_disk_fills(night: Night) -> None:
    for _ in range(100):
        night.legacy.execute("UPDATE executions SET error = coalesce(error, '') || 'x'")
    for part in ("You see", "Do"):
        night.does(6, part)
    until(lambda: _is_empty(night.legacy), "The pages of the log stay.")
    night.does(6, "Check")
    night.legacy.prove("executions")


def _is_empty(legacy: Legacy) -> bool:
    """What another session may still see, autovacuum's for example, VACUUM leaves to the next."""
    legacy.execute("VACUUM spine_migrate.change_log")
    return bool(legacy.value("SELECT pg_relation_size('spine_migrate.change_log') = 0"))


def test_7_quarantine_closes_the_gate(night: Night) -> None:
    night.legacy.executions(20, status="zombie")
    Pair(night.legacy).apply()
    for part in ("You see", "Do", "Check"):
        night.does(7, part)


def test_8_the_application_fails_after_the_cutover(night: Night) -> None:
    Pair(night.legacy).switch()
    night.legacy.executions(21)
    for part in ("You see", "Do", "Check"):
        night.does(8, part)
    assert night.legacy.value("SELECT count(*) FROM executions WHERE execution_id IN (%s, %s)", uuid(21), uuid(30)) == 2


def test_9_somebody_changed_the_table(night: Night) -> None:
    night.legacy.execute("ALTER TABLE executions ADD COLUMN note text")
    night.legacy.execute("UPDATE executions SET error = 'later'")
    for part in ("You see", "Do", "Check"):
        night.does(9, part)
    night.legacy.prove("executions")


def test_10_a_trigger_was_switched_off(night: Night) -> None:
    night.legacy.execute("ALTER TABLE executions DISABLE TRIGGER USER")
    night.legacy.execute("UPDATE executions SET error = 'imported'")
    night.legacy.execute("ALTER TABLE executions ENABLE TRIGGER USER")
    for part in ("You see", "Do", "Check"):
        night.does(10, part)
    night.legacy.prove("executions")
