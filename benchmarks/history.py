"""Databases with a capture-spine history to move, and the ways back to an untouched target."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from spine_migrate.backfill.run import Options, Outcome, run
from spine_migrate.carry.control import WORKER_SETTINGS
from spine_migrate.carry.tables import find_tables
from spine_migrate.db import schema
from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.embedded import EmbeddedServer
from spine_migrate.db.raw import execute
from spine_migrate.demo.generate import generate
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.load import load

EXECUTIONS, EVENTS = "capture-spine/executions", "capture-spine/execution_events"

_LEDGER = ("migration", "checkpoint", "quarantine", "link", "deferred_ddl", "audit")


@dataclass(frozen=True)
class History:
    """One database. ``url`` is the superuser's, as privileges are not what is measured."""

    url: str
    rows: dict[str, int]

    def connect(self) -> Connection:
        """A session with the settings that the tool's own workers have, so that neither side has better ones."""
        return connect(self.url, settings=WORKER_SETTINGS | {"search_path": "public"})

    def empty_target(self) -> None:
        """New, empty files for all that a migration writes; then a checkpoint, so that none falls into the work."""
        with self.connect() as connection:
            tables = [sql.Identifier(name) for name in ("runs", "run_events", "run_handoff")]
            tables += [sql.Identifier("spine_migrate", name) for name in _LEDGER]
            execute(connection, sql.SQL("TRUNCATE {} CASCADE").format(sql.SQL(", ").join(tables)))
            connection.execute("CHECKPOINT")

    def empty_events(self) -> None:
        """The same for the events alone; the executions stay moved."""
        with self.connect() as connection:
            connection.execute("TRUNCATE run_events")
            for table in ("checkpoint", "quarantine", "link", "migration"):
                execute(
                    connection,
                    sql.SQL("DELETE FROM {} WHERE migration_id IN (SELECT migration_id FROM spine_migrate.migration"
                            " WHERE mapping = $1)").format(sql.Identifier("spine_migrate", table)),
                    EVENTS,
                )  # fmt: skip
            connection.execute("VACUUM ANALYZE runs")
            connection.execute("CHECKPOINT")

    def move(self, mapping: str, options: Options | None = None) -> Outcome:
        """Everything the tool does between being called and being done."""
        outcome = run(
            self.url, load(mapping), options=options or Options(), stop=threading.Event(), report=lambda _: None
        )
        assert outcome.state == "done"
        assert outcome.rows == self.rows[load(mapping).source_table]
        return outcome

    def plain_insert(
        self, mapping: str, *, where: LiteralString = "true", columns: Mapping[str, LiteralString] | None = None
    ) -> int:
        """One INSERT ... SELECT: the mapping's own expressions, or ``columns`` as somebody writes them by hand."""
        with self.connect() as connection:
            binding = find_tables(connection, load(mapping), source_schema=None, target_schema=None).binding
            values: dict[str, sql.Composable] = forward(binding, "s")
            if columns is not None:
                values = {name: sql.SQL(expression) for name, expression in columns.items()}
            return execute(
                connection,
                sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} AS s WHERE {}").format(
                    binding.target.identifier,
                    sql.SQL(", ").join(map(sql.Identifier, values)),
                    sql.SQL(", ").join(values.values()),
                    binding.source.identifier,
                    sql.SQL(where),
                ),
            ).rowcount


def history(
    server: EmbeddedServer, *, executions: int, events: float = 0, awkward: float = 0, name: str | None = None
) -> History:
    """The database for these arguments, generated unless an earlier run left it. ``name`` makes it another copy."""
    database = name or f"h_{executions}_{events:g}_{awkward:g}".replace(".", "_")
    url = server.url(database)
    with psycopg.connect(server.url(), autocommit=True) as admin:
        found = admin.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [database]
        ).fetchone()
        if found is None or found[0] != "complete":
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(database)))
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
            began = time.perf_counter()
            with psycopg.connect(url) as connection:
                generate(
                    connection,
                    executions=executions,
                    events_per_execution=events,
                    jobs=0,
                    seed=1,
                    awkward=awkward,
                )
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
            schema.upgrade(url)
            admin.execute(sql.SQL("COMMENT ON DATABASE {} IS 'complete'").format(sql.Identifier(database)))
            print(f"generated {executions:,} executions in {time.perf_counter() - began:.0f} s", flush=True)
    with psycopg.connect(url) as connection:
        rows: dict[str, int] = {}
        for table in ("executions", "execution_events"):
            count = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
            assert count is not None
            rows[table] = count[0]
    return History(url, rows)


def copy_of(server: EmbeddedServer, original: History, name: str) -> History:
    """A database of its own with the same content, for what is changed and not used again."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(urlsplit(original.url).path.lstrip("/"))
            )
        )
    return History(server.url(name), original.rows)
