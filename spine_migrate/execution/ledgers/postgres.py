"""The ledger in PostgreSQL: ``runs`` and ``run_events`` of seed 000, and ``run_handoff``.

Each change is one statement: it locks the run's handoff and the run, looks at status and fence as they are then,
changes both rows and adds the event. READ COMMITTED, where a statement that had to wait sees what it waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import errors
from psycopg_pool import ConnectionPool

from spine_migrate.execution import invariants
from spine_migrate.execution.errors import ExecutionNotFoundError, TransitionError
from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.ledgers.carrying import mark_carried
from spine_migrate.execution.ledgers.changes import finishing, trying_again
from spine_migrate.execution.ledgers.creation import Creation, taken
from spine_migrate.execution.ledgers.listing import listing
from spine_migrate.execution.ledgers.protocol import AT_ONCE, EVERYTHING, Claim, Delivery, Ending, RunFilter
from spine_migrate.execution.ledgers.refusals import (
    CLAIM_LOST,
    EXPIRED,
    NO_DEAD_LETTERS,
    NO_STEP,
    NOT_DUE,
    ONLY_DEAD_LETTERS,
    OTHER_ATTEMPT,
    TO_BE_CANCELLED,
    storable_error,
)
from spine_migrate.execution.ledgers.relaying import Relaying
from spine_migrate.execution.ledgers.statements import Session, Statements, json_column
from spine_migrate.execution.runs import RunRecord, RunStatus, RunSummary, record_of, run_uuid
from spine_migrate.execution.sessions import Row, execute
from spine_migrate.execution.storable import as_text


class PostgresLedger:
    """``schema`` holds the tables; without one the connections' search_path finds them.

    With ``wait_for_disk`` False nobody waits until a run that is stored is on disk, or on a synchronous standby: its
    submitter goes on sooner, and a crash of the server loses what was stored in the last moment (three times
    ``wal_writer_delay``, some 0.6 s), as a Redis without an append-only file loses messages. Claims and outcomes are
    waited for all the same.
    """

    def __init__(self, pool: ConnectionPool[Any], schema: str | None = None, *, wait_for_disk: bool = True) -> None:
        self._statements = Statements(pool, schema)
        self._creation = Creation(self._statements, wait_for_disk=wait_for_disk)
        self._relaying = Relaying(self._statements)

    def create(
        self, run: RunRecord, delivery: Delivery = AT_ONCE, *, lane_bound: int | None = None, connection: Any = None
    ) -> RunRecord:
        return self._creation.create(run, delivery, lane_bound=lane_bound, connection=connection)

    def create_many(
        self,
        runs: Sequence[RunRecord],
        delivery: Delivery = AT_ONCE,
        *,
        lane_bound: int | None = None,
        connection: Any = None,
    ) -> list[RunRecord]:
        return self._creation.create_many(runs, delivery, lane_bound=lane_bound, connection=connection)

    def get(self, run_id: str, *, connection: Any = None) -> RunRecord | None:
        if (key := run_uuid(run_id)) is None:
            return None
        with self._statements.session(connection) as session:
            found = session.one("get", {"run_id": key})
        return None if found is None else record_of(found)

    def of_key(self, idempotency_key: str, *, connection: Any = None) -> RunRecord | None:
        with self._statements.session(connection) as session:
            return session.of_key(idempotency_key)

    def get_many(self, run_ids: Sequence[str]) -> list[RunRecord]:
        keys = [key for key in map(run_uuid, run_ids) if key is not None]
        with self._statements.session(None) as session:
            rows = session.execute("get_many", {"run_ids": keys}).fetchall()
        return [record_of(row) for row in rows]

    def list_runs(self, filters: RunFilter = EVERYTHING, *, limit: int = 100, offset: int = 0) -> list[RunSummary]:
        invariants.page(limit, offset)
        if filters.matches_nothing:
            return []
        with self._statements.session(None) as session:
            ordered = self._tag_in_order(session, filters.tag)
            query, values = listing(self._statements.runs, filters, limit=limit, offset=offset, tag_in_order=ordered)
            # Planned each time: which index is best depends on the values, of a tag above all.
            rows = execute(session.connection, query, values, prepare=False).fetchall()
        return [RunSummary(**{**row, "status": RunStatus(row["status"])}) for row in rows]

    def events(self, run_id: str) -> list[RunEvent]:
        key = _key(run_id)
        with self._statements.session(None) as session:
            rows = session.execute("events", {"run_id": key}).fetchall()
            # A run of the ledger's own has one at least; one that was migrated may have none.
            if not rows and session.one("get", {"run_id": key}) is None:
                raise ExecutionNotFoundError(run_id)
        return [RunEvent(**row) for row in rows]

    def record(self, event: RunEvent, *, connection: Any = None) -> None:
        invariants.check_event(event)
        values = {
            "run_id": _key(event.run_id),
            "event_id": run_uuid(event.event_id),
            "event_type": str(event.event_type),
            "data": json_column(event.data),
            "source": event.source,
        }
        try:
            with self._statements.session(connection) as session, session.unbroken():
                session.execute("record", values)
        except errors.ForeignKeyViolation as error:
            raise ExecutionNotFoundError(event.run_id) from error

    def mark_queued(
        self,
        run_id: str,
        external_ref: str,
        executor_name: str,
        *,
        claim_within_seconds: float,
        attempt: int | None = None,
    ) -> bool:
        invariants.check_published(external_ref, executor_name)
        values = {
            "run_id": _key(run_id),
            "external_ref": external_ref,
            "executor_name": executor_name,
            "claim_within": claim_within_seconds,
            "attempt": attempt,
        }
        with self._statements.session(None) as session:
            if session.one("mark_queued", values) is not None:
                return True
            if session.one("mark_carried", values) is not None:
                return False
            if session.execute("adopt", {"run_id": values["run_id"]}).rowcount:
                return session.one("mark_queued", values) is not None
        self._known(run_id)
        return False

    def mark_many_queued(
        self, published: Sequence[tuple[RunRecord, str]], executor_name: str, *, claim_within_seconds: float
    ) -> int:
        if not published:
            return 0
        for _, external_ref in published:
            invariants.check_published(external_ref, executor_name)
        values = {
            "run_ids": [run.run_id for run, _ in published],
            "external_refs": [external_ref for _, external_ref in published],
            "attempts": [run.attempt for run, _ in published],
            "executor_name": executor_name,
            "claim_within": claim_within_seconds,
        }
        with self._statements.session() as session:
            marked = session.one("mark_many_queued", values)
            queued = 0 if marked is None else int(marked["queued"])
            if queued < len(published):
                mark_carried(session, values)
        return queued

    def claim(self, run_id: str, worker: str, *, lease_seconds: float | None, attempt: int | None = None) -> Claim:
        values = {"run_id": run_id, "worker": as_text(worker), "lease": lease_seconds, "attempt": attempt}
        row = self._change("claim", values, RunStatus.RUNNING)
        return Claim(record_of(row), row["fence"], row["retries_left"])

    def renew(self, run_id: str, fence: int, *, lease_seconds: float) -> bool:
        values = {"run_id": run_id, "fence": fence, "lease": lease_seconds}
        return bool(self._change("renew", values, RunStatus.RUNNING)["cancel_requested"])

    def complete(self, run_id: str, result: Any, *, fence: int | None = None, attempt: int | None = None) -> RunRecord:
        invariants.json_value("result", result)
        values = finishing(run_id, RunStatus.COMPLETED, fence=fence, attempt=attempt, result=result)
        return record_of(self._change("finish", values, RunStatus.COMPLETED))

    def fail(
        self,
        run_id: str,
        error: str,
        error_type: str | None,
        *,
        dead: bool = False,
        fence: int | None = None,
        attempt: int | None = None,
    ) -> RunRecord:
        status = RunStatus.DEAD_LETTERED if dead else RunStatus.FAILED
        values = finishing(run_id, status, fence=fence, attempt=attempt, error=error, error_type=error_type)
        return record_of(self._change("finish", values, status))

    def try_again(
        self,
        run_id: str,
        error: str,
        error_type: str | None,
        *,
        in_seconds: float,
        publish_in_seconds: float = 0.0,
        fence: int | None = None,
        message: dict[str, Any] | None = None,
    ) -> RunRecord:
        text, kind = storable_error(error, error_type)
        values = trying_again(
            run_id,
            text,
            kind,
            in_seconds=in_seconds,
            publish_in_seconds=publish_in_seconds,
            fence=fence,
            message=invariants.message(message),
        )
        return record_of(self._change("try_again", values, RunStatus.PENDING))

    def postpone(self, run_id: str, why: str, *, in_seconds: float, fence: int) -> RunRecord:
        values = {"run_id": run_id, "fence": fence, "why": as_text(why), "in_seconds": in_seconds}
        return record_of(self._change("postpone", values, RunStatus.PENDING))

    def cancel(self, run_id: str, reason: str, *, fence: int | None = None) -> RunRecord:
        values = {"run_id": run_id, "fence": fence, "reason": as_text(reason)}
        return record_of(self._change("cancel", values, RunStatus.CANCELLED))

    def reprocess(self, run_id: str) -> RunRecord:
        try:
            return record_of(self._change("reprocess", {"run_id": run_id}, RunStatus.PENDING))
        except errors.UniqueViolation as error:
            with self._statements.session(None) as session:
                raise taken(session, self._known(run_id), error) from error

    def publishable(self, limit: int, *, again_in_seconds: float) -> Sequence[RunRecord]:
        return self._relaying.take(RunStatus.PENDING, limit, again_in_seconds)

    def unclaimed(self, limit: int, *, again_in_seconds: float) -> Sequence[RunRecord]:
        return self._relaying.take(RunStatus.QUEUED, limit, again_in_seconds)

    def reap(self, limit: int, *, backoff_seconds: float) -> Sequence[RunRecord]:
        return self._relaying.reap(limit, backoff_seconds)

    def end_unclaimed(self, run: RunRecord, ending: Ending, *, worker: str, why: str) -> bool:
        return self._relaying.end_unclaimed(run, ending, worker, why)

    def _change(self, name: str, values: Row, wanted: RunStatus) -> Row:
        """One compare-and-set; where it finds nothing to change, why that is."""
        run_id = _key(values["run_id"])
        values = {**values, "run_id": run_id}
        with self._statements.session(None) as session:
            if found := session.one(name, values):
                return found
            with session.transaction():
                session.execute("adopt", {"run_id": run_id})
                # Others may have changed it since: what is said of it now holds for the second attempt.
                standing = session.one("hold", {"run_id": run_id})
                if standing is None:
                    raise ExecutionNotFoundError(run_id)
                if found := session.one(name, values):
                    return found
                refused = self._refused(session, name, values, standing, wanted)
        # Outside, so that what was recorded of the refusal is committed.
        raise refused

    def _refused(self, session: Session, name: str, values: Row, standing: Row, wanted: RunStatus) -> Exception:
        run_id = values["run_id"]
        why = NO_STEP
        waits = standing["status"] in ("pending", "queued")
        if name == "renew" or (values.get("fence") is not None and standing["fence"] != values["fence"]):
            why = CLAIM_LOST
        elif name in ("postpone", "try_again") and standing["status"] == RunStatus.RUNNING:
            why = TO_BE_CANCELLED
        elif name == "reprocess":
            why = ONLY_DEAD_LETTERS
        elif name == "claim" and waits and standing["expired"]:
            session.execute("expire", {"run_id": run_id})
            why = EXPIRED
        elif name == "claim" and waits and standing["early"]:
            why = NOT_DUE
        elif values.get("attempt") not in (None, standing["attempt"]):
            why = OTHER_ATTEMPT
        elif name == "try_again" and standing["status"] == RunStatus.DEAD_LETTERED:
            why = NO_DEAD_LETTERS
        refused = session.one("refuse", {"run_id": run_id, "wanted": str(wanted), "why": why})
        return TransitionError(run_id, refused["status"] if refused else standing["status"], wanted, why)

    def _known(self, run_id: str) -> RunRecord:
        found = self.get(run_id)
        if found is None:
            raise ExecutionNotFoundError(run_id)
        return found

    def _tag_in_order(self, session: Session, tag: str | None) -> bool:
        """Whether an index serves a list by this tag; some teams have built one for a tag by which they list much."""
        key, equals, _ = (tag or "").partition("=")
        values = {"runs": self._statements.runs_name, "key": key}
        found = session.one("tag_in_order", values) if equals else None
        return found is not None and found["found"]


def _key(run_id: str) -> str:
    """Raises ExecutionNotFoundError for what cannot be a run's id."""
    key = run_uuid(run_id)
    if key is None:
        raise ExecutionNotFoundError(run_id)
    return key
