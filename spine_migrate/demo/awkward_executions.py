"""The awkward executions. Fates are those under ``mappings/capture-spine/executions.toml``."""

from __future__ import annotations

from spine_migrate.demo import odd_values as odd
from spine_migrate.demo.kind import (
    MOVED,
    NULL_VALUE,
    OUT_OF_RANGE,
    SHORTENED,
    TOO_LONG,
    UNKNOWN_VALUE,
    AwkwardRow,
    Draw,
    Kind,
    one,
)

_UNDOCUMENTED = ("COMPLETED", "success", "zombie", "stuck", "", "completed ", "skipped-by-operator-2019-03-incident")

_EDGES = (
    {"created_at": "-infinity", "started_at": None, "completed_at": "infinity"},
    {"created_at": "infinity", "started_at": "infinity", "completed_at": "infinity"},
    {"created_at": "4713-01-01 00:00:00+00 BC", "started_at": "0001-01-01 00:00:00+00", "completed_at": None},
    {"created_at": "294276-12-31 23:59:59.999999+00", "started_at": "1970-01-01 00:00:00+00", "completed_at": None},
    {"created_at": "2016-12-31 23:59:60+00", "started_at": "2038-01-19 03:14:08+00", "completed_at": None},
)


def _key(draw: Draw, label: str, n: int) -> str:
    return draw.uuid(f"awkward:{label}:{n}")


def _unicode(_draw: Draw, n: int) -> list[AwkwardRow]:
    text = odd.UNICODE[n % len(odd.UNICODE)]
    return one(
        pipeline_name=f"capture {text}",
        params=odd.json_text({text: [text, {"nested": text}]}),
        error=text,
        lane=text[:20],
    )


