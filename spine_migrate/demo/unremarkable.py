"""The unremarkable values around an awkward one: every column that a kind does not set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from spine_migrate.demo.kind import Draw, Values
from spine_migrate.demo.ordinary import JOB_TYPES, PIPELINES

EXECUTION_COLUMNS = (
    "execution_id", "pipeline_name", "params", "lane", "trigger_source", "status", "backend_task_id", "feed_id",
    "retry_count", "max_retries", "parent_execution_id", "retry_of_execution_id", "idempotency_key", "result", "error",
    "error_type", "created_at", "started_at", "completed_at",
)  # fmt: skip
EVENT_COLUMNS = ("event_id", "execution_id", "event_type", "timestamp", "data")
JOB_COLUMNS = (
    "job_id", "job_type", "payload", "status", "priority", "attempts", "max_attempts", "user_id", "feed_id",
    "celery_task_id", "error_message", "result", "created_at", "started_at", "finished_at",
)  # fmt: skip

_SECOND_YEAR = datetime(2017, 1, 1, tzinfo=UTC)
_EIGHT_YEARS_S = 8 * 365 * 86_400


def execution(draw: Draw, key: str, values: Values) -> Values:
    """A completed execution of some day in eight years, with ``values`` over it."""
    created = _created(draw, key)
    row: Values = {
        "execution_id": key,
        "pipeline_name": PIPELINES[draw.number(f"pipeline:{key}", len(PIPELINES))],
        "params": f'{{"limit": {draw.number(f"limit:{key}", 500)}, "options": {{"timeout_s": 30}}}}',
        "lane": "normal",
        "trigger_source": "schedule",
        "status": "completed",
        "backend_task_id": draw.uuid(f"task:{key}"),
        "retry_count": "0",
        "max_retries": "3",
        "created_at": created.isoformat(),
        "started_at": (created + timedelta(seconds=2)).isoformat(),
        "completed_at": (created + timedelta(seconds=9)).isoformat(),
    }
    return {**row, **values}


def life(draw: Draw, execution_key: str) -> list[Values]:
    """The first events of an awkward execution."""
    created = _created(draw, execution_key)
    return [
        {
            "event_id": draw.uuid(f"life:{execution_key}:{n}"),
            "execution_id": execution_key,
            "event_type": event_type,
            "timestamp": (created + timedelta(seconds=2 * n)).isoformat(),
            "data": "{}",
        }
        for n, event_type in enumerate(("created", "started"))
    ]


def event(host: str, at: datetime, values: Values) -> Values:
    """A progress event of the execution ``host`` at that time, with ``values`` over it."""
    row: Values = {
        "execution_id": host,
        "event_type": "progress",
        "timestamp": at.isoformat(),
        "data": '{"done": 1, "total": 2}',
    }
    return {**row, **values}


def job(draw: Draw, key: str, values: Values) -> Values:
    """A job that is done, of some day in eight years, with ``values`` over it."""
    created = _created(draw, key).replace(tzinfo=None)
    row: Values = {
        "job_id": key,
        "job_type": JOB_TYPES[draw.number(f"type:{key}", len(JOB_TYPES))],
        "payload": f'{{"document_ids": [{draw.number(f"document:{key}", 1_000_000)}]}}',
        "status": "done",
        "priority": "5",
        "attempts": "1",
        "max_attempts": "3",
        "user_id": str(draw.number(f"user:{key}", 20_000)),
        "celery_task_id": draw.uuid(f"job-task:{key}"),
        "created_at": created.isoformat(),
        "started_at": (created + timedelta(seconds=1)).isoformat(),
        "finished_at": (created + timedelta(seconds=4)).isoformat(),
    }
    return {**row, **values}


def _created(draw: Draw, key: str) -> datetime:
    return _SECOND_YEAR + timedelta(seconds=draw.number(f"created:{key}", _EIGHT_YEARS_S))
