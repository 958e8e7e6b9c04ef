"""What no ledger could store is refused before any ledger is asked, with the field's name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spine_migrate.execution import InvalidSpecError, RunRecord, task_spec
from spine_migrate.execution.invariants import LARGEST_INTEGER, checked, json_object


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "n" * 101),
        ("name", "half \ud800"),
        ("lane", "nul \0"),
        ("idempotency_key", 7),
        ("params", {"deep": ["nul \0"]}),
        ("params", {"half \udfff": 1}),
        ("params", {"nan": float("nan")}),
        ("metadata", {"set": {1}}),
        ("metadata", ["no object"]),
        ("max_retries", LARGEST_INTEGER + 1),
        ("max_retries", -1),
        ("max_retries", True),
        ("retry_delay_seconds", float("nan")),
        ("priority", "urgent"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidSpecError) as raised:
        checked(RunRecord(replace(task_spec("x"), **{field: value})))
    assert raised.value.field == field
    assert field in raised.value.sentence


@pytest.mark.parametrize(
    "value",
    [{"path": "C:\\u0000"}, {"path": "\\\\u0000"}, {"text": "\u2028 \U0001f600"}, {"number": 10**400}],
)
def test_what_only_looks_like_it_is_taken(value: dict[str, Any]) -> None:
    json_object("params", value)


def test_a_nul_after_a_backslash_is_one() -> None:
    with pytest.raises(InvalidSpecError):
        json_object("params", {"path": "C:\\\0"})


def test_too_deep_for_json_is_refused() -> None:
    with pytest.raises(InvalidSpecError):
        json_object("params", _deep())


def _deep() -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"in": value}
    return value
