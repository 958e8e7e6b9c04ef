"""What must be true of a work spec, a run, an event and a result before a ledger takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from spine_migrate.execution.errors import InvalidSpecError
from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.runs import RunRecord, run_uuid
from spine_migrate.execution.spec import KINDS, PRIORITIES, WorkSpec
from spine_migrate.execution.storable import check_text, copied, reread

#: Characters that the columns of ``runs`` hold (seed 000).
LENGTHS = {"name": 100, "lane": 50, "trigger_source": 50, "idempotency_key": 255, "correlation_id": 255}
#: The pair that ix_runs_one_active_per_entity guards.
ENTITY = ("entity_type", "entity_id")
#: Characters of its columns' texts in an index entry, which has no room for more.
ENTITY_LENGTH = 255
#: Seconds, some three hundred years: more is a mistake, and some day a time that no calendar has.
LONGEST = 1e10
#: What the integer columns hold.
LARGEST_INTEGER = 2_147_483_647


def check_fields(spec: WorkSpec) -> None:
    """Raises InvalidSpecError for the first field that a ledger could not store or a worker not use; JSON aside."""
    _one_of("kind", spec.kind, KINDS)
    _one_of("priority", spec.priority, PRIORITIES)
    for field, length in LENGTHS.items():
        value = getattr(spec, field)
        if type(value) is not str or len(value) > length or not value.isascii() or "\0" in value:
            _text(field, value, length)
    for field in ("name", "lane"):
        if not getattr(spec, field):
            raise InvalidSpecError(field, f"A run needs a {field}, and it is empty.")
    if type(spec.max_retries) is not int or not 0 <= spec.max_retries <= LARGEST_INTEGER:
        raise InvalidSpecError(
            "max_retries", f"max_retries must be a whole number from 0 to {LARGEST_INTEGER}, not {spec.max_retries!r}."
        )
    pause: object = spec.retry_delay_seconds
    if not isinstance(pause, (int, float)) or not 0 <= pause < float("inf"):
        raise InvalidSpecError(
            "retry_delay_seconds", f"retry_delay_seconds must be a number from 0, not {spec.retry_delay_seconds!r}."
        )


def checked(run: RunRecord) -> RunRecord:
    """A new run as a ledger holds it: with JSON that has been written and read, and ids in lower case. Raises
    InvalidSpecError likewise.
    """
    spec = run.spec
    check_fields(spec)
    params, metadata = json_object("params", spec.params), json_object("metadata", spec.metadata)
    tags = json_object("tags", run.tags)
    run_id = run_uuid(run.run_id)
    if run_id is None:
        raise InvalidSpecError("run_id", f"run_id must be a uuid, not {run.run_id!r}.")
    for name, value in zip(ENTITY, entity(metadata) or (), strict=False):
        if isinstance(metadata[name], (dict, list, float)) or len(value) > ENTITY_LENGTH:
            raise InvalidSpecError(
                "metadata",
                f"{name} in metadata must be a text of at most {ENTITY_LENGTH} characters or a whole number.",
            )
    seconds("timeout_seconds", run.timeout_seconds)
    if type(run.attempt) is not int or not 1 <= run.attempt <= LARGEST_INTEGER:
        raise InvalidSpecError("attempt", f"attempt must be a whole number from 1, not {run.attempt!r}.")
    parent, retried = (other and str(other).lower() for other in (spec.parent_run_id, run.retry_of_run_id))
    return RunRecord(
        replace(spec, params=params, metadata=metadata, parent_run_id=parent),
        run_id=run_id,
        attempt=run.attempt,
        retry_of_run_id=retried,
        tags=tags,
        timeout_seconds=run.timeout_seconds,
        message=None if run.message is None else json_object("message", run.message),
    )


def check_event(event: RunEvent) -> None:
    """Raises InvalidSpecError likewise."""
    for field, length in (("event_type", 50), ("source", 50)):
        _text(field, getattr(event, field), length)
    if run_uuid(event.event_id) is None:
        raise InvalidSpecError("event_id", f"event_id must be a uuid, not {event.event_id!r}.")
    json_object("data", event.data)


def check_published(external_ref: str, executor_name: str) -> None:
    """Raises InvalidSpecError likewise."""
    _text("external_ref", external_ref, 255)
    _text("executor_name", executor_name, 50)


def instant(field: str, value: object) -> None:
    """Raises InvalidSpecError for a time without a zone, which would mean another moment on every machine."""
    if value is not None and (not isinstance(value, datetime) or value.utcoffset() is None):
        raise InvalidSpecError(field, f"{field} must be a datetime with a time zone, not {value!r}.")


def seconds(field: str, value: object) -> None:
    """Raises InvalidSpecError for what is no span of time; None is none."""
    if value is not None and (type(value) not in (int, float) or not 0 < value <= LONGEST):  # type: ignore[operator]
        raise InvalidSpecError(field, f"{field} must be a number of seconds above 0, not {value!r}.")


def message(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """As it comes back from a ledger; None is none. Raises InvalidSpecError where it is not JSON."""
    return None if value is None else json_object("message", value)


def page(limit: int, offset: int = 0) -> None:
    """Raises InvalidSpecError where they are no numbers of rows."""
    for field, value in (("limit", limit), ("offset", offset)):
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise InvalidSpecError(field, f"{field} must be a whole number from 0, not {value!r}.")


def entity(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """What the run is about, as the guard index sees it: only where type and id are both given."""
    kind, key = (_as_text(metadata.get(name)) for name in ENTITY)
    return None if kind is None or key is None else (kind, key)


def _as_text(value: Any) -> str | None:
    """As ``jsonb ->>`` gives it."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(", ", ": "), ensure_ascii=False)


def _one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidSpecError(field, f"{field} must be one of {', '.join(known)}, not {value!r}.")


def _text(field: str, value: object, length: int) -> None:
    if value is None and field in ("idempotency_key", "correlation_id"):
        return
    if not isinstance(value, str):
        raise InvalidSpecError(field, f"{field} must be text, not {type(value).__name__}.")
    if len(value) > length:
        raise InvalidSpecError(field, f"{field} has {len(value)} characters, the ledger holds {length}.")
    try:
        check_text(value)
    except ValueError as error:
        raise InvalidSpecError(field, f"{field} {error}.") from error


def json_object(field: str, value: object) -> dict[str, Any]:
    """The value as it comes back from a ledger. Raises InvalidSpecError where it is nothing that a jsonb column could
    hold as an object.
    """
    if not isinstance(value, dict):
        raise InvalidSpecError(field, f"{field} must be a dict, not {type(value).__name__}.")
    if not value:
        return {}
    stored: dict[str, Any] = json_value(field, value)
    return stored


def json_value(field: str, value: object) -> Any:
    """Likewise, of any value."""
    try:
        return copied(value)
    except ValueError:
        return _reread(field, value)


def _reread(field: str, value: object) -> Any:
    try:
        return reread(value)
    except ValueError as error:
        raise InvalidSpecError(field, f"{field} {error}.") from error
