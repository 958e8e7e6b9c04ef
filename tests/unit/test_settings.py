"""What may be set while a run is going, as a user types it and as the ledger keeps it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.carry.settings import NICE_SECONDS, SETTINGS, Change, Settings, change, overlaid
from spine_migrate.errors import ConfigurationError

_OPTIONS = Settings(batch_size=100, max_lag_bytes=5)


def test_words() -> None:
    asked = change(["batch-size=500", "rows-per-second=2.5", "max-lag-bytes=64MB", "max-wal-rate=default"])
    assert asked == Change({"batch-size": 500, "rows-per-second": 2.5, "max-lag-bytes": 64 << 20}, ["max-wal-rate"])
    assert change(["batch-size=auto", "max-lag-bytes=none"]).given == {"batch-size": None, "max-lag-bytes": None}


def test_who_is_nice_is_not_felt_for_long() -> None:
    assert Settings().batch_seconds == 1.0
    assert Settings(nice_ratio=0.5).batch_seconds == NICE_SECONDS
    assert Settings(nice_ratio=0.5, target_seconds=0.05).batch_seconds == 0.05


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1024", 1024), ("1kB", 1024), ("3 gb", 3 << 30), ("1TB", 1 << 40), ("7B", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert SETTINGS["max-lag-bytes"].parse(text) == size


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (
            "batch-size",
            "'batch-size' is no setting; write NAME=VALUE, where NAME is one of batch-size, rows",
        ),
        ("workers=3", "'workers=3' is no setting"),
        ("batch-size=many", "batch-size: 'many' is not a number of rows between 1 and 1,000,000, nor auto."),
        ("batch-size=0", "batch-size: '0'"),
        ("batch-size=none", "nor auto"),
        ("batch-size=1.5", "'1.5' is not a number of rows"),
        ("target-seconds=none", "target-seconds: 'none' is not a number of seconds between 0.05 and 600."),
        ("nice-ratio=none", "nice-ratio: 'none' is not a number between 0 and 1,000."),
        ("rows-per-second=nan", "rows-per-second"),
        ("rows-per-second=inf", "rows-per-second"),
        ("max-lag-bytes=-1", "'-1' is not a number of bytes, as 64MB or 67108864, between 0"),
        ("max-lag-bytes=64 parsecs", "64 parsecs"),
        ("max-lag-bytes=99999999TB", "max-lag-bytes"),
        ("max-lock-waits=", "max-lock-waits: ''"),
    ],
)
def test_nonsense_is_one_sentence(word: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        change([word])
    assert sentence in refused.value.sentence
    assert refused.value.sentence.endswith(".")


def test_a_name_that_is_given_twice() -> None:
    with pytest.raises(ConfigurationError, match="batch-size is given twice"):
        change(["batch-size=5", "batch-size=default"])


def test_the_ledger_goes_before_the_options() -> None:
    assert overlaid(_OPTIONS, {}) == _OPTIONS
    assert overlaid(_OPTIONS, {"max-lag-bytes": None}) == Settings(batch_size=100)
    assert overlaid(_OPTIONS, {"batch-size": 7, "target-seconds": 3}) == Settings(7, target_seconds=3, max_lag_bytes=5)


@pytest.mark.parametrize(
    "told",
    [
        {"max-temperature": 90},
        {"batch-size": "500"},
        {"batch-size": 5.0},
        {"batch-size": True},
        {"batch-size": 0},
        {"target-seconds": None},
        {"max-lag-bytes": []},
        {"rows-per-second": {"a": 1}},
    ],
)
def test_what_the_ledger_should_not_have_is_not_taken_for_no_limit(told: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        overlaid(_OPTIONS, told)


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=12))
def test_what_is_accepted_comes_back_from_the_ledger(name: str, text: str) -> None:
    """Or is refused with a sentence: nothing else comes of any text."""
    try:
        asked = change([f"{name}={text}"])
    except ConfigurationError:
        return
    kept = json.loads(json.dumps(asked.given))
    assert overlaid(_OPTIONS, kept) == overlaid(_OPTIONS, asked.given)


@given(st.sampled_from(sorted(SETTINGS)), st.integers(1, 600))
def test_numbers_are_read_as_they_are(name: str, number: int) -> None:
    assert change([f"{name}={number}"]).given == {name: number}
