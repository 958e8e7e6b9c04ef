"""A run in the background that is made to stand still in the middle of a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import LiteralString

from psycopg import sql

from spine_migrate.backfill.run import Outcome
from tests.legacy import Legacy, uuid

#: Seconds that a test waits for something to come about, before it fails.
PATIENCE = 60.0


class Background(threading.Thread):
    """Runs ``work``; ``result`` joins and gives or raises what came of it."""

    def __init__(self, work: Callable[[], Outcome]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._work()
        except BaseException as error:  # noqa: BLE001  (raised again by result)
            self._error = error

    def result(self) -> Outcome:
        self.join(PATIENCE)
        if self._error is not None:
            raise self._error
        assert self._outcome is not None, "the run has not come to its end"
        return self._outcome


def wait_for(legacy: Legacy, condition: LiteralString) -> None:
    end = time.monotonic() + PATIENCE
    with legacy.connect() as connection:
        while connection.execute("SELECT " + condition).fetchall() != [(True,)]:
            assert time.monotonic() < end, condition
            time.sleep(0.01)


def halting_trigger(legacy: Legacy, row: int) -> None:
    """The first attempt to insert ``row`` stands still in the middle of its batch; later ones do not."""
    legacy.execute("CREATE SEQUENCE attempts")
    legacy.execute(
        sql.SQL(
            "CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN"
            " IF NEW.run_id = {row} AND nextval('attempts') = 1 THEN PERFORM pg_sleep(30); END IF;"
            " RETURN NEW; END $$;"
            "CREATE TRIGGER halt BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION halt()"
        ).format(row=sql.Literal(uuid(row)))
    )


@contextmanager
def held_at(legacy: Legacy, row: int) -> Iterator[None]:
    """Whoever inserts ``row`` stands still in the middle of its batch until the block is left."""
    legacy.execute(
        sql.SQL(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN"
            " WHILE NEW.run_id = {row} AND NOT pg_try_advisory_xact_lock_shared(7) LOOP"
            " PERFORM pg_sleep(0.1); END LOOP; RETURN NEW; END $$;"
            "CREATE TRIGGER hold BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION hold()"
        ).format(row=sql.Literal(uuid(row)))
    )
    with legacy.connect() as holding:
        holding.execute("SELECT pg_advisory_lock(7)")
        yield


HALTED: LiteralString = (
    "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database())"
)
