"""Asking a server that may say no: an answer, or the reason why it could not be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from spine_migrate.db.catalog import Relation
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import is_lost
from spine_migrate.db.queries import query
from spine_migrate.db.raw import rows
from spine_migrate.plan.model import Scan, Unknown

Answer = TypeVar("Answer")


class Asker:
    """Asks inside the caller's transaction, each question in a savepoint; announces every scan before it starts."""

    def __init__(self, connection: Connection, announce: Callable[[Scan], None]) -> None:
        self.connection = connection
        self.unknown: list[Unknown] = []
        self.scans: list[Scan] = []
        self._announce = announce

    def ask(self, what: str, question: Callable[[], Answer]) -> Answer | None:
        """None, with an entry in ``unknown``, where the server refuses. Raises psycopg.Error where it is gone."""
        try:
            with self.connection.transaction():
                return question()
        except psycopg.Error as error:
            if is_lost(error):
                raise
            self.unknown.append(Unknown(what, " ".join((error.diag.message_primary or str(error)).split())))
            return None

    def facts(self, what: str, name: str, **parameters: Any) -> list[dict[str, Any]] | None:
        """A named query of ``plan.sql``; rows as dictionaries."""

        def question() -> list[dict[str, Any]]:
            cursor = self.connection.cursor(row_factory=psycopg.rows.dict_row)
            return cursor.execute(query("plan", name), parameters).fetchall()

        return self.ask(what, question)

    def announce(self, purpose: str, table: Relation) -> None:
        """Say that a pass over a table comes next."""
        scan = Scan(purpose, str(table.name), table.bytes_total, table.rows_estimated)
        self.scans.append(scan)
        self._announce(scan)

    def scan(self, purpose: str, table: Relation, statement: sql.Composed) -> list[dict[str, Any]] | None:
        """One announced pass over a table."""
        self.announce(purpose, table)
        return self.ask(purpose, lambda: rows(self.connection, statement))
