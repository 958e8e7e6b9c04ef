"""A notice as facts with names: the same ones for hooks, on stdin and in the environment, and for the log.

Names and meanings are a contract (runbooks/monitoring.md); a fact that does not belong to an event is not among its
facts, and is an empty variable in the environment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import Any

from spine_migrate.notices import (
    STAGES,
    Batch,
    Before,
    End,
    Lag,
    Notice,
    Progress,
    Quarantined,
    Retry,
    Subject,
    Throttle,
    Transition,
    Verdict,
    Waits,
)

#: Events that a hook can be called on.
EVENTS = (
    *(f"{when}-{stage}" for stage in STAGES for when in ("before", "after")),
    "on-transition",
    "on-throttle",
    "on-quarantine",
    "on-verdict",
    "on-end",
)
#: Facts that a hook finds in its environment, as ``SPINE_`` and the name in capitals.
IN_ENVIRONMENT = (
    "event",
    "migration_id",
    "mapping",
    "source_table",
    "target_table",
    "stage",
    "step",
    "from_step",
    "signal",
    "detail",
    "before",
    "seconds",
    "rows",
    "reasons",
    "verdict",
    "differences",
    "migrations",
    "codes",
    "command",
    "exit_code",
    "code",
)


def events(notice: Notice) -> Iterator[str]:
    """The events of a notice that hooks are called on, in order; none for what comes with every batch."""
    match notice:
        case Before(stage=stage):
            yield f"before-{stage}"
        case Transition(from_step=before, to_step=step, ends=ends):
            if step != before:
                yield "on-transition"
            if ends is not None:
                yield f"after-{ends}"
        case Throttle():
            yield "on-throttle"
        case Quarantined():
            yield "on-quarantine"
        case Verdict():
            yield "on-verdict"
        case End():
            yield "on-end"
        case _:
            return


@singledispatch
def facts(notice: Notice) -> dict[str, Any]:
    """JSON values: text, numbers, lists and objects of them; None where something is not known."""
    raise TypeError(f"{type(notice).__name__} is no notice")


def _about(subject: Subject) -> dict[str, Any]:
    return {
        "migration_id": subject.migration_id,
        "mapping": subject.mapping,
        "source_table": subject.source_table,
        "target_table": subject.target_table,
    }


@facts.register
def _(notice: Before) -> dict[str, Any]:
    return {**_about(notice.subject), "stage": notice.stage, "step": notice.step}


@facts.register
def _(notice: Transition) -> dict[str, Any]:
    found = {**_about(notice.subject), "step": notice.to_step, "from_step": notice.from_step}
    return found if notice.ends is None else {**found, "stage": notice.ends}


@facts.register
def _(notice: Progress) -> dict[str, Any]:
    left = notice.seconds_left
    return {
        **_about(notice.subject),
        "phase": notice.phase,
        "rows": notice.rows,
        "accounted": notice.accounted,
        "blocks": notice.blocks,
        "total_blocks": notice.total_blocks,
        "rows_per_second": round(notice.rows_per_second, 1),
        "seconds_left": None if left is None else round(left, 1),
    }


@facts.register
def _(notice: Batch) -> dict[str, Any]:
    seconds = None if notice.seconds is None else round(notice.seconds, 3)
    return {**_about(notice.subject), "moved": notice.moved, "adopted": notice.adopted, "seconds": seconds}


@facts.register
def _(notice: Quarantined) -> dict[str, Any]:
    return {**_about(notice.subject), "rows": sum(notice.reasons.values()), "reasons": dict(notice.reasons)}


@facts.register
def _(notice: Throttle) -> dict[str, Any]:
    return {
        **_about(notice.subject),
        "signal": notice.signal,
        "detail": notice.detail,
        "before": notice.before,
        "seconds": round(notice.seconds, 1),
    }


@facts.register
def _(notice: Lag) -> dict[str, Any]:
    found = {"direction": notice.direction, "rows": notice.rows, "seconds": round(notice.seconds, 1)}
    return {**_about(notice.subject), **found, "applied": notice.applied}


@facts.register
def _(notice: Waits) -> dict[str, Any]:
    return {**_about(notice.subject), "sessions": notice.sessions, "seconds": round(notice.seconds, 1)}


@facts.register
def _(notice: Retry) -> dict[str, Any]:
    wait = round(notice.wait_seconds, 1)
    return {**_about(notice.subject), "cause": notice.cause, "attempt": notice.attempt, "wait_seconds": wait}


@facts.register
def _(notice: Verdict) -> dict[str, Any]:
    migrations = [
        {**_about(one.subject), "verdict": one.verdict, "differences": one.differences} for one in notice.migrations
    ]
    found = {"verdict": notice.verdict, "differences": notice.differences}
    return {**found, "migrations": migrations, "codes": list(notice.codes)}


@facts.register
def _(notice: End) -> dict[str, Any]:
    return {"command": notice.command, "exit_code": notice.exit_code, "code": notice.code}


def environment(inherited: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, str]:
    """``inherited`` with the facts; one that is not there is empty, whatever stood there before."""
    return {**inherited, **{f"SPINE_{name.upper()}": _text(found.get(name)) for name in IN_ENVIRONMENT}}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
