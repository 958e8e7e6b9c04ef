"""The awkward execution events. Fates are those under ``mappings/capture-spine/execution_events.toml``.

``execution_id`` and ``timestamp`` come from a host, an execution that moves and has ended, unless the kind sets them.
Two more kinds follow from others: every event of an execution that is quarantined is one (``event_of_quarantined``),
and so is every event of an execution that contends for a key (``event_of_contender``).
"""

from __future__ import annotations

from spine_migrate.demo import odd_values as odd
from spine_migrate.demo.kind import MOVED, NULL_VALUE, ORPHAN, UNKNOWN_VALUE, AwkwardRow, Draw, Kind, one

_UNKNOWN_TYPES = ("STARTED", "pipeline.started", "oom-killed", "", "progress_v2", "debug: " + "x" * 60)
_EDGES = ("infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00")
_DATA = ('["a", 1, null]', '"text"', "17", "null", "[]")


def _orphans(draw: Draw, n: int) -> list[AwkwardRow]:
    purged = draw.uuid(f"awkward:purged:{n}")
    return [
        AwkwardRow({"execution_id": purged, "event_type": event_type, "timestamp": f"2017-05-0{day} 10:00:00+00"})
        for day, event_type in enumerate(("created", "started", "completed"), start=1)
    ]


EVENT_KINDS: tuple[Kind, ...] = (
    Kind(
        "orphan_event",
        "execution_events",
        ORPHAN,
        "A purge deleted executions before the foreign key came; it is NOT VALID, so their events are still there.",
        100,
        _orphans,
    ),
    Kind(
        "unknown_event_type",
        "execution_events",
        UNKNOWN_VALUE,
        "Debug output and the types of an experiment, written into the same table.",
        150,
        lambda _d, n: one(event_type=_UNKNOWN_TYPES[n % len(_UNKNOWN_TYPES)]),
        at_least=len(_UNKNOWN_TYPES),
    ),
    Kind(
        "null_event_type",
        "execution_events",
        NULL_VALUE,
        "A logger without a type.",
        30,
        lambda _d, _n: one(event_type=None),
    ),
    Kind(
        "equal_timestamps",
        "execution_events",
        MOVED,
        "Three events written in one transaction with now(): their order is in no column.",
        80,
        lambda _d, _n: [AwkwardRow({"event_type": t}) for t in ("progress", "heartbeat", "progress")],
    ),
    Kind(
        "event_data_not_an_object",
        "execution_events",
        MOVED,
        "Arrays, scalars and the JSON null as data.",
        100,
        lambda _d, n: one(data=_DATA[n % len(_DATA)]),
        at_least=len(_DATA),
    ),
    Kind(
        "null_event_data",
        "execution_events",
        MOVED,
        "Data was optional before 2018.",
        80,
        lambda _d, _n: one(data=None),
    ),
    Kind(
        "null_event_timestamp",
        "execution_events",
        MOVED,
        "The restore that lost created_at lost these as well.",
        30,
        lambda _d, _n: one(timestamp=None),
    ),
    Kind(
        "event_timestamps_at_the_edges",
        "execution_events",
        MOVED,
        "Sentinels and parser accidents: infinity, 4713 BC, year 294276.",
        5,
        lambda _d, n: one(timestamp=_EDGES[n % len(_EDGES)]),
        at_least=len(_EDGES),
    ),
    Kind(
        "event_after_the_end",
        "execution_events",
        MOVED,
        "A worker that had lost its connection reported progress years after the execution was closed.",
        60,
        lambda _d, n: one(event_type="heartbeat", timestamp=f"2031-01-01 00:00:{n % 60:02}+00"),
    ),
    Kind(
        "event_before_the_beginning",
        "execution_events",
        MOVED,
        "A worker whose clock had fallen back to 1970 finished the execution before it was created.",
        60,
        lambda _d, _n: one(event_type="started", timestamp="1970-01-01 00:00:07+00"),
    ),
    Kind(
        "second_end",
        "execution_events",
        MOVED,
        "Two workers had the same task, and both ended it.",
        60,
        lambda _d, n: one(event_type=("completed", "failed")[n % 2]),
    ),
    Kind(
        "large_event_data",
        "execution_events",
        MOVED,
        "A progress event carries the whole list of what was done, 150 kB.",
        5,
        lambda d, n: one(event_type="progress", data=odd.many_ids(d, n, 4_000)),
        at_most=6,
    ),
)
