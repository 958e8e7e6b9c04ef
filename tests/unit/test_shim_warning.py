"""The warning at the caller's line, and the error after the removal."""

from __future__ import annotations

import pickle
import warnings
from datetime import date, datetime

import pytest

from spine_migrate.errors import ConfigurationError, SpineMigrateError
from spine_migrate.execution.errors import OrchestrationError
from spine_shims.caller import CallSite
from spine_shims.warning import (
    ALLOW_REMOVED_UNTIL,
    Deprecations,
    DispatchDeprecationWarning,
    ShimRemoved,
    allowed_until,
    removal_date,
)

LAST = date(2026, 12, 31)
HERE = CallSite("shop/views.py", 7, "pay", "/srv/shop/views.py", "shop.views")
THERE = HERE._replace(line=9)


def _on(day: str, **environment: str) -> Deprecations:
    return Deprecations(today=lambda: date.fromisoformat(day), environment=environment)


def _warned(deprecations: Deprecations, *sites: CallSite | None, removal: date | None = LAST) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for site in sites:
            deprecations.called("shop.bill", "submit_pipeline('bill')", removal, site)
    return [f"{one.filename}:{one.lineno} {one.message}" for one in caught]


def test_it_names_the_line_the_replacement_and_the_date() -> None:
    (warned,) = _warned(_on("2026-01-01"), HERE)
    assert warned == (
        "/srv/shop/views.py:7 The task shop.bill goes through the dispatcher now; call submit_pipeline('bill') instead."
        " It works until 2026-12-31."
    )
    (undated,) = _warned(_on("2026-01-01"), HERE, removal=None)
    assert undated.endswith("instead.")


def test_once_for_each_line() -> None:
    deprecations = _on("2026-01-01")
    assert len(_warned(deprecations, HERE, HERE, THERE, HERE)) == 2
    # Another filter makes the interpreter forget whom it has warned.
    assert _warned(deprecations, HERE, THERE) == []
    assert _warned(deprecations, None) == []


def test_the_warning_has_what_a_program_wants_to_know() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _on("2026-01-01").called("shop.bill", "it", LAST, HERE)
    told = caught[0].message
    assert isinstance(told, DispatchDeprecationWarning)
    assert isinstance(told, DeprecationWarning)
    assert (told.task, told.replacement, told.removal) == ("shop.bill", "it", LAST)


def test_a_filter_by_the_callers_module_is_heeded() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"shop\.views", category=DeprecationWarning)
        _on("2026-01-01").called("shop.bill", "it", None, HERE)
        _on("2026-01-01").called("shop.bill", "it", None, HERE._replace(module="shop.api"))
    assert len(caught) == 1


def test_where_warnings_are_errors_every_call_is_one() -> None:
    deprecations = _on("2026-01-01")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(DispatchDeprecationWarning):
                deprecations.called("shop.bill", "it", None, HERE)


def test_the_last_day_is_one_on_which_it_works() -> None:
    assert len(_warned(_on("2026-12-31"), HERE)) == 1
    with pytest.raises(ShimRemoved) as refused:
        _warned(_on("2027-01-01"), HERE)
    assert str(refused.value) == (
        "The task shop.bill worked until 2026-12-31 and was called at shop/views.py:7 pay; call submit_pipeline('bill')"
        " instead (SPINE_SHIMS_ALLOW_REMOVED_UNTIL=YYYY-MM-DD in the environment lets it work until that day)."
    )
    assert isinstance(refused.value, OrchestrationError | SpineMigrateError)
    assert (refused.value.category, refused.value.retryable, refused.value.removal) == ("REMOVED", False, LAST)


def test_a_result_backend_can_carry_it() -> None:
    with pytest.raises(ShimRemoved) as refused:
        _warned(_on("2027-01-01"), HERE)
    carried = pickle.loads(pickle.dumps(refused.value))  # noqa: S301 - as a result backend does
    assert (str(carried), carried.removal) == (str(refused.value), LAST)
    assert str(ShimRemoved(*refused.value.args)) == str(refused.value)


def test_a_caller_that_is_not_known_is_refused_too() -> None:
    with pytest.raises(ShimRemoved, match="worked until 2026-12-31 and was called; call"):
        _on("2027-01-01").called("shop.bill", "it", LAST, None)


def test_without_a_date_it_is_never_an_error() -> None:
    assert len(_warned(_on("2999-01-01"), HERE, removal=None)) == 1


@pytest.mark.parametrize(("day", "works"), [("2027-01-30", True), ("2027-01-31", True), ("2027-02-01", False)])
def test_the_override_ends_by_itself(day: str, works: bool) -> None:  # noqa: FBT001 - a parameter of the test
    deprecations = _on(day, **{ALLOW_REMOVED_UNTIL: "2027-01-31"})
    if works:
        assert len(_warned(deprecations, HERE)) == 1
        return
    with pytest.raises(ShimRemoved, match=f"{ALLOW_REMOVED_UNTIL} allowed it until 2027-01-31"):
        _warned(deprecations, HERE)


@pytest.mark.parametrize(
    "text", ["soon", "2027-13-01", "20270131", "2027-W04-7", "2027-01-31T00:00", "31.01.2027", " "]
)
def test_an_override_that_is_no_day_allows_nothing_and_says_so(text: str) -> None:
    sentence = f"{ALLOW_REMOVED_UNTIL} is {text!r}, which is not a day such as 2026-12-31"
    with pytest.raises(ShimRemoved) as refused:
        _warned(_on("2027-01-01", **{ALLOW_REMOVED_UNTIL: text}), HERE)
    assert sentence in refused.value.sentence
    with pytest.raises(ConfigurationError) as unusable:
        allowed_until({ALLOW_REMOVED_UNTIL: text})
    assert unusable.value.sentence == f"{sentence}."
    assert len(_warned(_on("2026-12-31", **{ALLOW_REMOVED_UNTIL: text}), HERE)) == 1


def test_dates_of_removal() -> None:
    assert removal_date(None) is None
    assert removal_date("2026-12-31") == removal_date(LAST) == LAST
    assert allowed_until({}) is None
    for wrong in ("2026-12", datetime(2026, 12, 31)):  # noqa: DTZ001 - neither is a day
        with pytest.raises(ConfigurationError, match=r"^The date of a removal is .* not a day such as"):
            removal_date(wrong)