EXECUTION_KINDS: tuple[Kind, ...] = (
    Kind(
        "pipeline_name_too_long",
        "executions",
        TOO_LONG,
        "For a year a release built pipeline names from the feed's title and its URL (over 100 characters).",
        30,
        lambda _d, n: one(pipeline_name="capture:" + f"https://example.org/a-very-long-title/{n}/" * 4),
    ),
    Kind(
        "pipeline_name_too_long_by_spaces",
        "executions",
        TOO_LONG,
        "A fixed-width export came back; PostgreSQL cuts trailing spaces to varchar(100) without a word.",
        10,
        lambda _d, n: one(pipeline_name=f"feed_processing_{n}".ljust(110)),
    ),
    Kind(
        "pipeline_name_at_the_limit",
        "executions",
        MOVED,
        "Exactly 100 characters, of four bytes each in every second one: a limit in bytes would refuse them.",
        10,
        lambda _d, n: one(pipeline_name=("\U00020bb7" if n % 2 else "n") * 100),
        at_least=2,
    ),
    Kind(
        "null_pipeline_name",
        "executions",
        NULL_VALUE,
        "An admin script inserted rows by hand before the column had a caller that filled it.",
        20,
        lambda _d, _n: one(pipeline_name=None),
    ),
    Kind(
        "null_status",
        "executions",
        NULL_VALUE,
        "A bulk UPDATE computed the status from a join that found nothing.",
        20,
        lambda _d, _n: one(status=None),
    ),
    Kind(
        "undocumented_status",
        "executions",
        UNKNOWN_VALUE,
        "Operators and one-off scripts wrote the status they needed that night; nobody documented it.",
        70,
        lambda _d, n: one(status=_UNDOCUMENTED[n % len(_UNDOCUMENTED)]),
        at_least=len(_UNDOCUMENTED),
    ),
    Kind(
        "error_type_too_long",
        "executions",
        SHORTENED,
        "The full dotted path of a generated exception class (over 100 characters) was stored as its type.",
        30,
        lambda _d, n: one(status="failed", error="gave up", error_type="app.pipelines.generated." * 6 + f"Failure{n}é"),
    ),
    Kind(
        "huge_error",
        "executions",
        MOVED,
        "The error holds the whole log of a subprocess, 1 MB of it.",
        10,
        lambda d, n: one(status="failed", error=odd.log_text(d, n, 1_048_576), error_type="SubprocessError"),
        at_most=6,
    ),
    Kind(
        "large_params",
        "executions",
        MOVED,
        "A batch import put all its document ids into params, 300 kB of them.",
        10,
        lambda d, n: one(params=odd.many_ids(d, n, 8_000)),
        at_most=6,
    ),
    Kind(
        "deep_params",
        "executions",
        MOVED,
        "A workflow engine wrapped the params of each step in those of the next, 200 levels deep.",
        30,
        lambda _d, n: one(params=odd.deep_json(200, n)),
    ),
    Kind(
        "unicode",
        "executions",
        MOVED,
        "Feeds from everywhere: emoji, right-to-left text with bidi marks, combining characters, 4-byte letters.",
        40,
        _unicode,
        at_least=len(odd.UNICODE),
    ),
    Kind(
        "control_characters",
        "executions",
        MOVED,
        "Terminal output was captured as it came: tabs, carriage returns, backslashes, quotes, escape sequences.",
        20,
        lambda _d, _n: one(
            error=odd.CONTROL, backend_task_id=odd.CONTROL, params=odd.json_text({odd.CONTROL: odd.CONTROL})
        ),
    ),
    Kind(
        "blank_strings",
        "executions",
        MOVED,
        "Forms sent empty strings where the API meant NULL, and trailing spaces where it meant neither.",
        20,
        lambda _d, n: one(lane=" " * (n % 3), error="", error_type="  ", backend_task_id="", trigger_source="api "),
    ),
    Kind(
        "null_params",
        "executions",
        MOVED,
        "Params were optional before 2018.",
        20,
        lambda _d, _n: one(params=None),
    ),
    Kind(
        "null_lane",
        "executions",
        MOVED,
        "Lanes came in year three; older rows have none, nor a trigger source.",
        20,
        lambda _d, _n: one(lane=None, trigger_source=None),
    ),
    Kind(
        "null_created_at",
        "executions",
        MOVED,
        "A restore from a partial dump lost the timestamps.",
        20,
        lambda _d, _n: one(created_at=None, started_at=None, completed_at=None),
    ),
    Kind(
        "json_null",
        "executions",
        MOVED,
        "An ORM wrote None as the JSON value null, which is not SQL's NULL.",
        20,
        lambda _d, _n: one(params="null", result="null"),
    ),
    Kind(
        "json_not_an_object",
        "executions",
        MOVED,
        "Early callers passed positional arguments: params are a scalar or an array.",
        30,
        lambda _d, n: one(params=odd.NOT_OBJECTS[n % len(odd.NOT_OBJECTS)]),
        at_least=len(odd.NOT_OBJECTS),
    ),
    Kind(
        "json_numbers",
        "executions",
        MOVED,
        "Amounts and hashes as JSON numbers: trailing zeros, 400 digits, beyond what a double holds.",
        20,
        lambda _d, _n: one(params=odd.NUMBERS, result=odd.NUMBERS),
    ),
    Kind(
        "completed_before_started",
        "executions",
        MOVED,
        "Workers and database disagreed about the time for weeks: created after started, started after completed.",
        40,
        lambda _d, n: one(
            created_at=f"2019-03-31 02:0{n % 10}:03+00",
            started_at="2019-03-31 01:59:59.999999+00",
            completed_at="2019-03-30 23:00:00+00",
        ),
    ),
    Kind(
        "timestamps_at_the_edges",
        "executions",
        MOVED,
        "Sentinels for 'never' and 'always' and parser accidents: infinity, 4713 BC, year 294276, a leap second.",
        10,
        lambda _d, n: one(**_EDGES[n % len(_EDGES)]),
        at_least=len(_EDGES),
    ),
    Kind(
        "ended_without_timestamps",
        "executions",
        MOVED,
        "The row was closed by a script that set the status and nothing else.",
        20,
        lambda _d, _n: one(started_at=None, completed_at=None),
    ),
    Kind(
        "running_since_years",
        "executions",
        MOVED,
        "The worker died in 2017 and nothing reaps; the row still holds its feed.",
        10,
        lambda d, n: one(
            status="running", feed_id=_key(d, "stuck-feed", n), created_at="2017-06-01 00:00:00+00", completed_at=None
        ),
    ),
    Kind(
        "many_retries",
        "executions",
        MOVED,
        "A retry loop without a limit: far more retries than max_retries allows.",
        20,
        lambda _d, n: one(status="failed", retry_count=str(250 + n), max_retries="3"),
    ),
    Kind(
        "retry_count_at_the_limit",
        "executions",
        OUT_OF_RANGE,
        "The same loop ran into the end of the integer; attempt = retry_count + 1 does not exist.",
        5,
        lambda _d, _n: one(retry_count="2147483647"),
    ),
    Kind(
        "null_retry_count",
        "executions",
        MOVED,
        "Retries came in year two; older rows have neither count nor limit.",
        20,
        lambda _d, _n: one(retry_count=None, max_retries=None),
    ),
)
