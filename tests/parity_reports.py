"""Reports of comparisons without a comparison: one that has everything in it, and whatever hypothesis makes of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spine_migrate.parity import scope
from spine_migrate.parity.evidence import (
    Equality,
    Forgiven,
    Histories,
    HistoryCheck,
    HistoryExample,
    Injection,
    Method,
    Picture,
    Scope,
    SelfTest,
    Slice,
)
from spine_migrate.parity.model import (
    Comparison,
    Counts,
    Difference,
    Equation,
    FieldCount,
    Links,
    Quarantined,
    Reason,
    Report,
    Rule,
    Snapshot,
    Verdict,
)

HOSTILE = "a|b`c`\x1b[31m\r\n::error::100%<script>alert(1)</script>&\"'>\u202e\x00\ufffe]]>é"
RULE = Rule("error", "app/runs.toml", 12, "error")
KINDS = ("field", "missing", "extra", "doubled", "duplicate", "gone")
TAKEN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def whole() -> Report:
    """A report with something in each of its parts."""
    forgiven = [Forgiven("longer than 100 characters, shortened", RULE, 5), Forgiven("legacy column owner", None, 7)]
    self_test = SelfTest(100, [Injection("one microsecond", "created_at", 1, 1), Injection("missing", None, 1, 0)])
    comparison = Comparison(
        "app/runs", "app/runs.toml", "d" * 64, 1, "done", '"public"."executions"', '"public"."runs"',
        Verdict.DIFFERENT, [Reason("missing", "Legacy rows that are neither on the target nor in quarantine: 1.")],
        counts=Counts(10, 9, 1, 6, 2, 1, 0, 1, 0, 1, 0),
        equations=[Equation("source", {"source rows": 10}, {"matching": 6, "differing": 2, "missing": 1, "held": 1}),
                   Equation("checkpoints", {"moved": 8}, {"target rows": 9})],
        quarantine=[Quarantined("unknown_value", 1, 2)],
        links=[Links("parent_run_id", 1, 2, 3, 0)],
        fields=[FieldCount("error", RULE, 2), FieldCount("metadata.*", None, 1)],
        differences_total=9,
        differences=[
            Difference("field", "k1", "k1", "error", "text", HOSTILE, None, RULE),
            Difference("field", "k3", "k3", "error", "text", None, "x", RULE, "refused by the rule", explained=True),
            Difference("missing", "k2", "k2"),
            Difference("extra", None, "k9"),
        ],
        not_compared=["executions.owner (dropped: nobody reads it)"],
        method=Method("join", "both tables are on one server and fit in its memory."),
        scope=Scope(sample=0.01, since=TAKEN, keys=("k1",)),
        forgiven=forgiven,
        self_test=self_test,
        path="/srv/app/mappings/app/runs.toml",
        picture=Picture(
            "time", "created_at",
            [Slice("2026-11-01 00:00:00+00", 4, differing=2), Slice("2026-11-02 00:00:00+00", 5, missing=1, extra=1)],
            Slice(None, 1, quarantined=1), 0,
        ),
    )  # fmt: skip
    example = HistoryExample("k1", "l1", "completed before it was started", "started, completed", "completed, started")
    check = HistoryCheck("order", "Events under one timestamp keep their order.", 3, 1, [example])
    histories = Histories("app/runs", "app/events", Verdict.DIFFERENT, 9, [check], [Reason("order", "Runs: 2.")])
    return Report(
        Verdict.DIFFERENT, [], snapshot(), [comparison], scope.EQUALITY, scope.NOT_CHECKED, scope.EVENTS, "0",
        histories=[histories],
    )  # fmt: skip


def snapshot() -> Snapshot:
    return Snapshot("1:1:", "0/1", standby=False, database="d", server_version="18.0", taken_at=TAKEN)


_texts = st.one_of(
    st.text(max_size=30), st.sampled_from([HOSTILE, "", "|", "`", "\\", "::", "\n\n# x", "=HYPERLINK()"])
)
_numbers = st.integers(0, 2**62)
_verdicts = st.sampled_from(Verdict)
_maybe = st.none() | _texts
_reasons = st.lists(st.builds(Reason, _texts, _texts), max_size=2)
_rules = st.none() | st.builds(Rule, _texts, _texts, st.none() | st.integers(1, 999), _maybe)
_differences = st.builds(
    Difference, st.sampled_from(KINDS), _texts, _maybe, _maybe, st.sampled_from([None, "text", "jsonb"]),
    _maybe, _maybe, _rules, _maybe, st.booleans(),
)  # fmt: skip
_sides = st.dictionaries(_texts, _numbers, min_size=1, max_size=3)
_slices = st.builds(Slice, _maybe, *[_numbers] * 6)
_pictures = st.builds(
    Picture, st.sampled_from(["time", "key"]), _texts, st.lists(_slices, max_size=4), _slices, _numbers
)
_scopes = st.builds(
    Scope, st.none() | st.floats(0, 1), st.none() | st.datetimes(timezones=st.just(UTC)),
    st.none() | st.lists(_texts, max_size=2).map(tuple),
)  # fmt: skip
_injections = st.builds(Injection, _texts, _maybe, _numbers, _numbers, _numbers)
_self_tests = st.builds(
    SelfTest, _numbers, st.lists(_injections, max_size=3), st.none() | st.builds(Reason, _texts, _texts)
)
_compared = st.builds(
    Comparison, _texts, _maybe, _maybe, st.none() | _numbers, _maybe, _maybe, _maybe, _verdicts,
    st.lists(st.builds(Reason, _texts, _texts), min_size=1, max_size=2),
    counts=st.none() | st.builds(Counts, *[_numbers] * 12),
    equations=st.lists(st.builds(Equation, _texts, _sides, _sides), max_size=2),
    quarantine=st.lists(st.builds(Quarantined, _texts, _numbers, _numbers), max_size=2),
    links=st.lists(st.builds(Links, _texts, *[_numbers] * 4), max_size=1),
    fields=st.lists(st.builds(FieldCount, _texts, _rules, _numbers), max_size=12),
    differences_total=_numbers,
    differences=st.lists(_differences, max_size=4),
    not_compared=st.lists(_texts, max_size=2),
    method=st.none() | st.builds(Method, _texts, _texts),
    scope=_scopes,
    forgiven=st.lists(st.builds(Forgiven, _texts, _rules, _numbers), max_size=2),
    self_test=st.none() | _self_tests,
    path=st.sampled_from([None, "/srv/app/mappings/app/runs.toml", "/srv/a b/100%/ü#?.toml"]),
    picture=st.none() | _pictures,
)  # fmt: skip
_examples = st.builds(HistoryExample, _texts, _maybe, _texts, _maybe, _maybe)
_checks = st.builds(HistoryCheck, _texts, _texts, _numbers, _numbers, st.lists(_examples, max_size=2))
_histories = st.builds(Histories, _texts, _maybe, _verdicts, _numbers, st.lists(_checks, max_size=2), _reasons)
_snapshots = st.builds(
    Snapshot, _texts, _maybe, standby=st.booleans(), database=_texts, server_version=_texts,
    taken_at=st.datetimes(timezones=st.just(UTC)),
)  # fmt: skip

reports = st.builds(
    Report, _verdicts, _reasons, _snapshots, st.lists(_compared, max_size=2), _texts, st.lists(_texts, max_size=2),
    _texts, _texts, mode=st.sampled_from(Equality), source_snapshot=st.none() | _snapshots,
    histories=st.lists(_histories, max_size=2),
)  # fmt: skip
"""Any report, also such as no comparison would give: a rendering must come through whatever the values are."""


def for_any_report(test: Callable[[Report], None]) -> Callable[[], None]:
    """``test`` with whatever hypothesis makes; a slow machine is no failure."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(deadline=None, max_examples=60, suppress_health_check=slow)(given(reports)(test))
