"""Modes of old tasks: how one is written, whom a canary takes, and which source decides."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.errors import ConfigurationError
from spine_shims.mode_sources import by_environment, by_file
from spine_shims.modes import DISPATCH, LEGACY, SHADOW, Kind, Mode, Modes, Side
from spine_shims.tables import Tables
from tests.clocks import Clock

PERCENTS = st.decimals(0, 100, places=4) | st.integers(0, 100).map(Decimal)
MODES = st.sampled_from([LEGACY, DISPATCH, SHADOW]) | st.builds(lambda n: Mode.parse(f"canary={n:f}%"), PERCENTS)
#: Nobody listens there.
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


@given(MODES)
def test_a_mode_is_written_as_it_is_read(mode: Mode) -> None:
    assert Mode.parse(str(mode)) == mode
    assert str(Mode.parse(f"  {mode} ")) == str(mode)


@pytest.mark.parametrize(
    ("text", "percent"), [("canary=10%", "10"), ("canary=0.50%", "0.5"), ("canary=007%", "7"), ("canary=100%", "100")]
)
def test_a_canary_has_its_percentage(text: str, percent: str) -> None:
    mode = Mode.parse(text)
    assert (mode.kind, mode.percent, str(mode)) == (Kind.CANARY, Decimal(percent), f"canary={percent}%")


@pytest.mark.parametrize(
    "text",
    ["", "legcy", "Legacy", "canary", "canary=", "canary=%", "canary=10", "canary=101%", "canary=100.1%", "canary=-1%",
     "canary=1e1%", "canary=.5%", "canary=٣%", "canary=NaN%", "canary=1%%", "dispatch=10%", "legacy dispatch"],
)  # fmt: skip
def test_what_is_no_mode_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Mode.parse(text)
    assert refused.value.sentence == (
        f"{text!r} is no mode of a task; it is legacy, dispatch, shadow or canary=N%, with N from 0 to 100."
    )


@given(st.text(), MODES)
def test_the_side_of_a_call_is_that_of_its_id(task_id: str, mode: Mode) -> None:
    """On every machine and in every process: what is asked again is not asked of chance."""
    assert mode.side(task_id) is Mode.parse(str(mode)).side(task_id)


@given(st.text(), PERCENTS, PERCENTS)
def test_who_is_dispatched_stays_so_when_a_canary_grows(task_id: str, one: Decimal, other: Decimal) -> None:
    small, large = (Mode(Kind.CANARY, percent) for percent in sorted((one, other)))
    assert small.side(task_id) is Side.LEGACY or large.side(task_id) is Side.DISPATCH


@given(st.text())
def test_the_ends_of_a_canary(task_id: str) -> None:
    assert Mode.parse("canary=0%").side(task_id) is Side.LEGACY
    assert Mode.parse("canary=100%").side(task_id) is Side.DISPATCH


@pytest.mark.parametrize("percent", [1, 10, 37.5, 90])
def test_a_canary_takes_about_its_percentage(percent: float) -> None:
    """Within five standard deviations; the ids are always the same."""
    mode, calls = Mode.parse(f"canary={percent}%"), 20_000
    taken = Counter(mode.side(f"{number:08x}-0000-4000-8000-000000000000") for number in range(calls))
    share = percent / 100
    assert abs(taken[Side.DISPATCH] - calls * share) < 5 * (calls * share * (1 - share)) ** 0.5


def test_the_other_modes_have_one_side() -> None:
    assert [mode.side("x") for mode in (LEGACY, DISPATCH, SHADOW)] == [Side.LEGACY, Side.DISPATCH, Side.SHADOW]


@pytest.mark.parametrize(
    ("text", "modes"),
    [
        ("", {}),
        (" ; ", {}),
        ("legacy", {"*": "legacy"}),
        ("canary=10%", {"*": "canary=10%"}),
        ("*=shadow", {"*": "shadow"}),
        ("shop.tasks.bill=canary=2.5%", {"shop.tasks.bill": "canary=2.5%"}),
        ("shop.tasks.bill = dispatch ; legacy;", {"shop.tasks.bill": "dispatch", "*": "legacy"}),
        ("canary=legacy", {"canary": "legacy"}),
        ("canary=canary=10%", {"canary": "canary=10%"}),
    ],
)
def test_the_environment(text: str, modes: dict[str, str]) -> None:
    assert {task: str(mode) for task, mode in by_environment(text, Mode.parse).items()} == modes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("legcy", "SPINE_SHIM_MODE: 'legcy' is no mode"),
        ("a=b", "SPINE_SHIM_MODE: 'b' is no mode"),
        ("=legacy", "SPINE_SHIM_MODE names no task"),
        ("a=legacy;a=dispatch", "SPINE_SHIM_MODE names a twice"),
        ("legacy;dispatch", "SPINE_SHIM_MODE names * twice"),
    ],
)
def test_a_wrong_environment_is_told_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        by_environment(text, Mode.parse)
    assert sentence in refused.value.sentence


def test_a_file_has_names_with_and_without_quotes(tmp_path: Path) -> None:
    file = tmp_path / "modes.toml"
    file.write_text('[modes]\n"*" = "legacy"\n"shop.bill" = "dispatch"\nshop.tasks.send = "canary=10%"\n')
    modes = by_file(file, Mode.parse)
    assert {task: str(mode) for task, mode in modes.items()} == {
        "*": "legacy",
        "shop.bill": "dispatch",
        "shop.tasks.send": "canary=10%",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[modes", "is not TOML"),
        ("\x00", "is not TOML"),
        ('mode = "legacy"', "modes stand in a table [modes]"),
        ('modes = "legacy"', "modes stand in a table [modes]"),
        ("[modes]\na = 1", "a has no text for its mode"),
        ('[modes]\na = "legcy"', "a: 'legcy' is no mode"),
        ('[modes]\na.b = "legacy"\n"a.b" = "dispatch"', "a.b stands twice"),
    ],
)
def test_a_wrong_file_is_told_with_its_path(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "modes.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        by_file(file, Mode.parse)
    assert refused.value.sentence.startswith(str(file))
    assert sentence in refused.value.sentence


def test_the_environment_comes_before_the_file_and_a_name_before_the_star(tmp_path: Path) -> None:
    file = tmp_path / "modes.toml"
    file.write_text('[modes]\na = "shadow"\nb = "shadow"\n')
    environment = {"SPINE_SHIM_MODE": "a=dispatch", "SPINE_SHIM_MODES_FILE": str(file)}
    clock = Clock()
    modes = Modes(environment=environment, default=LEGACY, clock=clock)
    assert [modes.mode(task) for task in "abc"] == [DISPATCH, SHADOW, LEGACY]
    assert modes.mode("c", SHADOW) is SHADOW

    environment["SPINE_SHIM_MODE"] = "canary=5%;a=dispatch"
    assert modes.mode("b") == SHADOW, "kept for seconds"
    clock.now += 5
    assert [str(modes.mode(task)) for task in "abc"] == ["dispatch", "canary=5%", "canary=5%"]


def test_what_cannot_be_read_goes_on_as_it_was_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "spine_shims.modes")
    file, clock = tmp_path / "modes.toml", Clock()
    file.write_text('[modes]\na = "shadow"')
    modes = Modes(file=file, environment={}, clock=clock)
    assert modes.mode("a") is not DISPATCH
    for broken in ("[modes", "[modes"):
        file.write_text(broken)
        clock.now += 5
        assert modes.mode("a") == SHADOW
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    file.unlink()
    clock.now += 5
    assert modes.mode("a") == SHADOW
    assert "cannot be read" in caplog.records[-1].getMessage()
    file.write_text("")
    clock.now += 5
    assert modes.mode("a") == DISPATCH
    assert caplog.records[-1].getMessage() == "Modes of tasks are read from the file again."


def test_a_source_that_never_was_understood_counts_as_empty(caplog: pytest.LogCaptureFixture) -> None:
    modes = Modes(environment={"SPINE_SHIM_MODE": "legcy"}, default=SHADOW)
    assert modes.mode("a") == SHADOW
    assert len(caplog.records) == 1


def test_the_kill_switch_asks_no_database() -> None:
    """One that is never asked cannot be down."""
    asked: list[str] = []

    def connect() -> psycopg.Connection[Any]:
        asked.append(threading.current_thread().name)
        raise psycopg.OperationalError("it is down")

    modes = Modes(Tables(connect), environment={"SPINE_SHIM_MODE": "legacy"}, first_wait_seconds=60)
    assert modes.mode("a") == LEGACY
    assert asked == []
    assert not modes.workers_ready("a")
    assert asked == ["spine-shim-modes"]


def test_without_a_database_the_default_counts(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    modes = Modes(Tables.at(NOWHERE), environment={}, clock=clock, default=LEGACY)
    assert modes.mode("a") == LEGACY
    assert not modes.workers_ready("a")
    clock.now += 60
    modes.refresh()
    (told,) = caplog.records
    assert "The tables of the shims cannot be used" in told.getMessage()


def test_a_caller_waits_for_a_database_that_hangs_only_once(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    asked, answered = threading.Event(), threading.Event()

    def connect() -> psycopg.Connection[Any]:
        asked.set()
        assert answered.wait(60)
        raise psycopg.OperationalError("it hung")

    modes = Modes(Tables(connect), environment={}, default=LEGACY, first_wait_seconds=0.01)
    assert [modes.mode("a") for _ in range(3)] == [LEGACY] * 3
    assert asked.wait(60)
    assert not answered.is_set()
    (thread,) = [one for one in set(threading.enumerate()) - before if one.name == "spine-shim-modes"]
    answered.set()
    thread.join(60)
    assert "it hung" in caplog.text
