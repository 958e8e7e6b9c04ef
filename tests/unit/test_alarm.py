"""The alarm wakes those whose time has come, and forgets those who are over before."""

from __future__ import annotations

import gc
import queue
import subprocess
import sys
import threading
import time
import weakref

import pytest

from spine_migrate.execution import alarm
from spine_migrate.execution.alarm import Alarm

#: Seconds after which what does not happen has failed.
LONGEST = 30


class Sleeper:
    def __init__(self, woken: queue.SimpleQueue[str], name: str, faults: int = 0) -> None:
        self._woken, self._name, self._faults = woken, name, faults
        self.over = False

    def wake(self) -> None:
        if self._faults:
            self._faults -= 1
            raise RuntimeError("can't start new thread")
        self._woken.put(self._name)


@pytest.fixture
def woken() -> queue.SimpleQueue[str]:
    return queue.SimpleQueue()


def test_they_are_woken_in_the_order_of_their_times(woken: queue.SimpleQueue[str]) -> None:
    ring, now = Alarm(), time.monotonic()
    sleepers = [Sleeper(woken, name) for name in ("late", "soon", "now")]
    with ring._changed:  # noqa: SLF001 - nobody is woken before all are set
        for sleeper, after in zip(sleepers, (1.2, 1.1, 1.0), strict=True):
            ring.set(now + after, sleeper)
    assert [woken.get(timeout=LONGEST) for _ in sleepers] == ["now", "soon", "late"]
    assert time.monotonic() >= now + 1.2


def test_who_is_over_or_gone_is_not_woken(woken: queue.SimpleQueue[str]) -> None:
    ring, now = Alarm(), time.monotonic()
    over, gone, last = (Sleeper(woken, name) for name in ("over", "gone", "last"))
    with ring._changed:  # noqa: SLF001 - nobody is woken before it is seen who is there
        for sleeper in (over, gone, last):
            ring.set(now + 1.0, sleeper)
        over.over = True
        still = weakref.ref(gone)
        del gone, sleeper
        gc.collect()
        assert still() is None
    assert woken.get(timeout=LONGEST) == "last"
    assert woken.empty()


def test_who_is_over_costs_no_wake_up(woken: queue.SimpleQueue[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ring, now = Alarm(), time.monotonic()
    looks = 0
    first = Alarm._first  # noqa: SLF001 - how often the thread looks is what this is about

    def counted(self: Alarm) -> alarm.Sleeper | None:
        nonlocal looks
        looks += 1
        return first(self)

    monkeypatch.setattr(Alarm, "_first", counted)
    first_of_all, last = Sleeper(woken, "first"), Sleeper(woken, "last")
    with ring._changed:  # noqa: SLF001 - nobody is woken before all are set
        ring.set(now + 1.0, first_of_all)
        kept = [Sleeper(woken, str(number)) for number in range(500)]
        for number, sleeper in enumerate(kept):
            sleeper.over = True
            ring.set(now + 1.0 + number / 10_000, sleeper)
        ring.set(now + 1.2, last)
    assert [woken.get(timeout=LONGEST) for _ in range(2)] == ["first", "last"]
    assert looks < 10


def test_who_could_not_be_woken_is_tried_again(
    woken: queue.SimpleQueue[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alarm, "_AGAIN", 0.01)
    ring, sleeper, other = Alarm(), Sleeper(woken, "at last", faults=2), Sleeper(woken, "other")
    ring.set(time.monotonic(), sleeper)
    assert woken.get(timeout=LONGEST) == "at last"
    ring.set(time.monotonic(), other)
    assert woken.get(timeout=LONGEST) == "other"
    assert "can't start new thread" in caplog.text


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_who_sleeps_for_ever_does_not_end_it(woken: queue.SimpleQueue[str]) -> None:
    ring, long, short = Alarm(), Sleeper(woken, "long"), Sleeper(woken, "short")
    ring.set(time.monotonic() + 1e10, long)
    time.sleep(0.1)  # it is looked at by now
    ring.set(time.monotonic(), short)
    assert woken.get(timeout=LONGEST) == "short"


def test_it_has_a_thread_only_while_somebody_sleeps(woken: queue.SimpleQueue[str]) -> None:
    ring = Alarm()
    for name in ("first", "second"):
        before = threading.active_count()
        sleeper = Sleeper(woken, name)
        ring.set(time.monotonic(), sleeper)
        assert woken.get(timeout=LONGEST) == name
        end = time.monotonic() + LONGEST
        while threading.active_count() > before:
            assert time.monotonic() < end
            time.sleep(0.01)


_FORKS = """
import os, sys, threading, time
from spine_migrate.execution.alarm import set_alarm

class Sleeper:
    over = False
    def __init__(self):
        self.woken = threading.Event()
    def wake(self):
        self.woken.set()

def rings():
    sleeper = Sleeper()
    set_alarm(time.monotonic(), sleeper)
    return sleeper.woken.wait(30)

assert rings()
child = os.fork()
if child == 0:
    os._exit(0 if rings() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not rings())
"""


def test_a_child_has_an_alarm_of_its_own() -> None:
    """In a process of its own: Python 3.12 and later warn of a fork beside threads, as Celery's workers do it."""
    subprocess.run([sys.executable, "-c", _FORKS], check=True, timeout=90)
