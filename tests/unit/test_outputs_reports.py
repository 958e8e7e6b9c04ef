"""The reports on backends: all of it in JSON, JUnit that is never green for nothing, nothing that harms a terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from xmlschema import XMLSchema10

from spine_migrate.parity.model import Verdict
from spine_migrate.parity.outputs.json_path import Pattern
from spine_migrate.parity.outputs.model import Outputs
from spine_migrate.parity.outputs.rules import Rule, Rules
from spine_migrate.report import outputs_json, outputs_junit, outputs_markdown
from tests.closed_schema import closed_schema
from tests.outputs import OPTIONS, late, of, ran, text


@pytest.fixture
def several() -> Outputs:
    rules = Rules(
        None,
        (Rule(Pattern.parse("$.at"), 2, ignore=True, because="a time"), Rule(Pattern.parse("$.x"), 5, ignore=True)),
    )
    return of(
        replace(OPTIONS, rules=rules, repeat=2),
        memory=[ran({"at": 1, "n": 1, "z": "<|>"}), ran({"at": 2, "n": 2, "z": "<|>"})],
        local=[ran({"at": 3, "n": 3, "z": "<|>\x1b[31m"}), ran({"at": 4, "n": 4})],
        celery=[late()],
    )


def test_rules_are_counted_and_those_that_forgive_nothing_are_told(several: Outputs) -> None:
    assert [(one.rule.pattern.text, one.forgiven) for one in several.rules] == [("$.at", 4), ("$.x", 0)]
    shown = text(several)
    assert "$.at: 4 differences forgiven (a time)" in shown
    assert "$.x: not used" in shown
    assert "\x1b" not in shown


def test_the_json_report_has_it_all(several: Outputs) -> None:
    document = json.loads(outputs_json.render(several))
    assert set(document) == {
        "format", "tool_version", "verdict", "reasons", "kind", "name", "repeat", "dry_run", "backends", "noise",
        "rules", "not_checked",
    }  # fmt: skip
    assert (document["format"], document["verdict"], document["name"]) == (1, "different", "ingest_otc")
    memory, local, celery = document["backends"]
    assert local["differences"] == [
        {"path": "$.z", "kind": "changed", "old": "<|>", "new": "<|>\x1b[31m", "times": 2, "unsteady": True},
    ]
    assert local["seconds"] == {"median": 1.0, "least": 1.0, "most": 1.0, "overhead": 0.0, "until_begun": 0.25}
    assert memory["noisy"] == ["$.n"]
    assert (celery["verdict"], celery["seconds"]["median"], celery["reasons"][0]["code"]) == (
        "could not tell",
        None,
        "timeout",
    )
    assert document["noise"] == [{"path": "$.n", "paths": 1, "masked": 2}]


def test_the_junit_report_passes_nothing_that_was_not_compared(several: Outputs) -> None:
    suites = ET.fromstring(outputs_junit.render(several))  # noqa: S314 - our own
    told = {(suite.get("name"), case.get("name")): [part.tag for part in case] for suite in suites for case in suite}
    assert told == {
        ("pipeline ingest_otc on memory", "comparable"): [],
        ("pipeline ingest_otc on local", "comparable"): [],
        ("pipeline ingest_otc on local", "result"): ["failure"],
        ("pipeline ingest_otc on local", "events"): [],
        ("pipeline ingest_otc on celery", "comparable"): ["error"],
    }
    assert [suite.get("failures") for suite in suites] == ["0", "1", "0"]
    assert [suite.get("errors") for suite in suites] == ["0", "0", "1"]
    (failure,) = suites.iter("failure")
    assert failure.text == '$.z | "<|>" | "<|>\\u001b[31m"'


def test_the_markdown_report_is_a_table(several: Outputs) -> None:
    shown = outputs_markdown.render(several)
    assert "## pipeline ingest\\_otc: different" in shown
    assert "| Backend | Duration | Status | Notes |\n|---|---|---|---|\n| memory |" in shown
    assert '| local | \\$.z | "\\<\\|\\>" | "\\<\\|\\>\\\\u001b\\[31m" | 2 of 2, not steady here |' in shown
    assert "- rule None:5 \\$.x: not used" in shown


_TEXTS = st.text(max_size=5) | st.sampled_from(["<|>&", "\x1b[31m", "`", "]]>", "$.x"])
_RESULTS = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
_RUN = st.one_of(
    st.builds(ran, _RESULTS, took=st.floats(0, 100)),
    st.builds(lambda: ran(None, status="failed")),
    st.builds(late),
)
_RUNS = st.lists(_RUN, min_size=1, max_size=3)
_RULES = st.lists(
    st.builds(
        Rule,
        st.sampled_from(["$", "$.*", "$..x"]).map(Pattern.parse),
        line=st.none() | st.integers(1, 9),
        ignore=st.sampled_from([True]),
    ),
    max_size=2,
).map(lambda rules: Rules(Path("rules.toml"), tuple(rules)))
_OUTPUTS = st.builds(
    lambda rules, **backends: of(replace(OPTIONS, rules=rules), **backends),
    _RULES,
    memory=_RUNS,
    local=_RUNS,
    celery=_RUNS,
)


_JSON_SCHEMA = json.loads(outputs_json.schema())
_VALIDATOR = Draft202012Validator(closed_schema(_JSON_SCHEMA))
_JUNIT_SCHEMA = XMLSchema10(str(Path(__file__).parents[1] / "schemas" / "junit.xsd"))


@given(_OUTPUTS)
def test_whatever_was_observed_each_report_keeps_its_schema(outputs: Outputs) -> None:
    _VALIDATOR.validate(json.loads(outputs_json.render(outputs)))
    _JUNIT_SCHEMA.validate(outputs_junit.render(outputs))
    for shown in (text(outputs), outputs_markdown.render(outputs), outputs_junit.render(outputs)):
        assert all(letter.isprintable() or letter == "\n" for letter in shown)


@given(_OUTPUTS)
def test_what_is_not_equal_is_never_green(outputs: Outputs) -> None:
    root = ET.fromstring(outputs_junit.render(outputs))  # noqa: S314 - our own
    failures, errors = int(root.attrib["failures"]), int(root.attrib["errors"])
    assert (failures > 0) == any(one.differences for one in outputs.backends)
    assert (outputs.verdict is Verdict.DIFFERENT) == (failures > 0)
    if outputs.verdict is Verdict.UNKNOWN:
        assert errors > 0
    if outputs.verdict is Verdict.EQUAL:
        assert (failures, errors) == (0, 0)


def test_the_schema_refuses_what_is_not_as_it_says(several: Outputs) -> None:
    Draft202012Validator.check_schema(_JSON_SCHEMA)
    document = outputs_json.document(several)
    assert _JSON_SCHEMA["properties"]["format"] == {"const": outputs_json.FORMAT}
    wrong: list[dict[str, Any]] = [{"format": 2}, {"verdict": "fine"}, {"surprise": 1}, {"noise": 1}, {"backends": []}]
    for broken in wrong:
        assert not _VALIDATOR.is_valid({**document, **broken}), broken
