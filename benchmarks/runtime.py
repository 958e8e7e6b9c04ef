"""What the benchmarks of the runtime share: a database with its tables and nothing in them."""

from __future__ import annotations

import psycopg

from spine_migrate.db import schema
from spine_migrate.db.embedded import EmbeddedServer

_NAME = "runtime"


def ledger_database(server: EmbeddedServer) -> str:
    """Its URL. It is made anew, since an earlier version of the tool may have left it."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {_NAME}")
        admin.execute(f"CREATE DATABASE {_NAME}")
    url = server.url(_NAME)
    schema.upgrade(url)
    return url


def emptied(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE runs, run_events, run_handoff, run_guard")
        connection.execute("CHECKPOINT")
