"""``compare --fix-sql``: the script repairs what it names, passes over what was written since, and executes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg
import pytest

from spine_migrate.db.connect import connect
from spine_migrate.db.embedded import bundled_binaries
from spine_migrate.parity.compare import compare
from spine_migrate.parity.fix_sql import write
from spine_migrate.parity.model import Verdict
from tests.legacy import Legacy, arranged, uuid

ODD = 'it\'s\n-- \\ $$ "quoted" %s {} é; DROP TABLE runs;'


@arranged
def moved(legacy: Legacy) -> None:
    legacy.executions(*range(1, 11), error="boom")
    legacy.executions(11, 12, error=ODD, parent_execution_id=uuid(1))
    legacy.add(
        "execution_events",
        *({"event_id": uuid(100 + n), "execution_id": uuid(n), "event_type": "created"} for n in range(1, 11)),
    )
    legacy.move("executions")
    legacy.move("execution_events")


def spoil(legacy: Legacy) -> None:
    legacy.execute(
        "UPDATE runs SET error = %s, metadata = metadata || '{\"x\": \"a''b\"}' WHERE run_id = %s", ODD, uuid(2)
    )
    legacy.execute("UPDATE runs SET error = NULL WHERE run_id = %s", uuid(11))
    legacy.execute("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", uuid(77), uuid(12))
    legacy.execute("UPDATE runs SET parent_run_id = NULL WHERE run_id = %s", uuid(11))
    legacy.execute("DELETE FROM run_events WHERE run_id = %s", uuid(5))
    legacy.execute("DELETE FROM runs WHERE run_id = %s", uuid(5))
    legacy.execute("DELETE FROM execution_events WHERE execution_id = %s", uuid(6))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(6))


def script(legacy: Legacy, file: Path) -> str:
    with connect(legacy.url) as connection:
        compare(connection, closing=lambda report: write(connection, report, file))
    return file.read_text(encoding="utf-8")


def verdict(legacy: Legacy) -> Verdict:
    with connect(legacy.url) as connection:
        return compare(connection).verdict


def run(legacy: Legacy, text: str) -> None:
    """As psql would: all statements in the script's own transaction."""
    with psycopg.connect(legacy.url, autocommit=True) as connection:
        connection.execute(text.replace("\\set ON_ERROR_STOP on\n", "").encode())


def test_the_script_repairs_and_nothing_was_done_before(moved: Legacy, tmp_path: Path) -> None:
    spoil(moved)
    before = moved.rows("SELECT * FROM runs ORDER BY 1"), moved.rows("SELECT * FROM spine_migrate.audit ORDER BY 1")
    text = script(moved, tmp_path / "fix.sql")
    after = moved.rows("SELECT * FROM runs ORDER BY 1"), moved.rows("SELECT * FROM spine_migrate.audit ORDER BY 1")
    assert after == before
    assert verdict(moved) is Verdict.DIFFERENT
    run(moved, text)
    assert verdict(moved) is Verdict.EQUAL
    moved.prove("execution_events")
    assert moved.rows("SELECT error FROM runs WHERE run_id IN (%s, %s) ORDER BY run_id", uuid(2), uuid(11)) == [
        ("boom",),
        (ODD,),
    ]
    assert moved.value("SELECT count(*) FROM spine_migrate.audit WHERE action = 'repaired by script'") == 2
    # A second time it finds nothing as it was, and changes nothing.
    rows = moved.rows("SELECT * FROM runs ORDER BY 1")
    run(moved, text)
    assert moved.rows("SELECT * FROM runs ORDER BY 1") == rows
    assert verdict(moved) is Verdict.EQUAL


def test_it_means_the_same_in_any_session(moved: Legacy, tmp_path: Path) -> None:
    """Its encoding psql takes from the shell, and its operators from the role's search_path."""
    moved.execute("CREATE FUNCTION public.never(varchar, text) RETURNS boolean LANGUAGE sql AS 'SELECT false'")
    moved.execute("CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = text, FUNCTION = public.never)")
    moved.execute("UPDATE executions SET error = %s, error_type = 'é' WHERE execution_id = %s", ODD, uuid(3))
    moved.execute("UPDATE runs SET error = %s || ' ', error_type = 'è' WHERE run_id = %s", ODD, uuid(3))
    script(moved, tmp_path / "fix.sql")
    ended = subprocess.run(
        [bundled_binaries(18) / "psql", "--no-psqlrc", "--quiet", moved.url, "--file", tmp_path / "fix.sql"],
        env={"PGCLIENTENCODING": "LATIN1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert moved.rows("SELECT error, error_type FROM runs WHERE run_id = %s", uuid(3)) == [(ODD, "é")]


def test_rows_that_were_written_since_are_passed_over(moved: Legacy, tmp_path: Path) -> None:
    spoil(moved)
    text = script(moved, tmp_path / "fix.sql")
    moved.execute("UPDATE runs SET error = 'mine' WHERE run_id = %s", uuid(2))
    moved.execute("UPDATE executions SET error = 'mine' WHERE execution_id = %s", uuid(11))
    moved.execute("UPDATE run_events SET data = '{\"x\": 1}' WHERE run_id = %s", uuid(6))
    moved.execute("DELETE FROM run_events WHERE run_id = %s AND data <> '{\"x\": 1}'", uuid(6))
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        run(moved, text)
    moved.execute("INSERT INTO executions (execution_id, pipeline_name, status) VALUES (%s, 'x', 'failed')", uuid(6))
    run(moved, text)
    assert moved.value("SELECT error FROM runs WHERE run_id = %s", uuid(2)) == "mine"
    assert moved.value("SELECT error FROM runs WHERE run_id = %s", uuid(11)) is None
    assert moved.value("SELECT count(*) FROM runs WHERE run_id IN (%s, %s)", uuid(5), uuid(6)) == 2


def test_it_waits_for_no_other_tool_but_fails(moved: Legacy, tmp_path: Path) -> None:
    spoil(moved)
    text = script(moved, tmp_path / "fix.sql")
    with moved.connect() as other:
        other.execute(
            "SELECT pg_advisory_lock(hashtextextended(mapping || '|' || source_table || '|' || target_table, 7741))"
            " FROM spine_migrate.migration"
        )
        with pytest.raises(psycopg.errors.DivisionByZero):
            run(moved, text)


def test_what_has_no_answer_is_a_comment(moved: Legacy, tmp_path: Path) -> None:
    moved.execute("UPDATE executions SET status = 'limbo' WHERE execution_id = %s", uuid(3))
    text = script(moved, tmp_path / "fix.sql")
    assert f"-- differing: {uuid(3)} status\n-- left: a rule does not carry the legacy row (unknown_value)" in text
    assert 'UPDATE "public"."runs"' not in text
