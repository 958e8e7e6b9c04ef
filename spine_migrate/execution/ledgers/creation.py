"""How runs come into the ledger in PostgreSQL: one by one, or many in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from psycopg import errors

from spine_migrate.execution.errors import BackpressureError
from spine_migrate.execution.invariants import entity
from spine_migrate.execution.ledgers.protocol import Delivery
from spine_migrate.execution.ledgers.refusals import entity_is_busy, no_such_run, run_exists, unseen
from spine_migrate.execution.ledgers.statements import Session, Statements, json_column
from spine_migrate.execution.runs import RunRecord
from spine_migrate.execution.sessions import Row

#: Runs that are sent to the server together. More would only make the one at fault dearer to find.
_BATCH = 500


class Creation:
    def __init__(self, statements: Statements, *, wait_for_disk: bool) -> None:
        self._statements = statements
        self._wait_for_disk = wait_for_disk

    def create(self, run: RunRecord, delivery: Delivery, *, lane_bound: int | None, connection: Any) -> RunRecord:
        run = delivery.of(run)
        key = run.spec.idempotency_key
        try:
            with self._statements.session(connection) as session:
                if key is not None and (found := session.of_key(key)):
                    return found
                _check_room(session, Counter([run.spec.lane]), lane_bound)
                with session.unbroken():
                    made = session.one("create", self._values(session, run, delivery))
                return _made(session, run, made)
        except errors.UniqueViolation as error:
            with self._statements.session(connection) as session:
                return _first_or_taken(session, run, error)
        except errors.ForeignKeyViolation as error:
            raise _unknown(run, error) from error
        except errors.SerializationFailure as error:
            raise unseen(key) from error

    def create_many(
        self, runs: Sequence[RunRecord], delivery: Delivery, *, lane_bound: int | None, connection: Any
    ) -> list[RunRecord]:
        checked = [delivery.of(run) for run in runs]
        with self._statements.session(connection) as session:
            while True:
                try:
                    return self._all(session, checked, delivery, lane_bound)
                except errors.DeadlockDetected:
                    # With another that has some of the same keys or entities, in another order.
                    if session.borrowed:
                        raise

    def _all(
        self, session: Session, checked: list[RunRecord], delivery: Delivery, lane_bound: int | None
    ) -> list[RunRecord]:
        with session.transaction():
            if lane_bound is not None:
                known = session.known_keys([key for run in checked if (key := run.spec.idempotency_key) is not None])
                lanes = {run.spec.idempotency_key or run.run_id: run.spec.lane for run in reversed(checked)}
                new = Counter(lane for key, lane in lanes.items() if key not in known)
                _check_room(session, new, lane_bound)
            made: list[RunRecord] = []
            for first in range(0, len(checked), _BATCH):
                made += self._batch(session, checked[first : first + _BATCH], delivery)
        return made

    def _batch(self, session: Session, runs: list[RunRecord], delivery: Delivery) -> list[RunRecord]:
        values = [self._values(session, run, delivery) for run in runs]
        try:
            with session.savepoint():
                made = session.execute_many("create", values)
        except (errors.UniqueViolation, errors.ForeignKeyViolation):
            # Which run it was is not told.
            return [self._alone(session, run, row) for run, row in zip(runs, values, strict=True)]
        except errors.SerializationFailure as error:
            raise unseen(None) from error
        return [_made(session, run, row) for run, row in zip(runs, made, strict=True)]

    def _alone(self, session: Session, run: RunRecord, values: Row) -> RunRecord:
        try:
            with session.savepoint():
                made = session.one("create", values)
        except errors.UniqueViolation as error:
            return _first_or_taken(session, run, error)
        except errors.ForeignKeyViolation as error:
            raise _unknown(run, error) from error
        except errors.SerializationFailure as error:
            raise unseen(run.spec.idempotency_key) from error
        return _made(session, run, made)

    def _values(self, session: Session, run: RunRecord, delivery: Delivery) -> Row:
        """The caller's transaction is the caller's own, who waits for it or not."""
        return {**_values(run, delivery), "wait_for_disk": self._wait_for_disk or session.borrowed}


def taken(session: Session, run: RunRecord, error: errors.UniqueViolation) -> Exception:
    """Who is in the way of a run that is new, or active again."""
    about = entity(run.spec.metadata)
    if about is None or error.diag.constraint_name == "runs_pkey":
        return run_exists(run.run_id)
    other = session.one("active_of_entity", {"entity_type": about[0], "entity_id": about[1]})
    return entity_is_busy(about, other["run_id"] if other else None)


def _check_room(session: Session, lanes: Counter[str], bound: int | None) -> None:
    if bound is None:
        return
    for lane, more in lanes.items():
        counted = session.one("waiting_in_lane", {"lane": lane, "bound": bound})
        if counted is not None and counted["count"] + more > bound:
            raise BackpressureError(lane, counted["count"], bound, more)


def _made(session: Session, run: RunRecord, made: Row | None) -> RunRecord:
    """The run, or the one that has its idempotency key."""
    if made is not None:
        run.created_at = made["created_at"]
        return run
    key = run.spec.idempotency_key
    first = None if key is None else session.of_key(key)
    if first is None:
        raise unseen(key)
    return first


def _first_or_taken(session: Session, run: RunRecord, error: errors.UniqueViolation) -> RunRecord:
    """The run that has the idempotency key; else the error to be raised.

    Of two that are inserted at the same moment with the same key and entity, one may meet the other in the index of
    entities first.
    """
    key = run.spec.idempotency_key
    if key is not None and (first := session.of_key(key)) is not None:
        return first
    raise taken(session, run, error) from error


def _unknown(run: RunRecord, error: errors.ForeignKeyViolation) -> Exception:
    if "retry_of" in (error.diag.constraint_name or ""):
        return no_such_run("retry_of_run_id", run.retry_of_run_id)
    return no_such_run("parent_run_id", run.spec.parent_run_id)


_SPEC_COLUMNS = (
    "kind", "name", "priority", "lane", "idempotency_key", "correlation_id", "parent_run_id", "max_retries",
    "trigger_source", "retry_delay_seconds",
)  # fmt: skip


def _values(run: RunRecord, delivery: Delivery) -> Row:
    spec = run.spec
    return {
        **{name: getattr(spec, name) for name in _SPEC_COLUMNS},
        "run_id": run.run_id,
        "params": json_column(spec.params),
        "metadata": json_column(spec.metadata),
        "tags": json_column(run.tags),
        "attempt": run.attempt,
        "retry_of_run_id": run.retry_of_run_id,
        "due_at": delivery.due_at,
        "publish_in": delivery.publish_in_seconds,
        "expires_at": delivery.expires_at,
        "timeout_seconds": run.timeout_seconds,
        "message": json_column(run.message),
    }
