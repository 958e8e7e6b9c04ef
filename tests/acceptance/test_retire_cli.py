"""retire as a user meets it: gates, what it drops and keeps, what it says afterwards, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from psycopg import sql

from spine_migrate.cutover.archive.verify import verify
from tests.command import run
from tests.cutting import BOTH, Pair
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid

_NOW = ("--after-days", "0")
_OURS = (
    "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'spine_migrate'::regnamespace"
    " AND proname ~ '^(view|capture)_[0-9]')"
    " + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'spine%%' AND NOT tgisinternal)"
    " + (SELECT count(*) FROM spine_migrate.capture) + (SELECT count(*) FROM spine_migrate.change_log)"
    " + (SELECT count(*) FROM spine_migrate.pending)"
)


@arranged
def legacy(legacy: Legacy) -> None:
    """Ten executions with an event each, and one that was accepted in quarantine; cut over, written to since."""
    legacy.many_executions(10)
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type, timestamp)"
        " SELECT gen_random_uuid(), execution_id, 'created', created_at FROM executions"
    )
    pair = Pair(legacy)
    pair.begin()
    legacy.executions(20, status="odd")
    pair.apply()
    pair.accept()
    pair.switch()
    legacy.executions(11, status="running")


def _gates(legacy: Legacy, *words: str) -> tuple[int, dict[str, Any]]:
    done = run(legacy.url, "retire", "--dry-run", "--json", *words)
    assert done.stdout, done.stderr
    return done.returncode, {gate["name"]: gate for gate in json.loads(done.stdout)["gates"]}


def _gone(legacy: Legacy) -> bool:
    return bool(
        legacy.value(
            "SELECT to_regclass('executions') IS NULL AND to_regclass('executions_legacy') IS NULL"
            " AND to_regclass('execution_events') IS NULL AND to_regclass('execution_events_legacy') IS NULL"
        )
    )


def test_the_legacy_side_goes_and_is_in_the_archive(legacy: Legacy, tmp_path: Path) -> None:
    """The runs stay; nothing of ours is left on them; every other command says when that was and where the rows are."""
    archive = tmp_path / "archive"
    assert run(legacy.url, "retire", *_NOW, "--yes").returncode == 3
    done = run(legacy.url, "retire", *_NOW, "--archive", str(archive), "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert {one["archive"] for one in told["allowed"]} == {str(archive)}
    assert told["retired"]["statements"][0].startswith("DROP VIEW")
    assert _gone(legacy)
    assert legacy.value(_OURS) == 0
    assert legacy.value("SELECT count(*) FROM runs") == 11
    legacy.execute("UPDATE runs SET error = 'goes on' WHERE run_id = %s", uuid(1))
    manifest = verify(archive).manifest
    assert manifest is not None
    assert {table.name.table: table.rows for table in manifest.tables} == {
        "executions_legacy": 12,
        "execution_events_legacy": 10,
    }
    for command in (["sync", "run", "--once"], ["cutover", "--yes"], ["rollback", "--yes"], ["undo", "--all", "--yes"]):
        refused = run(legacy.url, *command)
        assert (refused.returncode, "was retired on" in refused.stderr, str(archive) in refused.stderr) == (
            3,
            True,
            True,
        )
    again = run(legacy.url, "retire", "--yes")
    assert (again.returncode, "nothing left to do" in again.stdout) == (0, True), again.stderr
    assert legacy.rows("SELECT action, detail ->> 'how' FROM spine_migrate.audit WHERE action LIKE 'retire%'") == [
        ("retire allowed", None),
        ("retire allowed", None),
        ("retired", "retire"),
        ("retired", "retire"),
    ]
    for command in (["status"], ["watch", "--once"], ["compare"]):
        shown = run(legacy.url, *command)
        assert "retired" in shown.stdout, shown.stdout + shown.stderr
    legacy.move("jobs")
    followed = run(legacy.url, "sync", "run", "--once", "--mapping", "capture-spine/executions")
    assert (followed.returncode, "capture-spine/executions was retired on" in followed.stderr) == (3, True)


def test_a_dry_run_shows_what_would_be_run_and_changes_nothing(legacy: Legacy) -> None:
    done = run(legacy.url, "retire", "--dry-run", *_NOW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DROP VIEW public.execution_events, public.executions;" in done.stdout
    assert "DROP TABLE public.execution_events_legacy, public.executions_legacy;  -- " in done.stdout
    assert "Who reads it (no gate)" in done.stdout
    assert "Nobody is in the way of these now." in done.stdout
    assert not _gone(legacy)
    code, gates = _gates(legacy)
    assert (code, [name for name, gate in gates.items() if not gate["ok"]]) == (3, ["age", "view-writes"])
    assert "INSERT" in gates["view-writes"]["evidence"]


def test_a_dry_run_shows_its_locks_and_who_is_in_the_way_of_them(legacy: Legacy) -> None:
    """A reader of the target, a reader of the view, and a writer: the first lock alone waits for none but writers."""
    with legacy.connect() as reader, legacy.connect() as writer, reader.transaction(), writer.transaction():
        reader.execute("SET LOCAL application_name = 'nightly report'")
        reader.execute("SELECT FROM executions")
        writer.execute("UPDATE runs SET error = 'a value' WHERE run_id = %s", (uuid(1),))
        pids = reader.info.backend_pid, writer.info.backend_pid
        done = run(legacy.url, "retire", "--dry-run", "--json", *_NOW, "--lock-timeout", "150")
        shown = run(legacy.url, "retire", "--dry-run", *_NOW)
    told = json.loads(done.stdout)
    modes = {(one["table"].split(".")[1].strip('"'), one["mode"]) for one in told["locks"]}
    legacy_tables = ("executions_legacy", "execution_events_legacy")
    assert modes == {
        *((name, "SHARE ROW EXCLUSIVE") for name in legacy_tables),
        *((name, "ACCESS EXCLUSIVE") for name in (*legacy_tables, *BOTH, "runs", "run_events")),
    }
    assert {one["lock_timeout"] for one in told["locks"]} == {150}
    held = {(one["table"], one["pid"]) for one in told["in_the_way"]}
    assert {('"public"."executions"', pids[0]), ('"public"."runs"', pids[1])} <= held
    assert "Locks of the retire:" in shown.stdout
    assert '(nightly report) has ACCESS SHARE on "public"."executions"' in shown.stdout
    assert "a value" not in shown.stdout


def test_what_hangs_on_them_is_named(legacy: Legacy, tmp_path: Path) -> None:
    """A view, a function's text, a foreign key, a trigger, a sequence; the text alone may be taken on."""
    legacy.execute("CREATE VIEW active AS SELECT execution_id FROM executions WHERE status = 'running'")
    legacy.execute(
        "CREATE FUNCTION counted() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN"
        " RETURN (SELECT count(*) FROM executions); END$$"
    )
    legacy.execute("CREATE TABLE note (execution_id uuid REFERENCES executions_legacy)")
    legacy.execute("CREATE SEQUENCE taken OWNED BY executions_legacy.retry_count")
    legacy.execute("CREATE TABLE other (n bigint DEFAULT nextval('taken'))")
    code, gates = _gates(legacy, *_NOW)
    assert (code, [name for name, gate in gates.items() if not gate["ok"]]) == (3, ["dependents"])
    evidence = gates["dependents"]["evidence"]
    for named in ("view public.active", "function public.counted()", 'ON "public"."note"', "default public.other"):
        assert named in evidence, evidence
    legacy.execute("DROP VIEW active")
    legacy.execute("DROP TABLE note, other")
    accepted = ("--accept", "public.counted()")
    assert _gates(legacy, *_NOW, *accepted)[0] == 0
    done = run(legacy.url, "retire", *_NOW, *accepted, "--archive", str(tmp_path / "archive"), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert _gone(legacy)
    assert legacy.value("SELECT to_regclass('taken') IS NULL")


def test_a_row_that_differs_or_a_shim_that_is_called_closes_its_gate(legacy: Legacy) -> None:
    legacy.execute("UPDATE runs SET error = 'late' WHERE run_id = %s", uuid(2))
    code, gates = _gates(legacy, *_NOW)
    assert code == 0, gates
    assert "but for" in gates["parity"]["evidence"]
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    legacy.execute("UPDATE executions_legacy SET lane = 'other' WHERE execution_id = %s", uuid(3))
    legacy.execute("DELETE FROM execution_events_legacy WHERE execution_id = %s", uuid(4))
    legacy.execute(
        "INSERT INTO shim_call (task, caller, host, version, mode, side, count, first_seen, last_seen)"
        " VALUES ('app.old', 'app/x.py:1', 'h', '1', 'legacy', 'legacy', 1, now(), now())"
    )
    code, gates = _gates(legacy, "--after-days", "1")
    closed = [name for name, gate in gates.items() if not gate["ok"]]
    assert (code, closed) == (3, ["parity", "age", "view-writes", "shims"])
    assert f"differing {uuid(3)}" in gates["parity"]["evidence"]
    assert "1 missing" in gates["parity"]["evidence"]
    assert "app/x.py:1" in gates["shims"]["evidence"]


def test_allowed_and_taken_back(legacy: Legacy, tmp_path: Path) -> None:
    """From the permission on no applier writes to the legacy tables; a rollback ends it and loses nothing."""
    archive = str(tmp_path / "archive")
    allowed = run(legacy.url, "retire", *_NOW, "--archive", archive, "--allow", "--yes")
    assert (allowed.returncode, "is allowed" in allowed.stdout) == (0, True), allowed.stderr
    legacy.execute("UPDATE runs SET error = 'late' WHERE run_id = %s", uuid(2))
    assert "retire --revoke" in run(legacy.url, "sync", "run", "--once", "--quiet").stderr
    assert run(legacy.url, "retire", "--revoke").returncode == 0
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    assert run(legacy.url, "retire", *_NOW, "--archive", archive, "--allow", "--yes").returncode == 0
    assert len(list(tmp_path.glob("archive.before-*"))) == 1
    legacy.execute("UPDATE runs SET error = 'later' WHERE run_id = %s", uuid(2))
    assert run(legacy.url, "rollback", "--yes").returncode == 0
    assert legacy.value("SELECT error FROM executions WHERE execution_id = %s", uuid(2)) == "later"
    assert legacy.value("SELECT count(*) FROM spine_migrate.retirement") == 0
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(20))
    run(legacy.url, "sync", "run", "--once", "--quiet")
    legacy.prove(*BOTH)


