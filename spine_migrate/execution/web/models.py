"""What the HTTP API takes and gives; FastAPI makes the OpenAPI document from these models.

Requests are strict: a field that is misspelled is an error. Answers are lenient: what the columns of ``runs`` may be,
NULL included, can be shown.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, to_jsonable_python

from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.invariants import LARGEST_INTEGER, LENGTHS, LONGEST
from spine_migrate.execution.ledgers.protocol import Delivery
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.spec import WorkSpec, step_spec

Kind = Literal["task", "pipeline", "workflow", "step"]
Priority = Literal["realtime", "high", "normal", "low", "slow"]

#: PostgreSQL stores no NUL character.
NO_NUL = r"^[^\x00]*$"


def _not_a_number(value: Any) -> Any:
    """It would be taken for seconds since 1970, also from a query; RFC 3339 has no such thing."""
    if not isinstance(value, str) or "-" not in value[1:]:
        raise PydanticCustomError("no_time", "A time is written as in 2026-11-20T12:00:00Z")
    return value


def _whole(value: Any) -> Any:
    """JSON has one type of numbers, in which 3.0 is the integer 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Moment = Annotated[AwareDatetime, BeforeValidator(_not_a_number)]
WholeNumber = Annotated[int, BeforeValidator(_whole)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SubmitWork(_Request):
    """A ``WorkSpec`` without its kind, its tags, and when it may be started. Times have a zone."""

    name: str = Field(min_length=1, max_length=LENGTHS["name"], pattern=NO_NUL)
    params: dict[str, Any] = {}
    idempotency_key: str | None = Field(default=None, max_length=LENGTHS["idempotency_key"], pattern=NO_NUL)
    correlation_id: str | None = Field(default=None, max_length=LENGTHS["correlation_id"], pattern=NO_NUL)
    priority: Priority = "normal"
    lane: str = Field(default="default", min_length=1, max_length=LENGTHS["lane"], pattern=NO_NUL)
    parent_run_id: UUID | None = None
    trigger_source: str = Field(default="api", max_length=LENGTHS["trigger_source"], pattern=NO_NUL)
    metadata: dict[str, Any] = {}
    max_retries: WholeNumber = Field(default=3, ge=0, le=LARGEST_INTEGER, strict=True)
    retry_delay_seconds: float = Field(default=60, ge=0, strict=True, allow_inf_nan=False)
    tags: dict[str, Any] = {}
    due_at: Moment | None = None
    expires_at: Moment | None = None
    timeout_seconds: float | None = Field(default=None, gt=0, le=LONGEST, strict=True, allow_inf_nan=False)

    def run(self, kind: str) -> RunRecord:
        fields = self.model_dump(exclude={"kind", "name", "tags", "due_at", "expires_at", "timeout_seconds"})
        if self.parent_run_id is not None:
            fields["parent_run_id"] = str(self.parent_run_id)
        if kind == "step":
            # Left out, not None: a step's correlation id is its parent then.
            given = {name: value for name, value in fields.items() if name != "correlation_id" or value is not None}
            return RunRecord(step_spec(self.name, **given), tags=self.tags)
        return RunRecord(WorkSpec(kind, self.name, **fields), tags=self.tags)

    def delivery(self) -> Delivery:
        return Delivery(self.due_at, self.expires_at, self.timeout_seconds)


class SubmitRun(SubmitWork):
    kind: Kind


class CancelRun(_Request):
    reason: str = Field(default="asked for", max_length=1000, pattern=NO_NUL)


class RunSummaryOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    run_id: str
    kind: str
    name: str
    status: RunStatus
    lane: str | None
    attempt: int | None
    error_type: str | None
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None


class RunPage(BaseModel):
    """The newest first; ``next_offset`` is that of the next page, where there is one."""

    runs: list[RunSummaryOut]
    next_offset: int | None


class RunOut(BaseModel):
    """A row of ``runs``."""

    run_id: str
    kind: str
    name: str
    params: dict[str, Any]
    priority: str | None
    lane: str | None
    idempotency_key: str | None
    correlation_id: str | None
    parent_run_id: str | None
    status: RunStatus
    external_ref: str | None
    executor_name: str | None
    result: Any
    error: str | None
    error_type: str | None
    attempt: int | None
    retry_of_run_id: str | None
    max_retries: int | None
    retry_delay_seconds: float
    trigger_source: str | None
    metadata: dict[str, Any]
    tags: dict[str, Any]
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    duration_seconds: float | None

    @classmethod
    def of(cls, run: RunRecord) -> RunOut:
        given = {**vars(run.spec), **vars(run), "duration_seconds": run.duration_seconds}
        return cls.model_validate({**given, "result": shown(run.result)})


class RetriedOut(BaseModel):
    """``run_id`` is the new run."""

    run_id: str
    retry_of_run_id: str


class RunEventOut(BaseModel):
    event_id: str
    run_id: str
    event_type: str
    timestamp: datetime | None
    data: Any
    source: str | None

    @classmethod
    def of(cls, event: RunEvent) -> RunEventOut:
        return cls.model_validate({**vars(event), "event_type": str(event.event_type), "data": shown(event.data)})


class Problem(BaseModel):
    """``field`` is the dotted path of a field or parameter, ``detail`` what is wrong with it."""

    field: str
    detail: str


class ErrorBody(BaseModel):
    """``category`` and ``retryable`` as in ``execution.errors``; ``run_id`` is the run that stands in the way, or that
    the request is about.
    """

    category: str
    retryable: bool
    detail: str
    run_id: str | None = None
    problems: list[Problem] = []


def shown(value: Any) -> Any:
    """As JSON has it. In memory a result may be anything: what JSON lacks is shown as the name of its type, since its
    repr may tell what is nobody's business.
    """
    return to_jsonable_python(value, inf_nan_mode="null", fallback=lambda other: type(other).__name__)
