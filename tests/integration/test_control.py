"""What a run's control connection holds, gives up and is asked for."""

from __future__ import annotations

import threading
import time
from typing import LiteralString

import psycopg
import pytest

from spine_migrate.carry import control
from spine_migrate.carry.control import Control, broken_off_by
from spine_migrate.db.connect import Connection, connect
from spine_migrate.errors import Interrupted
from tests.database import Database
from tests.legacy import Legacy, build
from tests.waiting import LONGEST

_HELD: LiteralString = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"
_NAME = 'capture-spine/executions|"public"."executions"|"public"."runs"'


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def test_locks_are_given_up_before_the_session_ends(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has temporary tables to take away first, and the next command would meet the lock."""
    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "close", lambda _: None)
        with Control(legacy.url, stop=threading.Event(), retry_seconds=0) as held:
            held.hold(_NAME, wait=False)
            assert held.connection.execute(_HELD, [held.connection.info.backend_pid]).fetchall() == [(1,)]
    assert legacy.value(_HELD, held.connection.info.backend_pid) == 0
    held.connection.close()


def test_who_comes_right_after_a_session_that_is_just_ending_has_its_lock(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ENDED", LONGEST)
    legacy.executions(1)
    with psycopg.connect(legacy.url) as ending:
        ending.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7741))", (_NAME,))
        timer = threading.Timer(0.5, ending.close)
        timer.start()
        assert legacy.move().moved == 1
        timer.join()


def test_who_is_told_to_cancel_between_two_statements_cancels_the_next(legacy: Legacy) -> None:

    def two_statements(session: Connection) -> None:
        cancel = threading.Event()
        with broken_off_by(cancel, lambda: [session]):
            session.execute("SELECT")
            cancel.set()
            # The first request comes meanwhile, and is for nothing.
            time.sleep(0.5)
            session.execute("SELECT pg_sleep(%s)", (LONGEST,))

    with connect(legacy.url) as session, pytest.raises(Interrupted, match="Cancelled"):
        two_statements(session)
