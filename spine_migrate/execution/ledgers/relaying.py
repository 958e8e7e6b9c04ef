"""What a relay does with the ledger in PostgreSQL: it takes runs whose time has come, and ends those that nobody claims
or keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from spine_migrate.execution import invariants
from spine_migrate.execution.events import EventType
from spine_migrate.execution.ledgers.changes import finishing, trying_again
from spine_migrate.execution.ledgers.protocol import Ending
from spine_migrate.execution.ledgers.refusals import LEASE_EXPIRED
from spine_migrate.execution.ledgers.statements import Statements, json_column
from spine_migrate.execution.runs import RunRecord, RunStatus, record_of
from spine_migrate.execution.sessions import Row
from spine_migrate.execution.storable import as_text


class Relaying:
    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def take(self, status: RunStatus, limit: int, again_in_seconds: float) -> list[RunRecord]:
        values = {"status": str(status), "limit": limit, "again_in": again_in_seconds}
        invariants.page(limit)
        with self._statements.session(None) as session:
            return [record_of(row) for row in session.execute("take", values).fetchall()]

    def reap(self, limit: int, backoff_seconds: float) -> Sequence[RunRecord]:
        invariants.page(limit)
        with self._statements.session(None) as session, session.transaction():
            ripe = session.execute("expired_leases", {"limit": limit}).fetchall()
            reaped = [session.one(*_reaping(row, backoff_seconds)) for row in ripe]
        return [record_of(row) for row in reaped if row is not None]

    def end_unclaimed(self, run: RunRecord, ending: Ending, worker: str, why: str) -> bool:
        """In one transaction: a claim that was left alone would be reaped, and the run executed once more."""
        invariants.json_value("result", ending.result)
        claim = {"run_id": run.run_id, "worker": as_text(worker), "lease": None, "attempt": run.attempt}
        alert = {
            "run_id": run.run_id,
            "event_id": str(uuid4()),
            "event_type": str(EventType.ALERT_TRIGGERED),
            "data": json_column({"executing": as_text(why)}),
            "source": "ledger",
        }
        with self._statements.session(None) as session, session.transaction():
            claimed = session.one("claim", claim)
            if claimed is None:
                return False
            session.execute("record", alert)
            session.one(*_ending(run.run_id, claimed["fence"], ending))
        return True


def _ending(run_id: str, fence: int, ending: Ending) -> tuple[str, Row]:
    """Which change it is, and its values."""
    if ending.status is RunStatus.CANCELLED:
        return "cancel", {"run_id": run_id, "fence": fence, "reason": as_text(ending.error or "")}
    return "finish", finishing(
        run_id, ending.status, fence=fence, result=ending.result, error=ending.error, error_type=ending.error_type
    )


def _reaping(row: Row, backoff_seconds: float) -> tuple[str, Row]:
    """Which change an expired lease comes to, and its values."""
    error, error_type = LEASE_EXPIRED
    run = {"run_id": row["run_id"], "fence": row["fence"]}
    if row["cancel_requested"]:
        return "cancel", {**run, "reason": "lease expired"}
    if row["retries_left"] > 0:
        return "try_again", trying_again(**run, error=error, error_type=error_type, in_seconds=backoff_seconds)
    return "finish", finishing(**run, status=RunStatus.DEAD_LETTERED, error=error, error_type=error_type)
