"""While an application writes both tables, a comparison finds what is there and nothing else."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Report, Verdict
from spine_migrate.parity.options import Finding, Options
from tests.chaos.conftest import FULL, tell
from tests.chaos.dual_writer import write
from tests.database import Database
from tests.generated import Rows, install
from tests.legacy import Legacy

SECONDS, EXECUTIONS = (60, 20_000) if FULL else (2.5, 6_000)


@pytest.fixture
def moved(database: Database) -> Legacy:
    database.arrange(move)
    return Legacy(database.url)


def move(url: str) -> None:
    install(url, Rows(EXECUTIONS, seed=3, events=0, awkward=0))
    Legacy(url).move("executions")


@contextmanager
def written(legacy: Legacy, seed: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    writer = context.Process(target=write, args=(legacy.url, seed, stop))
    before = legacy.value("SELECT max(xmin::text::bigint) FROM runs")
    writer.start()
    try:
        while legacy.value("SELECT max(xmin::text::bigint) FROM runs") == before:
            assert writer.is_alive()
            time.sleep(0.05)
        yield
    finally:
        stop.set()
        writer.join()
    assert writer.exitcode == 0


def compared(legacy: Legacy, method: Finding) -> Report:
    with connect(legacy.url) as connection:
        return compare(connection, ["capture-spine/executions"], Options(method=method))


@pytest.mark.parametrize("method", [Finding.JOIN, Finding.BUCKETS])
def test_no_false_alarm_and_a_real_difference_is_found(moved: Legacy, chance: random.Random, method: Finding) -> None:
    with written(moved, chance.randrange(2**32)):
        end, looks = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            report = compared(moved, method)
            assert report.verdict is Verdict.EQUAL, [one.reasons for one in report.comparisons]
            looks += 1
        key = str(moved.value("UPDATE runs SET lane = lane || ' ' WHERE run_id = (SELECT max(run_id::text)::uuid"
                              " FROM runs WHERE name <> 'dual') RETURNING run_id"))  # fmt: skip
        report = compared(moved, method)
    assert report.verdict is Verdict.DIFFERENT
    assert [(one.kind, one.key, one.field) for one in report.comparisons[0].differences] == [("field", key, "lane")]
    added = moved.value("SELECT count(*) FROM runs WHERE name = 'dual'")
    tell(f"{looks} comparisons while rows were written; {added} of them were new and are still there")