def test_what_grants_prints_is_enough(database: Database, legacy: Legacy, tmp_path: Path) -> None:
    role = database.add_role("retirer")
    printed = run(legacy.url, "grants", "retire", "--role", role.name)
    assert printed.returncode == 0, printed.stderr
    lacking = run(database.url_as(role), "retire", "--dry-run", *_NOW)
    assert lacking.returncode == 3, lacking.stdout
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL(printed.stdout))
    done = run(database.url_as(role), "retire", *_NOW, "--archive", str(tmp_path / "archive"), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert legacy.value("SELECT retired_by FROM spine_migrate.retirement LIMIT 1") == role.name
    assert _gone(legacy)


def test_no_archive_and_no_view(database: Database) -> None:
    """The reason goes on record."""
    legacy = build(database)
    legacy.many_executions(3)
    pair = Pair(legacy)
    pair.begin()
    pair.switch(with_view=False)
    done = run(legacy.url, "retire", *_NOW, "--without-archive", "a copy, INC-1", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert legacy.value("SELECT without_archive FROM spine_migrate.retirement LIMIT 1") == "a copy, INC-1"
    assert _gone(legacy)
    assert legacy.value("SELECT count(*) FROM runs") == 3


def test_hooks_are_asked_and_told(legacy: Legacy, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    hook = hooks / "before-retire"
    hook.write_text("#!/bin/sh\necho 'not on a Friday' >&2\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    words = ("retire", *_NOW, "--archive", str(tmp_path / "archive"), "--yes", "--hooks", str(hooks))
    vetoed = run(legacy.url, *words)
    assert (vetoed.returncode, "not on a Friday" in vetoed.stderr) == (3, True), vetoed.stderr
    assert not _gone(legacy)
    hook.rename(hooks / "after-retire")
    (hooks / "after-retire").write_text('#!/bin/sh\necho "$SPINE_STEP" >> "$0.log"\n', encoding="utf-8")
    assert run(legacy.url, *words).returncode == 0
    assert (hooks / "after-retire.log").read_text(encoding="utf-8").split() == ["retired", "retired"]
