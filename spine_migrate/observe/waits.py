"""Who waits for a lock around the migrations, looked at every few seconds on a session of its own, for the metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg

from spine_migrate.carry import activity
from spine_migrate.db import ledger
from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.faults import is_lost
from spine_migrate.errors import ServerFault, SpineMigrateError
from spine_migrate.notices import Observer, Subject, Waits
from spine_migrate.observe.saying import Say

SECONDS = 5.0


@contextmanager
def watched(url: str | None, observer: Observer, say: Say) -> Iterator[None]:
    """While the block runs, once however short it is. What cannot be looked at is said once; the work goes on."""
    over = threading.Event()

    def watch() -> None:
        while True:
            try:
                _watch(url, observer, over)
            except ServerFault:
                pass
            except SpineMigrateError as error:
                say(f"Waits for locks are not measured: {error.sentence}", event="metrics", level="warning")
                return
            except psycopg.Error as error:
                if not is_lost(error):
                    say("Waits for locks are not measured any more.", event="metrics", level="warning")
                    return
            if over.wait(SECONDS):
                return

    watcher = threading.Thread(target=watch, name="spine-waits", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(SECONDS)


def _watch(url: str | None, observer: Observer, over: threading.Event) -> None:
    """As long as one connection lasts."""
    with closing(connect(url)) as connection:
        while True:
            _tell(connection, observer)
            if over.wait(SECONDS):
                return


def _tell(connection: Connection, observer: Observer) -> None:
    """Nothing as long as there is no ledger."""
    ((installed,),) = connection.execute("SELECT to_regclass('spine_migrate.control') IS NOT NULL").fetchall()
    if not installed:
        return
    found = activity.look(connection)
    for one in ledger.migrations(connection):
        if one.migration_id in found:
            now = found[one.migration_id]
            subject = Subject(one.mapping, one.migration_id, one.source_table, one.target_table)
            observer.notice(Waits(subject, now.lock_waits, now.longest_wait))
