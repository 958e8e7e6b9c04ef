"""Batches beside others that write what every batch writes: they get smaller instead of failing for ever."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from spine_migrate.backfill.takeback import Takeback
from spine_migrate.carry.rows import Carrier
from tests.database import Database
from tests.legacy import Legacy, build, uuid
from tests.retrying import again
from tests.undoing import back, runs


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def test_a_move_beside_a_row_that_every_long_batch_meets(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger of the target counts in a row that the application writes as well."""
    legacy.many_executions(40)
    legacy.execute("CREATE TABLE tally (runs int)")
    legacy.execute("INSERT INTO tally VALUES (0)")
    legacy.execute(
        "CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql SET search_path = public"
        " AS 'BEGIN UPDATE tally SET runs = runs + 1; RETURN NULL; END'"
    )
    legacy.execute("CREATE TRIGGER tally AFTER INSERT ON runs FOR EACH STATEMENT EXECUTE FUNCTION tally()")
    carry, sizes = Carrier.carry, []

    def late(self: Any, connection: Any, scope: Any, found: Any, care: Any) -> Any:
        sizes.append(found[0])
        assert len(sizes) < 200
        if found[0] > 2:
            legacy.execute("UPDATE tally SET runs = runs + 1")
        return carry(self, connection, scope, found, care)

    monkeypatch.setattr(Carrier, "carry", late)
    assert legacy.move(batch_rows=16, retry_seconds=0).moved == 40
    assert max(sizes) == 16
    legacy.prove()


@pytest.mark.parametrize("count", [1, 9])
def test_a_retry_of_quarantine_beside_one_who_counts_all_the_time(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """As the applier does, in the ledger's row that a retry counts in too."""
    legacy.executions(*range(1, count + 1), status="zombie")
    legacy.move()
    legacy.execute("UPDATE executions SET status = 'failed'")
    move_keys, tries = Carrier.move_keys, [0]

    def late(self: Any, connection: Any, scope: Any, care: Any) -> Any:
        tries[0] += 1
        assert tries[0] < 100
        connection.execute("SELECT")
        legacy.execute("UPDATE spine_migrate.checkpoint SET updated_at = now() WHERE segment = -1")
        return move_keys(self, connection, scope, care)

    monkeypatch.setattr(Carrier, "move_keys", late)
    (result,) = again(legacy, retry_seconds=0).migrations
    assert (result.moved, result.remaining) == (count, 0)
    assert legacy.value("SELECT count(*) FROM runs WHERE status = 'failed'") == count
    assert legacy.value("SELECT count(*) FROM runs WHERE run_id = %s", uuid(1)) == 1


def test_an_undo_beside_one_who_writes_a_row_all_the_time(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as it was made after each of the writes, so it goes with the others."""
    legacy.many_executions(40)
    legacy.move()
    delete, tries = Takeback._delete, [0]  # noqa: SLF001 - the moment between looking and removing

    def late(self: Takeback) -> Any:
        tries[0] += 1
        assert tries[0] < 100
        try:
            legacy.execute("SELECT FROM runs WHERE run_id = %s FOR UPDATE NOWAIT", uuid(7))
        except psycopg.errors.LockNotAvailable:
            return delete(self)
        legacy.execute("UPDATE runs SET executor_name = NULL WHERE run_id = %s", uuid(7))
        return delete(self)

    monkeypatch.setattr(Takeback, "_delete", late)
    (result,) = back(legacy, retry_seconds=0)
    assert (result.state, result.rows, runs(legacy)) == ("undone", 40, [])


def test_what_is_written_before_an_undo_has_locked_it_stays(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    legacy.many_executions(5)
    legacy.move()
    delete, lock = Takeback._delete, Takeback._lock  # noqa: SLF001

    def overtaken(self: Takeback) -> Any:
        if not held:
            legacy.execute("UPDATE runs SET executor_name = NULL WHERE run_id = %s", uuid(2))
        return delete(self)

    def late(self: Takeback, connection: Any, keys: list[str]) -> None:
        held.append(len(keys))
        legacy.execute("UPDATE runs SET error = 'the application' WHERE run_id = %s", uuid(3))
        lock(self, connection, keys)

    held: list[int] = []
    monkeypatch.setattr(Takeback, "_delete", overtaken)
    monkeypatch.setattr(Takeback, "_lock", late)
    (result,) = back(legacy, retry_seconds=0)
    assert held
    assert (result.rows, runs(legacy)) == (4, [uuid(3)])
    assert legacy.value("SELECT error FROM runs") == "the application"
