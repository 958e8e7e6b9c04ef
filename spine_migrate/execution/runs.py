"""A run: its record, its status, and which status may follow which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from spine_migrate.execution.spec import WorkSpec


class RunStatus(StrEnum):
    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD_LETTERED = "dead_lettered"


ACTIVE = frozenset({RunStatus.PENDING, RunStatus.QUEUED, RunStatus.RUNNING})
#: Nothing moves a run out of these by itself; a dead letter can be reprocessed.
FINAL = frozenset(RunStatus) - ACTIVE

#: From which statuses a run may come to the one that is the key. Back to pending: to be tried again, or reprocessed.
SOURCES: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING, RunStatus.DEAD_LETTERED}),
    RunStatus.QUEUED: frozenset({RunStatus.PENDING}),
    RunStatus.RUNNING: frozenset({RunStatus.PENDING, RunStatus.QUEUED}),
    RunStatus.COMPLETED: frozenset({RunStatus.RUNNING}),
    RunStatus.FAILED: ACTIVE,
    RunStatus.CANCELLED: ACTIVE,
    RunStatus.DEAD_LETTERED: ACTIVE,
}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class RunRecord:
    """One row of ``runs``; what was asked for is in ``spec``, and how it is handed over in ``timeout_seconds`` and
    ``message`` (see ``Delivery``).

    The ``mark_`` methods change this object only; a ledger's changes are the dispatcher's to make.
    """

    spec: WorkSpec
    run_id: str = field(default_factory=lambda: str(uuid4()))
    status: RunStatus = RunStatus.PENDING
    external_ref: str | None = None
    executor_name: str | None = None
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    attempt: int = 1
    retry_of_run_id: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    created_at: datetime = field(default_factory=_now)
    started_at: datetime | None = None
    completed_at: datetime | None = None
    timeout_seconds: float | None = None
    message: dict[str, Any] | None = None

    @property
    def duration_seconds(self) -> float | None:
        """From start to end, or None where one of them is not known."""
        if self.started_at is None or self.completed_at is None:
            return None
        return (self.completed_at - self.started_at).total_seconds()

    def mark_started(self, external_ref: str | None = None) -> None:
        self.status = RunStatus.RUNNING
        self.started_at = _now()
        self.external_ref = external_ref or self.external_ref

    def mark_completed(self, result: Any = None) -> None:
        self.status = RunStatus.COMPLETED
        self.completed_at = _now()
        self.result = result

    def mark_failed(self, error: str, error_type: str | None = None) -> None:
        self.status = RunStatus.FAILED
        self.completed_at = _now()
        self.error = error
        self.error_type = error_type

    def mark_cancelled(self) -> None:
        self.status = RunStatus.CANCELLED
        self.completed_at = _now()

    def summary(self) -> RunSummary:
        return RunSummary(
            run_id=self.run_id,
            kind=self.spec.kind,
            name=self.spec.name,
            status=self.status,
            lane=self.spec.lane,
            attempt=self.attempt,
            error_type=self.error_type,
            created_at=self.created_at,
            started_at=self.started_at,
            completed_at=self.completed_at,
        )

    def to_dict(self) -> dict[str, Any]:
        """The columns of ``runs``, flat and fit for JSON, and ``duration_seconds``."""
        spec = self.spec
        return {
            "run_id": self.run_id,
            "kind": spec.kind,
            "name": spec.name,
            "params": spec.params,
            "priority": spec.priority,
            "lane": spec.lane,
            "idempotency_key": spec.idempotency_key,
            "correlation_id": spec.correlation_id,
            "parent_run_id": spec.parent_run_id,
            "status": str(self.status),
            "external_ref": self.external_ref,
            "executor_name": self.executor_name,
            "result": self.result,
            "error": self.error,
            "error_type": self.error_type,
            "attempt": self.attempt,
            "retry_of_run_id": self.retry_of_run_id,
            "max_retries": spec.max_retries,
            "trigger_source": spec.trigger_source,
            "metadata": spec.metadata,
            "tags": self.tags,
            "created_at": self.created_at.isoformat(),
            "started_at": self.started_at and self.started_at.isoformat(),
            "completed_at": self.completed_at and self.completed_at.isoformat(),
            "duration_seconds": self.duration_seconds,
        }


_UUID = re.compile("[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def run_uuid(run_id: object) -> str | None:
    """A run's id as the ledgers write it; None for what is no uuid in the standard form. Python's UUID takes others,
    such as urn:uuid:, that PostgreSQL refuses.
    """
    text = str(run_id).lower()
    return text if _UUID.fullmatch(text) else None


def record_of(columns: Mapping[str, Any]) -> RunRecord:
    """The record of a row of ``runs``, and of ``run_handoff`` where there is one.

    A column that is missing or NULL, as the seeds' tables allow, has its default; a run without ``created_at`` was
    there when it started, or ended, at the latest.
    """
    run = {name: value for name, value in columns.items() if value is not None}
    for name in ("parent_run_id", "run_id", "retry_of_run_id"):
        if name in run:
            run[name] = str(run[name])
    moments = [run[name] for name in ("created_at", "started_at", "completed_at") if name in run]
    return RunRecord(
        WorkSpec(**{name: run[name] for name in _SPEC_COLUMNS if name in run}),
        status=RunStatus(run["status"]),
        created_at=moments[0] if moments else UNKNOWN,
        **{name: run[name] for name in _RUN_COLUMNS if name in run},
    )


#: ``created_at`` of a run that tells nothing of when it was.
UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)

_SPEC_COLUMNS = (
    "kind", "name", "params", "priority", "lane", "idempotency_key", "correlation_id", "parent_run_id", "max_retries",
    "trigger_source", "metadata", "retry_delay_seconds",
)  # fmt: skip
_OF_RUNS = (
    "run_id", "external_ref", "executor_name", "result", "error", "error_type", "attempt", "retry_of_run_id", "tags",
    "started_at", "completed_at",
)  # fmt: skip
_RUN_COLUMNS = (*_OF_RUNS, "timeout_seconds", "message")


#: The columns of ``runs`` that ``record_of`` reads.
COLUMNS = (*(name for name in _SPEC_COLUMNS if name != "retry_delay_seconds"), *_OF_RUNS, "status", "created_at")


@dataclass(frozen=True)
class RunSummary:
    """A run as lists show it."""

    run_id: str
    kind: str
    name: str
    status: RunStatus
    lane: str
    attempt: int
    error_type: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "kind": self.kind,
            "name": self.name,
            "status": str(self.status),
            "lane": self.lane,
            "attempt": self.attempt,
            "error_type": self.error_type,
            "created_at": self.created_at.isoformat(),
            "started_at": self.started_at and self.started_at.isoformat(),
            "completed_at": self.completed_at and self.completed_at.isoformat(),
        }
