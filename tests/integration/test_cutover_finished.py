"""What a cutover or rollback has left: to do, where it was killed right after its switch, and behind it."""

from __future__ import annotations

import json
from typing import LiteralString

import psycopg
import pytest
from click.testing import CliRunner, Result

from spine_migrate.cli import main
from spine_migrate.db import schema
from tests.cutting import Pair, ten_followed
from tests.database import Database
from tests.legacy import filled, uuid

_NAME = '"note_execution_id_fkey" ON "public"."note"'
_VALID: LiteralString = "SELECT convalidated FROM pg_constraint WHERE conname = 'note_execution_id_fkey'"


@pytest.fixture
def pair(database: Database) -> Pair:
    pair = Pair(filled(database, ten_followed))
    pair.legacy.execute(
        "CREATE TABLE note (execution_id uuid REFERENCES executions);"
        "CREATE TABLE loose (execution_id uuid);"
        "ALTER TABLE loose ADD CONSTRAINT loose_fkey FOREIGN KEY (execution_id) REFERENCES executions NOT VALID"
    )
    pair.legacy.execute("INSERT INTO note VALUES (%s)", uuid(1))
    return pair


def _killed(pair: Pair) -> None:
    """As between the switch and what comes after it."""
    pair.legacy.execute(
        "DO $$ DECLARE own text := (SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conname = 'note_execution_id_fkey');"
        " BEGIN EXECUTE 'ALTER TABLE note DROP CONSTRAINT note_execution_id_fkey,"
        " ADD CONSTRAINT note_execution_id_fkey ' || own || ' NOT VALID'; END $$"
    )
    assert not pair.legacy.value(_VALID)


def _give(pair: Pair, command: str, *words: str) -> Result:
    return CliRunner().invoke(main, [command, "--yes", *words, "--target", pair.legacy.url])


@pytest.mark.parametrize("command", ["cutover", "rollback"])
def test_what_held_for_all_rows_does_again(pair: Pair, command: str) -> None:
    """What held for new rows only before is left so; then there is nothing more to do."""
    pair.switch()
    if command == "rollback":
        pair.back()
    _killed(pair)
    done = _give(pair, command)
    assert (done.exit_code, f"Validated, holds for all rows now: {_NAME}." in done.stdout) == (0, True), done.output
    assert pair.legacy.value(_VALID)
    assert "loose" not in done.stdout
    again = _give(pair, command)
    assert (again.exit_code, "Validated" in again.output) == (3, False)


@pytest.mark.parametrize("command", ["cutover", "rollback"])
def test_who_holds_the_table_is_waited_for_and_then_it_is_said(pair: Pair, command: str) -> None:
    pair.switch()
    if command == "rollback":
        pair.back()
    _killed(pair)
    with psycopg.connect(pair.legacy.url) as other:
        other.execute("LOCK TABLE note IN SHARE MODE")
        done = _give(pair, command, "--lock-timeout", "50", "--lock-within", "0.3", "--json")
    assert done.exit_code == 4, done.output
    told = json.loads(done.stdout)
    assert (told["validated"], told["unproven"], told["switched"]) == ([], [_NAME], None)
    assert not pair.legacy.value(_VALID)
    assert _give(pair, command).exit_code == 0
    assert pair.legacy.value(_VALID)


def test_a_dry_run_validates_nothing(pair: Pair) -> None:
    pair.switch()
    _killed(pair)
    assert _give(pair, "cutover", "--dry-run").exit_code == 3
    assert not pair.legacy.value(_VALID)


def test_the_fence_of_a_rollback_goes_with_the_revision(pair: Pair) -> None:
    legacy = pair.legacy
    fences: LiteralString = "SELECT count(*) FROM pg_trigger WHERE tgname = 'spine_fence'"
    pair.switch()
    pair.back()
    assert legacy.value(fences) == 2
    schema.downgrade(legacy.url, revision="spine_0007", force=True)
    assert legacy.value(fences) == 0
    legacy.execute("UPDATE executions SET error = 'goes on'")
