"""Whether a run is in a list, as ``listing`` asks it of PostgreSQL."""

from __future__ import annotations

from typing import Any

from spine_migrate.execution.ledgers.protocol import RunFilter
from spine_migrate.execution.runs import RunRecord, run_uuid


def fits(run: RunRecord, filters: RunFilter) -> bool:
    spec = run.spec
    wanted: list[tuple[object, object]] = [
        (filters.kind, spec.kind),
        (filters.status, run.status),
        (filters.name, spec.name),
        (filters.parent_run_id and run_uuid(filters.parent_run_id), spec.parent_run_id),
        (filters.lane, spec.lane),
    ]
    return (
        all(want is None or want == has for want, has in wanted)
        and (filters.since is None or run.created_at >= filters.since)
        and (filters.until is None or run.created_at < filters.until)
        and (filters.tag is None or _tagged(run.tags, filters.tag))
    )


def _tagged(tags: dict[str, Any], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in tags and (not equals or tags[key] == value)
