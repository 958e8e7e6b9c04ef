"""``plan`` and the dry runs say what will be locked, whom that stops, and who is in the way."""

from __future__ import annotations

import json

import psycopg

from tests.command import run
from tests.cutting import Pair
from tests.database import Database
from tests.legacy import build


def test_before_each_step(database: Database) -> None:
    """The same session is in the way of each; what is captured already takes no lock any more."""
    legacy = build(database)
    legacy.many_executions(10)
    legacy.two_events_each(10)
    with psycopg.connect(database.url, application_name="nightly import") as writer:
        writer.execute("UPDATE executions SET error = 'between us' WHERE status = 'completed'")
        pid = writer.info.backend_pid
        planned = run(database.url, "plan")
        assert (planned.returncode, "\nready\n" in planned.stdout) == (0, True), planned.stdout
        for line in (
            "Locks of the capture:",
            '  SHARE ROW EXCLUSIVE on "public"."executions", until the commit, some ten milliseconds',
            "    stops writes, VACUUM and ANALYZE, CREATE INDEX, DDL",
            "    given up after 200 ms, and tried again a moment later",
            '    LOCK TABLE "public"."executions" IN SHARE ROW EXCLUSIVE MODE',
            "Locks of the cutover:",
            '  ACCESS EXCLUSIVE on "public"."execution_events", until the commit, some ten milliseconds',
            "    stops reads, SELECT FOR UPDATE, writes, VACUUM and ANALYZE, CREATE INDEX, DDL",
            f'  session {pid} of {database.owner.name} (nightly import) has ROW EXCLUSIVE on "public"."executions"',
        ):
            assert f"\n{line}\n" in planned.stdout, f"{line}\n{planned.stdout}"
        capture, cutover = json.loads(run(database.url, "plan", "--json").stdout)["stages"]
        assert {one["lock_timeout"] for one in capture["locks"]} == {200, None}
        assert {one["pid"] for one in capture["in_the_way"]} == {pid}
        assert {one["table"] for one in cutover["in_the_way"]} == {'"public"."executions"'}
        live = run(database.url, "executions-to-runs", "--live", "--dry-run")
        assert (live.returncode, "Locks of the cutover" in live.stdout) == (0, False)
        assert f"session {pid} of" in live.stdout
        assert "between us" not in planned.stdout + live.stdout

        legacy.move()
        legacy.move("execution_events")
        late = run(database.url, "sync", "start", "--dry-run", "--lock-timeout", "70")
        assert (late.returncode, f"session {pid} of" in late.stdout) == (0, True)
        assert "given up after 70 ms" in late.stdout
    assert legacy.value("SELECT count(*) FROM spine_migrate.capture") == 0
    Pair(legacy).begin()
    assert run(database.url, "sync", "start", "--dry-run").stdout == "No lock would be taken.\n"
    gates = run(database.url, "cutover", "--dry-run")
    assert gates.returncode == 0
    assert gates.stdout.endswith("Nobody is in the way of these now.\n")
    shown = json.loads(run(database.url, "cutover", "--dry-run", "--no-view", "--json").stdout)
    assert {one["mode"] for one in shown["locks"]} == {"ACCESS EXCLUSIVE", "SHARE ROW EXCLUSIVE"}
    assert shown["in_the_way"] == []


def test_what_would_refuse_the_capture_is_no_ready_plan(database: Database) -> None:
    legacy = build(database)
    legacy.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_pkey")
    planned = run(database.url, "plan")
    assert planned.returncode == 3
    assert "not ready: Each change is looked up by" in planned.stdout
    assert json.loads(run(database.url, "plan", "--json").stdout)["ready"] is False
    assert run(database.url, "executions-to-runs", "--dry-run").returncode == 0
