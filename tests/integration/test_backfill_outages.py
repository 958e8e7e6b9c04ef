"""A server that goes away in the middle of a batch, and comes back or does not."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from spine_migrate.errors import Interrupted, ServerFault
from tests.conftest import StartServer
from tests.database import create_role, url_for
from tests.halting import HALTED, Background, halting_trigger, wait_for
from tests.legacy import Legacy, build, uuid


def served(start_server: StartServer) -> tuple[Legacy, Callable[[], None], Callable[[], None]]:
    """A history on a server of its own; how to stop and how to start that."""
    server = start_server()
    role = create_role(server.url(), "dba")
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE spine OWNER dba")
    legacy = build(url_for(server.url(), "spine", role))
    return legacy, server.stop, server.start


def test_a_restart_in_the_middle_of_a_batch(start_server: StartServer) -> None:
    legacy, stop, start = served(start_server)
    legacy.many_executions(300)
    legacy.executions(500, parent_execution_id=uuid(1))
    halting_trigger(legacy, 150)
    going = Background(lambda: legacy.move(batch_rows=20, workers=2))
    wait_for(legacy, HALTED)

    stop()
    start()

    assert going.result().moved == 301
    legacy.prove()


def test_a_server_that_stays_away_longer_than_the_retries(start_server: StartServer) -> None:
    legacy, stop, start = served(start_server)
    legacy.many_executions(300)
    halting_trigger(legacy, 150)
    going = Background(lambda: legacy.move(batch_rows=20, retry_seconds=0.5))
    wait_for(legacy, HALTED)
    stop()

    with pytest.raises(ServerFault) as fault:
        going.result()

    assert fault.value.exit_code == 5
    start()
    assert legacy.value("SELECT sum(rows_moved) FROM spine_migrate.checkpoint") == legacy.value(
        "SELECT count(*) FROM runs"
    )
    assert legacy.move().moved == 300
    legacy.prove()


def test_a_stop_while_the_server_is_away_is_obeyed(start_server: StartServer) -> None:
    legacy, stop_server, start = served(start_server)
    legacy.many_executions(100)
    halting_trigger(legacy, 50)
    stop = threading.Event()
    going = Background(lambda: legacy.move(batch_rows=20, retry_seconds=3600, stop=stop))
    wait_for(legacy, HALTED)
    stop_server()
    stop.set()

    # By what it was at when it heard of the one or of the other.
    with pytest.raises((ServerFault, Interrupted)):
        going.result()

    start()
    assert legacy.move().moved == 100
