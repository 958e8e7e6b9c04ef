"""cutover, rollback and quarantine accept as a user meets them: gates, what they print, their exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from psycopg import sql

from tests.command import run
from tests.cutting import BOTH, Pair
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid

_BOTH = ("--mapping", "capture-spine/executions")
# What nobody may do after a cutover, and what everybody is told then.
_REFUSED = (
    ("cutover", "--yes"),
    ("undo", "--all", "--yes"),
    ("sync", "start"),
    ("executions-to-runs",),
    ("executions-to-runs", "--live"),
    ("quarantine", "retry", "--all"),
    ("repair", "--yes"),
    ("rollback", "--before-cutover", "--yes"),
)
_OVER = re.compile(
    r"was cut over on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC by \w+: .* To go back to the legacy tables, run "
    r"spine-migrate rollback\."
)
_KEY_INDEXES = "SELECT count(*) FROM pg_class WHERE relname LIKE 'spine_key_%%'"


@arranged
def legacy(legacy: Legacy) -> None:
    """Ten executions with an event each, moved, their changes captured and applied."""
    legacy.many_executions(10)
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type, timestamp)"
        " SELECT gen_random_uuid(), execution_id, 'created', created_at FROM executions"
    )
    Pair(legacy).begin()


def _gates(legacy: Legacy, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and the gates by name."""
    done = run(legacy.url, "cutover", "--dry-run", "--json", *words)
    assert done.stdout, done.stderr
    return done.returncode, {gate["name"]: gate for gate in json.loads(done.stdout)["gates"]}


