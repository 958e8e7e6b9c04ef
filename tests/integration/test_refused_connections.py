"""Why a connection was refused is told by the server's code, whatever language it speaks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from types import SimpleNamespace

import psycopg
import pytest
from psycopg import sql

from spine_migrate.carry.control import Control
from spine_migrate.carry.known import held
from spine_migrate.db.connect import connect
from spine_migrate.db.refusal import sqlstate
from spine_migrate.errors import ConfigurationError, Interrupted, ServerFault
from spine_migrate.sync import loop
from spine_migrate.sync.announce import Announcer
from spine_migrate.sync.loop import follow
from spine_migrate.sync.members import Options
from tests.conftest import SERVER_SETTINGS, StartServer
from tests.database import Database
from tests.ports import free_port
from tests.refusing import speaking
from tests.waiting import until


@pytest.mark.parametrize(
    ("code", "words", "sentence"),
    [
        (
            "28P01",
            "Passwort-Authentifizierung für Benutzer »guarded« fehlgeschlagen",
            "check the user and the password",
        ),
        ("28000", "kein pg_hba.conf-Eintrag für Host »127.0.0.1«", "check the user and the password"),
        ("3D000", "Datenbank »app« existiert nicht", "check the names in the URL"),
        ("42501", "keine Berechtigung für Datenbank »app«", "GRANT it CONNECT"),
    ],
)
def test_what_the_url_is_to_blame_for(code: str, words: str, sentence: str) -> None:
    with speaking(code, words) as url, pytest.raises(ConfigurationError, match=sentence) as refused:
        connect(url)
    assert words in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [("57P03", "das Datenbanksystem startet"), ("53300", "tut mir leid, schon zu viele Verbindungen")],
)
def test_what_passes_is_a_fault_of_the_server(code: str, words: str) -> None:
    with speaking(code, words) as url, pytest.raises(ServerFault, match=words):
        connect(url)


def test_codes_of_a_real_server(start_server: StartServer) -> None:
    port = free_port()
    server = start_server(port=port)
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        admin.execute("CREATE DATABASE closed")
        admin.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    there = f"host=127.0.0.1 port={port}"
    assert sqlstate(f"{there} user=guarded password=wrong dbname=postgres") == "28P01"
    assert sqlstate(f"{there} user=guarded password=right dbname=absent") == "3D000"
    assert sqlstate(f"{there} user=guarded password=right dbname=closed") == "42501"
    assert sqlstate(f"{there} user=guarded password=right dbname=postgres") is None
    server.stop()
    assert sqlstate(f"{there} user=guarded password=right dbname=postgres") is None


def test_a_role_that_may_not_connect(database: Database) -> None:
    role = database.add_role("stranger")
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.name)))
    with pytest.raises(ConfigurationError, match="GRANT it CONNECT"):
        connect(database.url_as(role))


STARTS = ("57P03", "the database system is starting up")
FULL = ("53300", "sorry, too many clients already")


def control(url: str, seconds: float, stop: threading.Event) -> None:
    Control(url, stop=stop, retry_seconds=seconds).connection.close()


def locks(url: str, seconds: float, stop: threading.Event) -> None:
    with held(url, lambda _: [], stop=stop, cancel=None, retry_seconds=seconds, wait=False):
        pass


def applier(url: str, seconds: float, stop: threading.Event) -> None:
    follow(url, options=Options(retry_seconds=seconds), stop=stop, report=lambda _: None)


FIRST = pytest.mark.parametrize("first", [control, locks, applier])
First = Callable[[str, float, threading.Event], None]


@FIRST
@pytest.mark.parametrize(("code", "words"), [STARTS, FULL, ("57P03", "das Datenbanksystem startet")])
def test_a_first_connection_is_tried_again_while_the_server_lets_nobody_in(first: First, code: str, words: str) -> None:
    """Until the time is over."""
    refused: list[int] = []
    with speaking(code, words, refused) as url:
        with pytest.raises(ServerFault):
            connect(url)
        # Where words do not say it, it takes a second connection to know why.
        once, began = len(refused), time.monotonic()
        with pytest.raises(ServerFault, match="lets nobody in") as fault:
            first(url, 1.0, threading.Event())
    assert time.monotonic() - began >= 1.0
    assert len(refused) > 2 * once
    assert "hunter2" not in str(fault.value)


def test_how_long_it_went_well_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor how long one attempt took: the server is looked for again at least once."""
    times = count(1000, 100)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(times))))
    told: list[BaseException] = []
    monkeypatch.setattr(Announcer, "retry", lambda _self, _subjects, error, _wait: told.append(error))
    url = f"postgresql://guarded@127.0.0.1:{free_port()}/app"
    with pytest.raises(ServerFault):
        follow(url, options=Options(retry_seconds=60), stop=threading.Event(), report=lambda _: None, going=True)
    assert len(told) == 1


@FIRST
def test_where_nothing_listens_that_is_told_at_once(first: First) -> None:
    """An hour would not be over when the test is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"postgresql://guarded@127.0.0.1:{probe.getsockname()[1]}/app"
        with pytest.raises(ServerFault, match="No server answers"):
            first(url, 3600.0, threading.Event())


@FIRST
@pytest.mark.parametrize("code", ["28P01", "3D000"])
def test_a_wrong_password_or_database_is_told_at_once(first: First, code: str) -> None:
    with speaking(code, "nein") as url, pytest.raises(ConfigurationError):
        first(url, 3600.0, threading.Event())


def test_a_stop_ends_the_waiting() -> None:
    stop = threading.Event()
    refused: list[int] = []
    with speaking(*STARTS, refused) as url:

        def end() -> None:
            until(lambda: refused, "nobody asked")
            stop.set()

        stopper = threading.Thread(target=end)
        stopper.start()
        with pytest.raises(Interrupted):
            control(url, 3600.0, stop)
        stopper.join()


def test_a_run_begins_once_a_slot_is_free(start_server: StartServer) -> None:
    server = start_server(settings={**SERVER_SETTINGS, "max_connections": "8"})
    url = server.url(user="guarded")
    admin = psycopg.connect(server.url(), autocommit=True)
    admin.execute("CREATE ROLE guarded LOGIN")
    # All that there are: sessions that have just ended, such as the one that saw the server start, may still have one.
    (free,) = (
        admin.execute(
            "SELECT sum(setting::int * CASE name WHEN 'max_connections' THEN 1 ELSE -1 END)::int - 1 FROM pg_settings"
            " WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
        ).fetchone()
        or ()
    )
    taken = [admin]

    def full() -> bool:
        with suppress(psycopg.OperationalError):
            taken.append(psycopg.connect(url))
        return len(taken) > int(free)

    until(full, "not all slots can be had")
    opened = threading.Event()

    def first() -> None:
        control(url, 60.0, threading.Event())
        opened.set()

    waiting = threading.Thread(target=first)
    waiting.start()
    assert not opened.wait(0.3)
    for connection in taken:
        connection.close()
    waiting.join()
    assert opened.is_set()
