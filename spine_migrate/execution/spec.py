"""What is to be run: kind, name, parameters, and where it belongs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KINDS = ("task", "pipeline", "workflow", "step")
PRIORITIES = ("realtime", "high", "normal", "low", "slow")


@dataclass
class WorkSpec:
    """A request to run a handler (seed 000). Fields are the columns of ``runs`` with the same names.

    ``kind`` is one of ``KINDS``, ``name`` the handler's, ``params`` JSON. ``priority`` is one of ``PRIORITIES``;
    ``lane`` names a queue. Two specs with one ``idempotency_key`` are one run. ``metadata`` may name an entity
    (``entity_type``, ``entity_id``), of which only one run is active at a time. After a failure that is worth it, the
    run is tried again up to ``max_retries`` times, the first time after ``retry_delay_seconds``.
    """

    kind: str
    name: str
    params: dict[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    correlation_id: str | None = None
    priority: str = "normal"
    lane: str = "default"
    parent_run_id: str | None = None
    trigger_source: str = "api"
    metadata: dict[str, Any] = field(default_factory=dict)
    max_retries: int = 3
    retry_delay_seconds: float = 60


def task_spec(name: str, params: dict[str, Any] | None = None, **fields: Any) -> WorkSpec:
    return WorkSpec("task", name, {} if params is None else params, **fields)


def pipeline_spec(name: str, params: dict[str, Any] | None = None, **fields: Any) -> WorkSpec:
    return WorkSpec("pipeline", name, {} if params is None else params, **fields)


def workflow_spec(name: str, params: dict[str, Any] | None = None, **fields: Any) -> WorkSpec:
    return WorkSpec("workflow", name, {} if params is None else params, **fields)


def of_parent(parent_run_id: object) -> str | None:
    """The correlation id of a step that is given none."""
    return None if parent_run_id is None else str(parent_run_id).lower()


def step_spec(
    name: str, params: dict[str, Any] | None = None, *, parent_run_id: str | None = None, **fields: Any
) -> WorkSpec:
    """A step of the workflow run ``parent_run_id``, which is its correlation id unless another is given."""
    if fields.get("correlation_id") is None:
        fields["correlation_id"] = of_parent(parent_run_id)
    return WorkSpec("step", name, {} if params is None else params, parent_run_id=parent_run_id, **fields)
