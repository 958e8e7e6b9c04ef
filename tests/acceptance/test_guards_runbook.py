"""The programs and statements of runbooks/guards.md do what it says, as a role that has what it says is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psycopg
from psycopg import sql

from spine_migrate.db import schema
from spine_migrate.execution.guards.postgres import PostgresGuard
from tests.command import environment
from tests.database import Database
from tests.guards import guard_of

_RUNBOOK = (Path(__file__).parents[2] / "runbooks" / "guards.md").read_text(encoding="utf-8")
#: What a user has around the two programs of the runbook.
_BETWEEN = """
import time
from spine_migrate.execution import ConcurrencyError

def submit():
    return dispatcher.submit_task("refresh", {"feed": "7"}, metadata={"entity_type": "feed", "entity_id": "7"})

def repair(feed):
    try:
        submit()
    except ConcurrencyError as error:
        print(error)
"""
_AFTER = """
run_id, end = submit(), time.monotonic() + 60
while (run := dispatcher.get_run(run_id)).status != "completed" and time.monotonic() < end:
    time.sleep(0.02)
print(run.status, run.error)
dispatcher.executor.shutdown()
pool.close()
"""


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _RUNBOOK, re.MULTILINE | re.DOTALL)


def test_a_script_and_runs_take_turns(database: Database) -> None:
    database.arrange(schema.upgrade)
    with database.connect() as connection:
        connection.execute("CREATE TABLE feeds (feed_id text, fence bigint, state text)")
        connection.execute("INSERT INTO feeds VALUES ('7', 0, 'old')")
    application, script = _blocks("python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", application + _BETWEEN + script + _AFTER],
        check=False,
        capture_output=True,
        text=True,
        env=environment(database.url),
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["The feed 7 is locked by repair by Ada.", "completed None"]
    with database.connect() as connection:
        ((fence, state),) = connection.execute("SELECT fence, state FROM feeds").fetchall()
        assert state == "fresh"
        assert connection.execute("SELECT fence FROM run_guard").fetchall() == [(fence,)]


def test_locks_are_seen_ended_and_forgotten_by_hand(database: Database) -> None:
    database.arrange(schema.upgrade)
    (block,) = _blocks("sql")
    see, end, forget = block.splitlines()
    with guard_of(database.url) as guard, database.connect(autocommit=True) as connection:
        assert isinstance(guard, PostgresGuard)
        fences = {key: guard.acquire("feed", key, holder="a", ttl_seconds=600) for key in ("7", "8")}
        rows = connection.execute(see.encode()).fetchall()
        assert sorted(row[:3] for row in rows) == [("feed", "7", "a"), ("feed", "8", "a")]
        assert connection.execute(end.encode()).rowcount == 1
        assert not guard.renew("feed", "7", fence=fences["7"] or 0, ttl_seconds=600)
        assert guard.acquire("feed", "7", holder="b", ttl_seconds=600) is not None
        connection.execute("UPDATE run_guard SET expires_at = expires_at - interval '25 hours' WHERE entity_id = '7'")
        assert connection.execute(forget.encode()).rowcount == 1
        assert guard.held("feed", "8") is not None
        assert (guard.acquire("feed", "7", holder="c", ttl_seconds=600) or 0) > (fences["8"] or 0)


def test_the_privileges_are_enough(database: Database) -> None:
    database.arrange(schema.upgrade)
    assert "`SELECT, INSERT, UPDATE` on `run_guard` and `USAGE` on the sequence `run_fence`" in _RUNBOOK
    role = database.add_role("worker")
    with psycopg.connect(database.url, autocommit=True) as owner:
        for grant in (
            "GRANT SELECT, INSERT, UPDATE ON run_guard TO {}",
            "GRANT USAGE ON SEQUENCE run_fence TO {}",
        ):
            owner.execute(sql.SQL(grant).format(sql.Identifier(role.name)))
    with guard_of(database.url_as(role)) as guard:
        fence = guard.acquire("feed", "7", holder="a", ttl_seconds=600)
        assert fence is not None
        assert guard.acquire("feed", "7", holder="b", ttl_seconds=600) is None
        assert guard.renew("feed", "7", fence=fence, ttl_seconds=600)
        assert guard.held("feed", "7") is not None
        assert guard.release("feed", "7", fence=fence)
