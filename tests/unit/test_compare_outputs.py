"""What observations of backends come to: differences, noise, and what cannot be told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spine_migrate.parity.model import Verdict
from spine_migrate.parity.outputs.compare import compare
from spine_migrate.parity.outputs.json_path import Pattern
from spine_migrate.parity.outputs.observation import Observation
from spine_migrate.parity.outputs.rules import Rule, Rules
from spine_migrate.report import outputs_markdown
from spine_migrate.report.outputs_wording import seconds
from tests.outputs import OPTIONS, late, of, paths, ran, text


def test_equal() -> None:
    outputs = of(memory=[ran({"a": 1})], celery=[ran({"a": 1}, took=1.5)])
    assert outputs.verdict is Verdict.EQUAL
    head, memory, celery = (line.split() for line in text(outputs).splitlines()[:3])
    assert head == ["Backend", "Duration", "Status", "Notes"]
    assert memory == ["memory", "1s", "completed", "baseline"]
    assert " ".join(celery) == (
        "celery 1.5s completed +500ms (+50%); 250ms until a worker began; result equal; events equal"
    )


def test_a_result_that_differs_and_events_that_do() -> None:
    outputs = of(
        memory=[ran({"a": [1, 2]})],
        celery=[ran({"a": [1, 3], "b": 1}, events=("created", "started", "progress", "completed"))],
    )
    assert outputs.verdict is Verdict.DIFFERENT
    assert paths(outputs, "celery") == ["$.a[1]", "$.b", "events[2].type", "events[3]"]
    shown = text(outputs)
    assert "result differs at $.a[1] and 1 more; events differ at events[2].type and 1 more" in shown
    assert "Different: celery from memory." in shown


def test_the_baseline_against_itself_is_noise() -> None:
    """And masks that place, and what is in it, of the others; not another one."""
    outputs = of(
        memory=[ran({"at": 1, "rows": [{"id": 1}, {"id": 2}]}), ran({"at": 2, "rows": [{"id": 3}, {"id": 4}]})],
        celery=[
            ran({"at": 3, "rows": [{"id": 5}, {"id": 6}]}),
            ran({"at": {"deep": 1}, "rows": [{"id": 7}, {"id": 8}], "n": 1}),
        ],
    )
    assert outputs.noise is not None
    assert [(one.path, one.paths, one.masked) for one in outputs.noise] == [("$.at", 1, 2), ("$.rows[*].id", 2, 4)]
    assert paths(outputs, "celery") == ["$.n"]
    assert outputs.backends[1].differences[0].times == 1
    assert "noise at $.rows[*].id: the baseline differs from itself at 2 places, which explains 4 differences" in text(
        outputs
    )


def test_an_item_that_is_no_noise_is_a_difference() -> None:
    outputs = of(memory=[ran([1, 2]), ran([1, 3])], celery=[ran([9, 9])])
    assert paths(outputs, "celery") == ["$[0]"]


def test_what_is_not_steady_on_one_backend_alone_is_a_difference() -> None:
    """It may be a race that the backend brings; the baseline gives the same every time."""
    outputs = of(memory=[ran({"n": 1}), ran({"n": 1})], celery=[ran({"n": 1}), ran({"n": 2})])
    (found,) = outputs.backends[1].differences
    assert (found.path, found.times, found.unsteady) == ("$.n", 1, True)
    assert "1 of 2, not steady here" in text(outputs)
    assert outputs.noise == ()


def test_one_run_looks_for_no_noise() -> None:
    outputs = of(memory=[ran(1)], local=[ran(1)])
    assert outputs.noise is None
    assert "--repeat 2 or more" in text(outputs)


def test_a_baseline_that_fails_proves_nothing_unless_it_is_meant_to() -> None:
    fails = ran(None, status="failed")
    refused = of(memory=[fails], local=[fails])
    assert (refused.verdict, [reason.code for reason in refused.reasons]) == (Verdict.UNKNOWN, ["baseline-failed"])
    assert of(memory=[fails], local=[ran(1)]).verdict is Verdict.DIFFERENT
    meant = of(replace(OPTIONS, accept_failure=True), memory=[fails], local=[fails])
    assert meant.verdict is Verdict.EQUAL
    assert "Equal: local fail as memory does." in text(meant)


def test_a_baseline_that_ends_differently_is_no_reference() -> None:
    outputs = of(memory=[ran(1), ran(None, status="failed")], local=[ran(1), ran(2)])
    assert (outputs.verdict, [reason.code for reason in outputs.reasons]) == (Verdict.UNKNOWN, ["baseline-unsteady"])
    assert paths(outputs, "local") == []


def test_results_that_have_nothing_in_common_are_no_reference() -> None:
    """Every difference of the others would be noise; a rule says that it is meant."""
    outputs = of(memory=[ran("a"), ran("b")], local=[ran("c"), ran("d")])
    assert (outputs.verdict, [reason.code for reason in outputs.reasons]) == (Verdict.UNKNOWN, ["result-noise"])
    ignored = Rules(None, (Rule(Pattern.parse("$"), ignore=True),))
    assert of(replace(OPTIONS, rules=ignored), memory=[ran("a"), ran("b")], local=[ran("c")]).verdict is Verdict.EQUAL


def test_a_run_that_does_not_end() -> None:
    """Is never equal; what differs besides is certain."""
    outputs = of(memory=[ran(1)], local=[ran(1)], celery=[late()])
    assert outputs.verdict is Verdict.UNKNOWN
    assert [reason.sentence for reason in outputs.reasons] == ["No worker has taken the run."]
    assert "timed out" in text(outputs)
    assert of(memory=[ran(1)], local=[ran(2)], celery=[late()]).verdict is Verdict.DIFFERENT
    assert of(memory=[ran(1), ran(1)], celery=[ran(1), late()]).verdict is Verdict.UNKNOWN


def test_what_did_not_end_is_not_tried_again() -> None:
    class Backend:
        def __init__(self, name: str, *ends: Observation) -> None:
            self.name = name
            self._ends = iter(ends)

        def observe(self) -> Observation:
            return next(self._ends)

    options = replace(OPTIONS, repeat=3)
    outputs = compare([Backend("memory", ran(1), ran(1), ran(1)), Backend("celery", late())], options)
    assert [len(one.observations) for one in outputs.backends] == [3, 1]
    outputs = compare([Backend("memory", late()), Backend("celery")], options)
    assert [reason.code for reason in outputs.reasons] == ["timeout", "not-executed"]


def test_an_old_body_has_no_events() -> None:
    old = ran({"n": 1})
    body = replace(old, documents={key: old.documents[key] for key in ("$", "status", "error_type", "error")})
    outputs = of(legacy=[body], memory=[ran({"n": 1}, events=("started",))])
    assert outputs.verdict is Verdict.EQUAL
    assert "result equal; events not compared" in text(outputs)


def test_thousands_of_differences_are_listed_in_part() -> None:
    outputs = of(memory=[ran([*range(3000)])], local=[ran([*range(1, 3001)])])
    assert len(outputs.backends[1].differences) == 3000
    assert "listed differences: 40 of 3000" in text(outputs)
    assert len(outputs_markdown.render(outputs).encode()) < 1_000_000


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (45.12, "45.1s"),
        (0.0301, "30.1ms"),
        (2e-6, "2us"),
        (0.0, "0us"),
        (4000.0, "4,000s"),
        (1.0, "1s"),
        (0.9999, "1s"),
        (999.9, "1,000s"),
    ],
)
def test_durations(given: float, shown: str) -> None:
    assert seconds(given) == shown
