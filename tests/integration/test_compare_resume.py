"""A comparison that was killed goes on from its checkpoint, and from no other."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from spine_migrate.errors import ConfigurationError
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import Equality, Scope
from spine_migrate.parity.model import Comparison, Verdict
from spine_migrate.parity.options import Finding, Options
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid


@arranged
def legacy(old: Legacy) -> None:
    old.many_executions(600)
    old.execute("UPDATE executions SET status = 'zombie' WHERE execution_id = %s", uuid(7))
    old.move()


def killed(legacy: Legacy, file: Path, by: signal.Signals = signal.SIGKILL) -> None:
    arguments = [sys.executable, "-m", "tests.comparison_killed", legacy.url, str(file), str(int(by))]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode in (-by, 1 if by is signal.SIGINT else -by), ended.stderr
    assert file.exists(), ended.stderr


def resumed(
    legacy: Legacy, file: Path, *, equality: Equality = Equality.VALUE, scope: Scope | None = None
) -> tuple[Comparison, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    given = Options(equality=equality, scope=scope or Scope(), method=Finding.BUCKETS, checkpoint=file)
    with connect(legacy.url) as connection:
        report = compare(connection, options=given, progress=lambda done, of: told.append((done, of)))
    return report.comparisons[0], told


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_comparison_goes_on_where_it_was(legacy: Legacy, tmp_path: Path, by: signal.Signals) -> None:
    file = tmp_path / "parity.checkpoint"
    legacy.execute("UPDATE runs SET lane = 'touched' WHERE run_id IN (%s, %s)", uuid(1), uuid(600))
    killed(legacy, file, by)
    # On both sides, in what was read and in what was not: no difference, whichever of them was read before.
    legacy.execute("UPDATE executions SET error = 'since' WHERE execution_id IN (%s, %s)", uuid(2), uuid(599))
    legacy.execute("UPDATE runs SET error = 'since' WHERE run_id IN (%s, %s)", uuid(2), uuid(599))

    comparison, told = resumed(legacy, file)

    assert told[0][0] * 2 >= told[0][1]
    assert told[-1] == (told[0][1], told[0][1])
    assert {one.key for one in comparison.differences} == {uuid(1), uuid(600)}
    assert [one.code for one in comparison.reasons] == ["differing", "resumed"]
    assert comparison.method is not None
    assert comparison.method.why.endswith("its digests are of 2 snapshots")
    assert not file.exists()
    assert {one.name for one in comparison.equations if not one.holds} == set()


def test_several_kills_and_the_rest_at_once(legacy: Legacy, tmp_path: Path) -> None:
    file = tmp_path / "parity.checkpoint"
    killed(legacy, file)
    killed(legacy, file)
    comparison, _ = resumed(legacy, file)
    assert comparison.verdict is Verdict.EQUAL, comparison.reasons
    assert comparison.method is not None
    assert "3 snapshots" in comparison.method.why


@pytest.mark.parametrize(
    ("statement", "number"),
    [
        ("UPDATE runs SET lane = 'touched' WHERE run_id = %s", 2),
        # Neither table is written: what was left out of the digests as open is open no longer.
        ("DELETE FROM spine_migrate.link WHERE target_key = %s", 1),
        ("WITH held AS (DELETE FROM spine_migrate.quarantine) DELETE FROM executions WHERE execution_id = %s", 7),
    ],
)
def test_what_was_written_where_had_been_read_leaves_no_equality(
    database: Database, tmp_path: Path, statement: LiteralString, number: int
) -> None:
    """The row is changed in its block, which the digests have behind them: they agree, and the tables do not."""
    legacy, file = build(database), tmp_path / "parity.checkpoint"
    legacy.execute("ALTER TABLE runs SET (fillfactor = 50)")
    legacy.many_executions(600)
    legacy.execute("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", uuid(9999), uuid(1))
    legacy.execute("UPDATE executions SET status = 'zombie' WHERE execution_id = %s", uuid(7))
    legacy.move()
    killed(legacy, file)
    legacy.execute(statement, uuid(number))

    comparison, _ = resumed(legacy, file)

    assert comparison.verdict is not Verdict.EQUAL
    assert [one.code for one in comparison.reasons][-1] == "resumed"
    assert resumed(legacy, file)[0].reasons[-1:] != comparison.reasons[-1:], "the next one begins anew"


def test_what_was_written_where_is_still_to_be_read_is_read(legacy: Legacy, tmp_path: Path) -> None:
    file = tmp_path / "parity.checkpoint"
    killed(legacy, file)
    for table, key in (("executions", "execution_id"), ("runs", "run_id")):
        statement = sql.SQL("UPDATE {} SET error = 'since' WHERE {} = {}")
        legacy.execute(statement.format(*map(sql.Identifier, (table, key)), sql.Literal(uuid(600))))
    comparison, _ = resumed(legacy, file)
    assert comparison.verdict is Verdict.EQUAL, comparison.reasons


def test_a_checkpoint_of_something_else_is_refused_by_name(legacy: Legacy, tmp_path: Path) -> None:
    file = tmp_path / "parity.checkpoint"
    killed(legacy, file)
    before = file.read_bytes()
    others = {
        "the equality": resumed(legacy, file, equality=Equality.EXACT)[0],
        "the part of the rows": resumed(legacy, file, scope=Scope(sample=0.5))[0],
    }
    legacy.execute("VACUUM FULL executions")
    others["the legacy tables' files"] = resumed(legacy, file)[0]
    for what, comparison in others.items():
        assert (comparison.verdict, [one.code for one in comparison.reasons]) == (Verdict.UNKNOWN, ["checkpoint"])
        assert what in comparison.reasons[0].sentence
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{}", "[1]", "not JSON", '{"spine_migrate_checkpoint": 99, "comparisons": {}}'])
def test_a_file_that_is_no_checkpoint_is_left_alone(legacy: Legacy, tmp_path: Path, text: str) -> None:
    file = tmp_path / "notes"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is no checkpoint"):
        resumed(legacy, file)
    assert file.read_text(encoding="utf-8") == text


def test_a_comparison_that_is_done_leaves_nothing_to_go_on_from(legacy: Legacy, tmp_path: Path) -> None:
    file = tmp_path / "parity.checkpoint"
    for _ in range(2):
        comparison, told = resumed(legacy, file)
        assert (comparison.verdict, told[0][0]) == (Verdict.EQUAL, 0)
        assert list(tmp_path.iterdir()) == []