def test_there_and_back(legacy: Legacy) -> None:
    """The dry run changes nothing; the switch says how long the tables were locked; the way back brings all."""
    code, gates = _gates(legacy)
    assert (code, [name for name, gate in gates.items() if not gate["ok"]]) == (0, [])
    assert legacy.value("SELECT to_regclass('executions_legacy') IS NULL")
    done = run(legacy.url, "cutover", *_BOTH, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    switched = json.loads(done.stdout)["switched"]
    assert len(switched["migrations"]) == 2
    assert switched["seconds"] > 0
    assert legacy.value("SELECT relkind FROM pg_class WHERE oid = 'executions'::regclass") == "v"
    for words in _REFUSED:
        refused = run(legacy.url, *words)
        assert (refused.returncode, len(_OVER.findall(refused.stdout + refused.stderr))) == (3, 1), (words, refused)
    legacy.executions(11, status="running")
    legacy.execute("INSERT INTO runs (kind, name) VALUES ('other', 'no legacy form')")
    done = run(legacy.url, "rollback", *_BOTH, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["without_legacy_form"]["capture-spine/executions"] == 1
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    legacy.prove(*BOTH)
    assert legacy.value("SELECT count(*) FROM executions") == 11
    again = run(legacy.url, "rollback", "--yes")
    assert again.returncode == 3
    assert "Nothing has been cut over" in again.stderr


def test_jobs_there_and_back(database: Database) -> None:
    """Their keys are not those of their runs: the index for look-ups is announced, built, and goes in the end."""
    legacy = build(database)
    legacy.execute("INSERT INTO jobs (job_type, status) SELECT 'fetch', 'done' FROM generate_series(1, 5)")
    jobs = ("--mapping", "capture-spine/jobs")
    Pair(legacy, ("jobs",)).begin()
    told = run(legacy.url, "cutover", *jobs, "--dry-run")
    assert (told.returncode, "CREATE INDEX CONCURRENTLY" in told.stdout) == (0, True), told.stdout + told.stderr
    assert "gives its legacy key back (capture-spine/jobs by metadata.legacy.job_id)" in told.stdout
    assert legacy.value(_KEY_INDEXES) == 0
    done = run(legacy.url, "cutover", *jobs, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert legacy.value(_KEY_INDEXES) == 1
    assert legacy.rows("INSERT INTO jobs (job_type) VALUES ('since') RETURNING job_id, status") == [(6, "queued")]
    legacy.execute("UPDATE jobs SET status = 'error' WHERE job_id = 1")
    legacy.execute("DELETE FROM jobs WHERE job_id = 2")
    legacy.execute("INSERT INTO runs (kind, name) VALUES ('task', 'native'), ('pipeline', 'of another kind')")
    # What is not carried back yet is no difference that is certain.
    assert run(legacy.url, "compare", "capture-spine/jobs").returncode == 4
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    compared = run(legacy.url, "compare", "capture-spine/jobs")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    done = run(legacy.url, "rollback", *jobs, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["without_legacy_form"] == {"capture-spine/jobs": 2}
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    legacy.prove("jobs")
    assert legacy.rows("SELECT job_id, status FROM jobs ORDER BY 1") == [
        (1, "error"), (3, "done"), (4, "done"), (5, "done"), (6, "queued"),
    ]  # fmt: skip
    assert run(legacy.url, "rollback", *jobs, "--before-cutover", "--yes").returncode == 0
    assert legacy.value(_KEY_INDEXES) == 0
    assert legacy.value("SELECT count(*) FROM runs") == 2


def test_a_closed_gate_changes_nothing(legacy: Legacy) -> None:
    """Rows that nobody has explained; accepted by name, the gate opens; the row stays in the legacy table."""
    legacy.executions(20, status="odd")
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    refused = run(legacy.url, "cutover", *_BOTH, "--yes")
    assert refused.returncode == 3
    assert "CLOSED  quarantine: Rows that nobody has mended or accepted: 1 of" in refused.stdout
    assert legacy.value("SELECT to_regclass('executions_legacy') IS NULL")
    accepted = run(legacy.url, "quarantine", "accept", uuid(20), "--why", "a test row")
    assert accepted.stdout == "1 rows accepted: unknown_value 1.\n"
    done = run(legacy.url, "cutover", *_BOTH, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert legacy.value("SELECT status FROM executions_legacy WHERE execution_id = %s", uuid(20)) == "odd"
    assert legacy.value("SELECT count(*) FROM executions WHERE execution_id = %s", uuid(20)) == 0
    assert run(legacy.url, "rollback", *_BOTH, "--yes").returncode == 0
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    assert legacy.value("SELECT status FROM executions WHERE execution_id = %s", uuid(20)) == "odd"


def test_a_pause_closes_a_gate(legacy: Legacy) -> None:
    """Here and on the way to the end; with who has paused it, before anything is applied or asked."""
    legacy.execute("UPDATE executions SET error = 'late'")
    assert run(legacy.url, "pause", "--mapping", "capture-spine/execution_events").returncode == 0
    code, gates = _gates(legacy)
    assert (code, [name for name, gate in gates.items() if not gate["ok"]]) == (3, ["pause"])
    who = legacy.value("SELECT session_user")
    assert f"Paused: capture-spine/execution_events by {who} since 2" in gates["pause"]["evidence"]
    assert gates["pause"]["remedy"].startswith("spine-migrate resume")
    refused = run(legacy.url, "cutover", *_BOTH, "--yes")
    assert (refused.returncode, "CLOSED  pause" in refused.stdout) == (3, True), refused.stdout + refused.stderr
    assert legacy.value("SELECT count(*) FROM runs WHERE error = 'late'") == 0
    assert run(legacy.url, "resume").returncode == 0
    assert run(legacy.url, "cutover", *_BOTH, "--yes").returncode == 0
    run(legacy.url, "pause")
    words = ("retire", *_BOTH, "--after-days", "0", "--dry-run")
    refused = run(legacy.url, *words)
    assert (refused.returncode, "CLOSED  pause" in refused.stdout) == (3, True), refused.stdout + refused.stderr
    run(legacy.url, "resume")
    assert "CLOSED  pause" not in run(legacy.url, *words).stdout


def test_an_accepted_row_that_changes_is_open_again(legacy: Legacy) -> None:
    legacy.executions(20, status="odd")
    run(legacy.url, "sync", "run", "--once", "--quiet")
    run(legacy.url, "quarantine", "accept", uuid(20), "--why", "a test row")
    assert _gates(legacy)[1]["quarantine"]["ok"]
    legacy.execute("UPDATE executions SET status = 'odder' WHERE execution_id = %s", uuid(20))
    run(legacy.url, "sync", "run", "--once", "--quiet")
    assert not _gates(legacy)[1]["quarantine"]["ok"]


def test_lag_and_changes_in_flight(legacy: Legacy) -> None:
    """Rows that are on their way are no difference; too many of them are too many."""
    legacy.execute("UPDATE executions SET error = 'late'")
    code, gates = _gates(legacy, "--max-lag", "5")
    assert code == 3
    assert [name for name, gate in gates.items() if not gate["ok"]] == ["lag"]
    assert "but for 10 rows that are on their way" in gates["parity"]["evidence"]
    assert run(legacy.url, "cutover", *_BOTH, "--yes").returncode == 0
    assert legacy.value("SELECT count(*) FROM executions WHERE error = 'late'") == 10


def test_a_real_difference_closes_the_gate(legacy: Legacy) -> None:
    legacy.execute("UPDATE runs SET name = 'other' WHERE run_id = %s", uuid(3))
    code, gates = _gates(legacy)
    assert code == 3
    assert uuid(3) in gates["parity"]["evidence"]


def test_a_history_that_differs_is_told_while_other_runs_are_on_their_way(legacy: Legacy) -> None:
    """What is in the log excuses the runs that it is about: their rows, and the runs of their events."""
    legacy.execute("UPDATE execution_events SET event_type = 'started' WHERE execution_id = %s", uuid(2))
    legacy.execute("UPDATE executions SET error = 'late' WHERE execution_id = %s", uuid(1))
    legacy.execute(
        "INSERT INTO run_events (run_id, event_type) SELECT run_id, 'retried' FROM runs WHERE run_id = %s"
        " UNION ALL SELECT run_id, 'completed' FROM runs WHERE run_id = %s",
        uuid(1),
        uuid(2),
    )
    code, gates = _gates(legacy)
    assert (code, gates["parity"]["ok"]) == (0, True), gates["parity"]
    legacy.execute("INSERT INTO run_events (run_id, event_type) VALUES (%s, 'completed')", uuid(3))
    code, gates = _gates(legacy)
    assert (code, [name for name, gate in gates.items() if not gate["ok"]]) == (3, ["parity"])
    assert "the histories of capture-spine/executions differ" in gates["parity"]["evidence"]


def test_a_view_of_the_application_follows_the_name(legacy: Legacy) -> None:
    """There and back again; a trigger breaks, unless somebody takes that on himself, and is on again afterwards."""
    legacy.execute("CREATE VIEW active AS SELECT execution_id FROM executions WHERE status = 'running'")
    legacy.execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.lane := 'touched'; RETURN NEW; END$$"
    )
    legacy.execute("CREATE TRIGGER touch BEFORE INSERT ON executions FOR EACH ROW EXECUTE FUNCTION touch()")
    code, gates = _gates(legacy)
    assert (code, [name for name, gate in gates.items() if not gate["ok"]]) == (3, ["dependents"])
    done = run(legacy.url, "cutover", *_BOTH, "--yes", "--accept", "touch")
    assert done.returncode == 0, done.stdout + done.stderr
    legacy.executions(30, status="running", lane="fast")
    assert legacy.value("SELECT count(*) FROM active") == 1
    assert run(legacy.url, "rollback", *_BOTH, "--yes").returncode == 0
    assert legacy.value("SELECT lane FROM executions WHERE execution_id = %s", uuid(30)) == "fast"
    legacy.executions(31, status="running", lane="fast")
    assert legacy.value("SELECT count(*) FROM active") == 2
    assert legacy.value("SELECT lane FROM executions WHERE execution_id = %s", uuid(31)) == "touched"


def test_before_a_cutover_rollback_takes_everything_back(legacy: Legacy) -> None:
    done = run(legacy.url, "rollback", "--before-cutover", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert legacy.value("SELECT count(*) FROM runs") == 0
    assert legacy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'spine%'") == 0
    assert legacy.value("SELECT count(*) FROM executions") == 10


def test_a_hook_vetoes_and_hooks_are_told(legacy: Legacy, tmp_path: Path) -> None:
    hook = tmp_path / "before-cutover"
    hook.write_text("#!/bin/sh\necho 'not on a Friday' >&2\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    vetoed = run(legacy.url, "cutover", *_BOTH, "--yes", "--hooks", str(tmp_path))
    assert (vetoed.returncode, "not on a Friday" in vetoed.stderr) == (3, True), vetoed.stderr
    assert legacy.value("SELECT to_regclass('executions_legacy') IS NULL")
    hook.rename(tmp_path / "after-cutover")
    (tmp_path / "after-cutover").write_text('#!/bin/sh\necho "$SPINE_STEP" >> "$0.log"\n', encoding="utf-8")
    assert run(legacy.url, "cutover", *_BOTH, "--yes", "--hooks", str(tmp_path)).returncode == 0
    assert (tmp_path / "after-cutover.log").read_text(encoding="utf-8").split() == ["cutover", "cutover"]


def test_a_rollback_that_was_killed_after_its_switch_goes_on(legacy: Legacy) -> None:
    """What others made is the migration's only then."""
    pair = Pair(legacy)
    pair.switch()
    legacy.execute("INSERT INTO runs (run_id, kind, name, lane) VALUES (%s, 'pipeline', 'native', 'normal')", uuid(70))
    pair.back(settled=False)
    assert legacy.value("SELECT metadata ->> 'migrated_from' FROM runs WHERE run_id = %s", uuid(70)) is None
    done = run(legacy.url, "rollback", *_BOTH, "--yes", "--json")
    assert (done.returncode, json.loads(done.stdout)["switched"]) == (0, None), done.stderr
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    assert _gates(legacy)[0] == 0
    assert run(legacy.url, "rollback", *_BOTH, "--yes").returncode == 3


def test_rows_that_somebody_has_deleted_from_the_legacy_table_come_back(legacy: Legacy) -> None:
    """They are the application's, which has the view; the applier would take them from the target next."""
    Pair(legacy).switch()
    legacy.execute("DELETE FROM execution_events_legacy WHERE execution_id IN (%s, %s)", uuid(3), uuid(4))
    legacy.execute("DELETE FROM executions_legacy WHERE execution_id IN (%s, %s)", uuid(3), uuid(4))
    legacy.executions(50)
    done = run(legacy.url, "rollback", *_BOTH, "--yes")
    assert done.returncode == 0, done.stderr
    assert "2 rows of capture-spine/executions were deleted from its legacy table" in done.stderr
    assert "2 rows of capture-spine/execution_events were deleted" in done.stderr
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    legacy.prove(*BOTH)
    assert legacy.value("SELECT count(*) FROM executions") == 11
    assert legacy.value("SELECT count(*) FROM execution_events") == 10


def test_what_grants_prints_is_enough(database: Database, legacy: Legacy) -> None:
    """For a role that owns nothing of it; after the way back as well."""
    role = database.add_role("switcher")
    printed = run(legacy.url, "grants", "cutover", "--role", role.name)
    assert printed.returncode == 0, printed.stderr
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL(printed.stdout))
    url = database.url_as(role)
    done = run(url, "cutover", *_BOTH, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    legacy.executions(11)
    done = run(url, "rollback", *_BOTH, "--yes")
    assert done.returncode == 0, done.stderr
    assert legacy.value("SELECT count(*) FROM executions") == 11
