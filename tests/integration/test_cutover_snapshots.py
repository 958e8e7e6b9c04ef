"""Transactions that only read, at REPEATABLE READ, and that are open across a switch."""

from __future__ import annotations

import psycopg
import pytest

from tests.cutting import Pair
from tests.database import Database
from tests.legacy import build, uuid

_COUNTS = "SELECT (SELECT count(*) FROM executions), (SELECT count(*) FROM runs)"


@pytest.fixture
def pair(database: Database) -> Pair:
    legacy = build(database.url)
    legacy.many_executions(10)
    pair = Pair(legacy)
    pair.begin()
    return pair


def test_readers_with_an_older_snapshot(pair: Pair) -> None:
    """After a cutover they are told to try again; after a rollback they read the legacy table as it was by then, that
    is without what was not carried back yet. Other tables they go on reading, and who begins anew sees everything.
    """
    legacy = pair.legacy
    with legacy.connect() as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        assert old.execute("SELECT count(*) FROM runs").fetchone() == (10,)
        legacy.executions(11)
        pair.switch()
        with pytest.raises(psycopg.errors.SerializationFailure, match="due to a cutover"), old.transaction():
            old.execute("SELECT count(*) FROM executions")
        assert old.execute("SELECT count(*) FROM runs").fetchone() == (10,)
        old.execute("ROLLBACK")
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        assert old.execute(_COUNTS).fetchone() == (11, 11)
        old.execute("ROLLBACK")

        legacy.executions(12)
        pair.apply()
        legacy.executions(13)
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        assert old.execute("SELECT count(*) FROM runs").fetchone() == (13,)
        pair.back()
        assert old.execute(_COUNTS).fetchone() == (12, 13)
        assert old.execute("SELECT 1 FROM executions WHERE execution_id = %s", (uuid(13),)).fetchone() is None
        old.execute("ROLLBACK")
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        assert old.execute(_COUNTS).fetchone() == (13, 13)
        old.execute("ROLLBACK")
