"""The JSON report holds everything, and keeps the schema that ships with it."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from jsonschema import Draft202012Validator

from spine_migrate.parity.model import Report
from spine_migrate.report import parity_json
from tests.closed_schema import closed_schema
from tests.parity_reports import HOSTILE, for_any_report, whole

_SCHEMA = json.loads(parity_json.schema())
_VALIDATOR = Draft202012Validator(closed_schema(_SCHEMA), format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(_SCHEMA)
    assert _SCHEMA["properties"]["format"] == {"const": parity_json.FORMAT}


@for_any_report
def test_whatever_the_report_it_keeps_the_schema_and_every_key_is_declared(report: Report) -> None:
    text = parity_json.render(report)
    _VALIDATOR.validate(json.loads(text))
    assert text == parity_json.render(report)


def test_the_schema_refuses_what_is_not_as_it_says() -> None:
    document = parity_json.document(whole())
    for broken in ({"format": 2}, {"verdict": "fine"}, {"surprise": 1}, {"histories": None}):
        assert not _VALIDATOR.is_valid({**document, **broken}), broken
    del document["snapshot"]
    assert not _VALIDATOR.is_valid(document)


def _texts(value: Any) -> set[str]:
    """All texts and numbers inside a value, as text."""
    if is_dataclass(value):
        # Where the mapping lies on one machine is no part of the record.
        return set().union(*(_texts(getattr(value, each.name)) for each in fields(value) if each.name != "path"))
    if isinstance(value, dict):
        return set().union(*map(_texts, [*value, *value.values()]))
    if isinstance(value, list | tuple):
        return set().union(*map(_texts, value))
    return set() if value is None else {value.isoformat() if hasattr(value, "isoformat") else str(value)}


@for_any_report
def test_nothing_of_the_report_is_left_out(report: Report) -> None:
    missing = _texts(report) - _texts(json.loads(parity_json.render(report)))
    assert missing == set()


def test_values_are_whole() -> None:
    (comparison,) = json.loads(parity_json.render(whole()))["comparisons"]
    assert comparison["differences"][0]["old"] == HOSTILE
    assert [one["explained"] for one in comparison["differences"]] == [False, True, False, False]
