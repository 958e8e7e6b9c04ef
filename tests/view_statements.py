"""Statements that an application gives to a legacy table or to the view in its place, drawn at random."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.values import BY_TYPE, json_text, to_text

_STATUS = {
    "executions": ["pending", "queued", "running", "completed", "failed", "cancelled"],
    "jobs": ["queued", "processing", "done", "error", "cancelled", "retrying"],
}

_EVENTS = ["created", "queued", "started", "progress", "completed", "failed", "retried"]

_short = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)

_json = BY_TYPE["jsonb"].map(json_text)

_when = BY_TYPE["timestamptz"].map(to_text)

_small = st.integers(0, 9)

_KEYS = [f"00000000-0000-4000-8000-{number:012}" for number in range(3)]

OTHERS = [f"00000000-0000-4000-8000-{number:012}" for number in range(3, 5)]

_VALUES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "executions": {
        "pipeline_name": _short,
        "params": st.none() | _json,
        "lane": st.none() | _short,
        "trigger_source": st.none() | _short,
        "status": st.sampled_from(_STATUS["executions"]),
        "backend_task_id": st.none() | _short,
        # No two of one feed: the guards of the two tables are not the same, see the demo's legacy.sql.
        "feed_id": st.none() | st.uuids().map(str),
        "retry_count": st.none() | _small,
        "max_retries": st.none() | _small,
        "parent_execution_id": st.none() | st.sampled_from(_KEYS + OTHERS),
        "retry_of_execution_id": st.none() | st.sampled_from(_KEYS + OTHERS),
        "result": st.none() | _json,
        "error": st.none() | _short,
        "error_type": st.none() | _short | st.integers(99, 102).map(lambda length: "\u00e9" * length),
        "created_at": st.none() | _when,
        "started_at": st.none() | _when,
        "completed_at": st.none() | _when,
    },
    "jobs": {
        "job_type": _short,
        "payload": st.none() | _json,
        "status": st.sampled_from(_STATUS["jobs"]),
        "priority": st.none() | _small,
        "attempts": st.none() | _small,
        "max_attempts": st.none() | _small,
        "user_id": st.none() | st.integers(-(2**63), 2**63 - 1),
        "feed_id": st.none() | st.uuids().map(str),
        "celery_task_id": st.none() | _short,
        "error_message": st.none() | _short,
        "result": st.none() | _json,
        "created_at": st.none() | BY_TYPE["timestamp"].map(to_text),
        "started_at": st.none() | BY_TYPE["timestamp"].map(to_text),
        "finished_at": st.none() | BY_TYPE["timestamp"].map(to_text),
    },
    "papers": {
        "label": st.sampled_from(["", "a", "abc", "abcd", " b "]),
        "mood": st.sampled_from(["new", "done"]) | st.just("odd"),
        "price": st.none() | st.sampled_from(["0", "-1.5", "1.505", "123456.78", "1234567", "NaN"]),
        "tiny": st.none() | st.sampled_from([1, 7, 32767, 0, 32768]),
        "doc": st.none() | st.sampled_from(["null", "{}", '{"a": [1.50, null]}', '"text"']),
        "of_code": st.none() | st.sampled_from(["a", "\u00e4 %'", "gone"]),
        "made": st.none() | st.sampled_from(["2021-03-28 02:30:00.1234", "2021-10-31 02:30:00", "infinity"]),
        "desk": st.none() | st.integers(1, 3),
    },
    "execution_events": {
        "execution_id": st.sampled_from(OTHERS),
        "event_type": st.sampled_from(_EVENTS),
        "timestamp": st.none() | _when,
        "data": st.none() | _json,
    },
}

KEY: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "executions": ("execution_id", st.sampled_from(_KEYS)),
    "jobs": ("job_id", st.sampled_from([1, -(2**63), 2**63 - 1])),
    "papers": ("code", st.sampled_from(["a", "\u00e4 %'", "thirteen char"])),
    "execution_events": ("event_id", st.sampled_from(_KEYS)),
}

# What is done: insert a row, change some columns of one, move one to another key, remove one. Each names its columns.
Step = tuple[str, dict[str, Any], Any]


@st.composite
def steps(draw: st.DrawFn, entity: str) -> list[Step]:
    key, keys = KEY[entity]
    values = _VALUES[entity]
    made: list[Step] = []
    for number in range(draw(st.integers(1, 8))):
        kind = "insert" if number == 0 else draw(st.sampled_from(["insert", "update", "update", "rekey", "delete"]))
        some = draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=6, unique=True))
        match kind:
            case "insert":
                # All columns or some, so that defaults are tried; what has to be there, is.
                names = sorted(values) if draw(st.booleans()) else some
                needed = {"pipeline_name", "job_type", "execution_id", "event_type", "label"} & set(values)
                made.append((kind, {name: draw(values[name]) for name in sorted({*names} | needed)}, draw(keys)))
            case "update":
                made.append((kind, {name: draw(values[name]) for name in some}, draw(keys)))
            case "rekey":
                made.append((kind, {key: draw(keys)}, draw(keys)))
            case _:
                made.append((kind, {}, draw(keys)))
    return made
