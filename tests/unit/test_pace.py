"""The row limit, the rate limit and the figures, with a clock of our own: no test waits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from spine_migrate.backfill.pace import LONGEST_REST, Pace, Progress
from spine_migrate.carry.rows import Done

START = Progress(
    mapping="app/rows",
    stage="backfill",
    blocks=10,
    total_blocks=100,
    rows=0,
    moved=0,
    quarantined=0,
    accounted=50,
    batches=0,
    seconds=0.0,
)


class Clock:
    """Time passes only when it is told to, or when somebody waits on ``Stop``."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Stop(threading.Event):
    """Records what it is asked to wait, and lets that time pass on the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self.clock.now += timeout
        return self.is_set()


def make(
    limit: int | None = None, rows_per_second: float | None = None, nice_ratio: float = 0.0
) -> tuple[Pace, Clock, Stop, list[Progress]]:
    clock = Clock()
    stop = Stop(clock)
    told: list[Progress] = []
    pace = Pace(
        START,
        limit=limit,
        rows_per_second=rows_per_second,
        nice_ratio=nice_ratio,
        stop=stop,
        report=told.append,
        clock=clock,
    )
    return pace, clock, stop, told


def test_without_a_limit_all_is_granted() -> None:
    pace, *_ = make()
    assert pace.take(5000) == 5000
    assert not pace.exhausted


def test_the_limit_is_granted_once_and_what_is_unused_comes_back() -> None:
    pace, *_ = make(limit=100)
    assert pace.take(70) == 70
    assert pace.take(70) == 30
    states = [pace.exhausted]
    pace.settle(70, used=70)
    pace.settle(30, used=10)
    states.append(pace.exhausted)
    assert states == [False, False], "what is granted may yet come back"
    assert pace.take(70) == 20
    pace.settle(20, used=20)
    assert pace.exhausted
    assert pace.take(70) == 0


@pytest.mark.parametrize("limit", [1, 99, 1000])
def test_workers_together_use_the_limit_up_exactly(limit: int) -> None:
    """Each uses at random less than it was granted, as at the end of a segment; none leaves too early."""
    stop = threading.Event()
    pace = Pace(START, limit=limit, rows_per_second=None, stop=stop, report=lambda _: None)

    def work(number: int) -> int:
        used = 0
        turn = number
        while granted := pace.take(37):
            turn += 1
            part = granted if turn % 3 else granted // 2
            pace.settle(granted, used=part)
            used += part
        return used

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == limit


def test_who_finds_nothing_left_waits_for_what_others_give_back() -> None:
    pace = Pace(START, limit=10, rows_per_second=None, stop=threading.Event(), report=lambda _: None)
    assert pace.take(10) == 10
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pace.take, 5)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        pace.settle(10, used=7)
        assert waiting.result(timeout=30) == 3


def test_who_waits_for_a_grant_stops_when_the_run_stops() -> None:
    stop = threading.Event()
    pace = Pace(START, limit=10, rows_per_second=None, stop=stop, report=lambda _: None)
    assert pace.take(10) == 10
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pace.take, 5)
        stop.set()
        assert waiting.result(timeout=30) == 0


def test_nothing_is_granted_once_the_run_is_to_stop() -> None:
    for limit in (None, 10):
        pace, _, stop, _ = make(limit=limit)
        stop.set()
        assert pace.take(5) == 0


def test_the_rate_limit_waits_as_long_as_the_rows_are_worth() -> None:
    pace, clock, stop, _ = make(rows_per_second=100)
    began = clock.now
    moved = 0
    while moved < 1000:
        granted = pace.take(5000)
        assert granted <= 100, "no more than a second's worth at once"
        clock.now += 0.1
        pace.count(Done(rows=granted, moved=granted))
        moved += granted
    assert clock.now - began == pytest.approx(moved / 100, abs=1.1)
    assert all(0 < wait <= 1 for wait in stop.waits)


def test_a_rate_limit_spreads_rows_over_the_second() -> None:
    """Batches of a tenth of it, so that no commit of the application waits for the WAL of a large one."""
    for rate, most in ((20_000, 2000), (5000, 500), (600, 100), (50, 50)):
        pace, clock, _, _ = make(rows_per_second=rate)
        began, moved = clock.now, 0
        while moved < 3 * rate:
            granted = pace.take(100_000)
            assert granted == most
            pace.count(Done(rows=granted, moved=granted))
            moved += granted
        assert clock.now - began == pytest.approx(3, abs=1.1), "the rate is as it was"


def test_a_pause_is_not_caught_up_on_by_more_than_a_second() -> None:
    pace, clock, stop, _ = make(rows_per_second=10)
    clock.now += 3600
    pace.count(Done(rows=10, moved=10))
    assert stop.waits == []
    pace.count(Done(rows=10, moved=10))
    assert stop.waits == [pytest.approx(1.0)]


def test_a_rate_below_one_row_a_second_grants_single_rows() -> None:
    pace, _, stop, _ = make(rows_per_second=0.25)
    assert pace.take(5000) == 1
    pace.count(Done(rows=1, moved=1))
    pace.count(Done(rows=1, moved=1))
    assert sum(stop.waits) == pytest.approx(8.0)


def test_a_worker_rests_as_many_times_as_long_as_its_batch_took() -> None:
    pace, clock, stop, _ = make(nice_ratio=20)
    for seconds in (0.01, 0.1, 0.5):
        before = clock.now
        pace.count(Done(rows=10, moved=10), seconds=seconds)
        assert clock.now - before == pytest.approx(20 * seconds)
    assert max(stop.waits) <= 1, "orders are read meanwhile"


def test_what_counts_no_rows_rests_as_well() -> None:
    pace, clock, _, _ = make(nice_ratio=20)
    pace.between(0.5)
    assert clock.now - 100.0 == pytest.approx(10.0)


def test_a_batch_that_waited_long_for_a_lock_does_not_put_the_move_off_for_hours() -> None:
    pace, clock, _, _ = make(nice_ratio=1000)
    pace.count(Done(rows=10, moved=10), seconds=30.0)
    assert clock.now - 100.0 == pytest.approx(LONGEST_REST)


def test_who_is_to_stop_does_not_rest() -> None:
    pace, clock, stop, _ = make(nice_ratio=1000)
    stop.set()
    pace.count(Done(rows=10, moved=10), seconds=1.0)
    assert clock.now == 100.0


def test_the_rate_and_the_rest_are_not_added_up() -> None:
    pace, clock, _, _ = make(rows_per_second=100, nice_ratio=10)
    clock.now += 0.1
    pace.count(Done(rows=100, moved=100), seconds=0.1)
    assert clock.now - 100.1 == pytest.approx(1.0)


def test_the_rate_holds_for_all_workers_together() -> None:
    """Each count moves the common moment at which the next rows are free."""
    pace, clock, stop, _ = make(rows_per_second=100)
    for _ in range(4):
        pace.count(Done(rows=100, moved=100))
    assert clock.now == pytest.approx(100.0 + 3.0, abs=1.01)
    assert sum(stop.waits) == pytest.approx(clock.now - 100.0)


def test_figures() -> None:
    pace, clock, _, told = make()
    clock.now += 2
    pace.count(Done(rows=30, moved=25, adopted=1, quarantined=4, blocks=45))
    clock.now += 2
    pace.count(Done(rows=10, moved=10, blocks=60))

    first, second = told
    assert (first.rows, first.moved, first.quarantined, first.accounted, first.blocks) == (30, 25, 4, 80, 55)
    assert first.rate == 15.0
    assert first.seconds_left == 2.0
    assert (second.blocks, second.batches) == (100, 2), "a table that has shrunk meanwhile is not more than done"
    assert START.seconds_left is None
    assert START.rate == 0.0
