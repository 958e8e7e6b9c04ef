"""The awkward jobs. Fates are those under ``mappings/capture-spine/jobs.toml``."""

from __future__ import annotations

from spine_migrate.demo import odd_values as odd
from spine_migrate.demo.kind import MOVED, NULL_VALUE, TOO_LONG, UNKNOWN_VALUE, Kind, one

_STATUSES = ("DONE", "finished", "dead", "", "paused", "error ")
_PRIORITIES = ("10", "-1", "99", "2147483647", "-2147483648")
_KEYS = ("-9223372036854775808", "9223372036854775807", "0", "-1", "9007199254740993")
_EDGES = (
    {"created_at": "-infinity", "started_at": None, "finished_at": "infinity"},
    {"created_at": "4713-01-01 00:00:00 BC", "started_at": None, "finished_at": None},
    {"created_at": "294276-12-31 23:59:59.999999", "started_at": None, "finished_at": None},
    # Times that do not exist, or exist twice, in the zones the servers stood in; in UTC they are ordinary.
    {"created_at": "2019-03-31 02:30:00", "started_at": "2019-10-27 02:30:00", "finished_at": "2038-01-19 03:14:08"},
)

JOB_KINDS: tuple[Kind, ...] = (
    Kind(
        "job_status_undocumented",
        "jobs",
        UNKNOWN_VALUE,
        "Scripts and operators again.",
        150,
        lambda _d, n: one(status=_STATUSES[n % len(_STATUSES)]),
        at_least=len(_STATUSES),
    ),
    Kind(
        "job_null_status",
        "jobs",
        NULL_VALUE,
        "A bulk UPDATE from a join that found nothing.",
        40,
        lambda _d, _n: one(status=None),
    ),
    Kind(
        "job_null_type",
        "jobs",
        NULL_VALUE,
        "Rows inserted by hand.",
        40,
        lambda _d, _n: one(job_type=None),
    ),
    Kind(
        "job_type_too_long",
        "jobs",
        TOO_LONG,
        "The type is a function's repr with its arguments (over 100 characters).",
        80,
        lambda _d, n: one(job_type=f"<function batch_import_documents at 0x7f{n:08x}>(" + "document, " * 10 + ")"),
    ),
    Kind(
        "job_celery_task_id_too_long",
        "jobs",
        TOO_LONG,
        "A group stored the ids of all its members.",
        40,
        lambda d, n: one(celery_task_id=",".join(d.uuid(f"awkward:group:{n}:{m}") for m in range(8))),
    ),
    Kind(
        "job_priority_out_of_range",
        "jobs",
        UNKNOWN_VALUE,
        "The 0..9 of the documentation was never a constraint; customers found 99.",
        120,
        lambda _d, n: one(priority=_PRIORITIES[n % len(_PRIORITIES)]),
        at_least=len(_PRIORITIES),
    ),
    Kind(
        "job_null_priority",
        "jobs",
        MOVED,
        "Priorities came in year two.",
        80,
        lambda _d, _n: one(priority=None),
    ),
    Kind(
        "job_null_attempts",
        "jobs",
        MOVED,
        "So did the attempts.",
        60,
        lambda _d, _n: one(attempts=None, max_attempts=None),
    ),
    Kind(
        "job_null_payload",
        "jobs",
        MOVED,
        "Jobs without arguments.",
        60,
        lambda _d, _n: one(payload=None, created_at=None),
    ),
    Kind(
        "job_payload_not_an_object",
        "jobs",
        MOVED,
        "Positional arguments, scalars and the JSON null.",
        60,
        lambda _d, n: one(payload=odd.NOT_OBJECTS[n % len(odd.NOT_OBJECTS)], result="null"),
        at_least=len(odd.NOT_OBJECTS),
    ),
    Kind(
        "job_unicode",
        "jobs",
        MOVED,
        "Job types and payloads in the users' own scripts.",
        60,
        lambda _d, n: one(
            job_type=f"import {odd.UNICODE[n % len(odd.UNICODE)]}",
            payload=odd.json_text({"title": odd.UNICODE[n % len(odd.UNICODE)]}),
        ),
        at_least=len(odd.UNICODE),
    ),
    Kind(
        "job_huge_error",
        "jobs",
        MOVED,
        "A subprocess's log, 1 MB of it.",
        10,
        lambda d, n: one(status="error", error_message=odd.log_text(d, n, 1_048_576)),
        at_most=2,
    ),
    Kind(
        "job_retrying",
        "jobs",
        MOVED,
        "A status that no execution has, with more attempts than allowed.",
        80,
        lambda d, n: one(
            status="retrying", attempts=str(4 + n % 9), feed_id=d.uuid(f"awkward:retrying-feed:{n}"), finished_at=None
        ),
    ),
    Kind(
        "job_finished_before_started",
        "jobs",
        MOVED,
        "Clocks that disagree.",
        60,
        lambda _d, _n: one(started_at="2020-02-29 11:59:59", finished_at="2020-02-29 11:00:00"),
    ),
    Kind(
        "job_timestamps_at_the_edges",
        "jobs",
        MOVED,
        "Infinity, 4713 BC, year 294276, and local times that a change to summer time skips or repeats.",
        10,
        lambda _d, n: one(**_EDGES[n % len(_EDGES)]),
        at_least=len(_EDGES),
    ),
    Kind(
        "job_id_at_the_edges",
        "jobs",
        MOVED,
        "Keys from imports and tests: both ends of bigint, zero, minus one, one beyond what a double holds.",
        10,
        lambda _d, n: one(job_id=_KEYS[n]),
        at_least=len(_KEYS),
        at_most=len(_KEYS),
    ),
)
