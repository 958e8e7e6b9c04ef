"""Why a connection was refused is told by the server's code, whatever language it speaks."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from spine_migrate.db.refusal import sqlstate
from spine_migrate.errors import ConfigurationError, ServerFault
from tests.conftest import StartServer
from tests.database import Database

_SSL, _GSS = 80877103, 80877104


@contextmanager
def speaking(code: str, words: str) -> Iterator[str]:
    """A listener that refuses everybody as a PostgreSQL of another language does (PostgreSQL manual, 54.2.1). No server
    at hand has translations, and the locale for them would have to be installed.
    """
    fields = "".join(
        f"{letter}{text}\0" for letter, text in (("S", "FATAL"), ("V", "FATAL"), ("C", code), ("M", words))
    )
    body = fields.encode() + b"\0"

    def refuse() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while True:
                    size, version = struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))
                    client.recv(size - 8, socket.MSG_WAITALL)
                    if version not in (_SSL, _GSS):
                        break
                    client.sendall(b"N")
                client.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        try:
            yield f"postgresql://guarded:hunter2@127.0.0.1:{listener.getsockname()[1]}/app"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
