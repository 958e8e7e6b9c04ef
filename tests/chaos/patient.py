"""The victim of the chaos tests: the installed command moving a history in small batches, watched from outside."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from spine_migrate.db import schema
from spine_migrate.demo.generate import generate
from tests.command import start
from tests.legacy import prove

# Small, so that the work takes long enough to be interrupted anywhere.
MOVE = ("executions-to-runs", "--batch-size", "15", "--workers", "2", "--quiet")
# Seconds after which a move that does not come to an end has failed.
_LONGEST = 240.0


@dataclass(frozen=True)
class Patient:
    """``url`` of an ordinary role's database; ``rows`` executions and events in all."""

    url: str
    rows: int

    def start(self, *more: str) -> subprocess.Popen[str]:
        return start(self.url, *MOVE, *more)

    def accounted(self) -> int:
        """Rows moved or put in quarantine so far, as the ledger counts them."""
        with psycopg.connect(self.url) as connection:
            return _accounted(connection)

    def reach(self, rows: int, tool: subprocess.Popen[str]) -> None:
        """Wait until so many rows are accounted for, or the tool has ended."""
        end = time.monotonic() + _LONGEST
        with psycopg.connect(self.url, autocommit=True) as connection:
            while tool.poll() is None and time.monotonic() < end:
                if _accounted(connection) >= rows:
                    return

    def in_transaction(self) -> int:
        """How many of the tool's sessions are inside a batch at this moment."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'spine-migrate' AND xact_start IS NOT NULL"
            ).fetchone()
        assert row is not None
        return int(row[0])

    def consistent(self) -> None:
        """In one snapshot: what the ledger counts is what stands on the target and in quarantine."""
        with psycopg.connect(self.url) as connection:
            rows = connection.execute("""
                SELECT m.mapping, sum(c.rows_moved),
                       CASE m.mapping WHEN 'capture-spine/executions' THEN (SELECT count(*) FROM runs)
                                      ELSE (SELECT count(*) FROM run_events) END,
                       sum(c.rows_quarantined),
                       (SELECT count(*) FROM spine_migrate.quarantine q WHERE q.migration_id = m.migration_id)
                  FROM spine_migrate.migration m JOIN spine_migrate.checkpoint c USING (migration_id)
                 GROUP BY m.migration_id
            """).fetchall()
        for mapping, moved, there, quarantined, held in rows:
            assert (moved, quarantined) == (there, held), mapping

    def finish(self) -> None:
        """Let the tool run to its end and prove, with SQL of our own, that all is as if nothing had happened."""
        tool = self.start("--wait")
        _, errors = tool.communicate(timeout=_LONGEST)
        assert tool.returncode == 1, errors
        self.prove()

    def prove(self) -> None:
        self.consistent()
        assert self.accounted() == self.rows
        with psycopg.connect(self.url) as connection:
            prove(connection, "executions", "execution_events")


def _accounted(connection: psycopg.Connection[Any]) -> int:
    ((rows,),) = connection.execute(
        "SELECT coalesce(sum(rows_moved + rows_adopted + rows_quarantined), 0)::int FROM spine_migrate.checkpoint"
    ).fetchall()
    return int(rows)


def admit(url: str, *, executions: int, seed: int) -> Patient:
    with psycopg.connect(url) as connection:
        made = generate(connection, executions=executions, events_per_execution=2, jobs=0, seed=seed)
    schema.upgrade(url)
    return Patient(url, made.executions + made.execution_events)
