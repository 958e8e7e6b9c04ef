"""The victim of the chaos tests: the installed command moving a history in small batches, watched from outside."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from spine_migrate.db import schema
from spine_migrate.demo.generate import generate
from tests.command import start
from tests.legacy import prove
from tests.structure import Fact, structure

# Small, so that the work takes long enough to be interrupted anywhere.
MOVE = ("executions-to-runs", "--batch-size", "15", "--workers", "2", "--quiet")
# Seconds after which a move that does not come to an end has failed.
LONGEST = 240.0
# Rows that refer to it may be written all the same.
_LAST_STEP = (
    "SELECT FROM spine_migrate.migration WHERE mapping = 'capture-spine/execution_events' AND step = 'backfill'"
    " FOR SHARE"
)


@dataclass(frozen=True)
class Patient:
    """``url`` of an ordinary role's database; ``rows`` executions and events in all. ``shape`` is the target's before
    anything happened.
    """

    url: str
    executions: int
    rows: int
    offline: bool
    shape: frozenset[Fact]

    def tool(self, *words: str) -> subprocess.Popen[str]:
        """Another command than the move."""
        return start(self.url, *words)

    def start(self, *more: str) -> subprocess.Popen[str]:
        return start(self.url, *MOVE, *(("--offline",) if self.offline else ()), *more)

    def accounted(self) -> int:
        """Rows moved or put in quarantine so far, as the ledger counts them."""
        with psycopg.connect(self.url) as connection:
            return _accounted(connection)

    def reach(self, rows: int, tool: subprocess.Popen[str]) -> None:
        """Wait until so many rows are accounted for, or the tool has ended."""
        end = time.monotonic() + LONGEST
        with psycopg.connect(self.url, autocommit=True) as connection:
            while tool.poll() is None and time.monotonic() < end:
                if _accounted(connection) >= rows:
                    return
                time.sleep(0.002)

    @contextmanager
    def reached(self, rows: int, tool: subprocess.Popen[str]) -> Iterator[None]:
        """The same around what strikes the tool, which cannot come to its end before, however late we look: it cannot
        note that its last migration is done until the block ends.
        """
        end = time.monotonic() + LONGEST
        with closing(psycopg.connect(self.url)) as gate, psycopg.connect(self.url, autocommit=True) as connection:
            held = False
            while tool.poll() is None and time.monotonic() < end:
                if not held:
                    gate.rollback()
                    held = gate.execute(_LAST_STEP).rowcount == 1
                if _accounted(connection) >= rows:
                    break
                time.sleep(0.002)
            connection.close()
            yield

    def held_up(self, gate: psycopg.Connection[Any], tool: subprocess.Popen[str]) -> bool:
        """Wait until the tool waits for what ``gate`` holds; False where it ended first."""
        end = time.monotonic() + LONGEST
        with psycopg.connect(self.url, autocommit=True) as connection:
            while tool.poll() is None and time.monotonic() < end:
                row = connection.execute(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'spine-migrate'"
                    " AND datname = current_database() AND %s = ANY (pg_blocking_pids(pid)))",
                    [gate.info.backend_pid],
                ).fetchone()
                if row is not None and row[0]:
                    return True
                time.sleep(0.005)
        return False

    def in_transaction(self) -> int:
        """How many of the tool's sessions are inside a batch at this moment."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'spine-migrate' AND xact_start IS NOT NULL"
            ).fetchone()
        assert row is not None
        return int(row[0])

    def consistent(self, *, retried: bool = False) -> None:
        """In one snapshot: what the ledger counts is what stands on the target and in quarantine. What was in
        quarantine once and is ``retried`` stays counted.
        """
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
            assert moved == there, mapping
            assert retried or quarantined == held, mapping

    def finish(self) -> None:
        """Let the tool run to its end and prove, with SQL of our own, that all is as if nothing had happened."""
        tool = self.start("--wait")
        _, errors = tool.communicate(timeout=LONGEST)
        assert tool.returncode == 1, errors
        self.prove()

    def prove(self) -> None:
        self.consistent()
        assert self.accounted() == self.rows
        with psycopg.connect(self.url) as connection:
            prove(connection, "executions", "execution_events")
        assert _shape(self.url) == self.shape


def _shape(url: str) -> frozenset[Fact]:
    """Without predicates of indexes, which the server spells otherwise once they were built from their own text."""
    return frozenset(tuple(part.split(" WHERE ")[0] for part in fact) for fact in structure(url))


def _accounted(connection: psycopg.Connection[Any]) -> int:
    ((rows,),) = connection.execute(
        "SELECT coalesce(sum(rows_moved + rows_adopted + rows_quarantined), 0)::int FROM spine_migrate.checkpoint"
    ).fetchall()
    return int(rows)


def admit(url: str, *, executions: int, seed: int, offline: bool = False) -> Patient:
    with psycopg.connect(url) as connection:
        made = generate(connection, executions=executions, events_per_execution=2, jobs=0, seed=seed)
    schema.upgrade(url)
    return Patient(url, made.executions, made.executions + made.execution_events, offline, _shape(url))
