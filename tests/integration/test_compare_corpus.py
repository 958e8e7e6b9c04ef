"""Every kind of difference of the corpus is found where it was made, and nothing is found elsewhere."""

from __future__ import annotations

import psycopg
import pytest

from spine_migrate.db import schema
from spine_migrate.db.connect import connect
from spine_migrate.demo.generate import generate
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.model import Verdict
from spine_migrate.parity.options import Finding, Options
from tests.corpus import KINDS, inject
from tests.database import Database
from tests.legacy import Legacy


def _demonstration(url: str) -> None:
    with psycopg.connect(url) as connection:
        generate(connection, executions=5000, jobs=0, events_per_execution=0.2, seed=11, awkward=1)
    schema.upgrade(url)
    Legacy(url).move("executions")


@pytest.fixture
def moved(database: Database) -> Legacy:
    database.arrange(_demonstration)
    return Legacy(database.url, database=database)


@pytest.mark.parametrize("method", [Finding.JOIN, Finding.BUCKETS])
@pytest.mark.parametrize("equality", list(Equality))
def test_each_kind_is_found_and_none_invented(moved: Legacy, equality: Equality, method: Finding) -> None:
    expected = set()
    with moved.connect() as connection:
        for kind, findings in inject(connection, KINDS, 10):
            if equality is Equality.EXACT or not kind.exact:
                expected |= findings
    with connect(moved.url) as connection:
        report = compare(
            connection, ["capture-spine/executions"], Options(equality=equality, max_differences=100_000, method=method)
        )
    (comparison,) = report.comparisons
    found = [(one.kind, one.target_key, one.field) for one in comparison.differences]
    assert report.verdict is Verdict.DIFFERENT
    assert len(found) == len(set(found)) == comparison.differences_total
    assert set(found) == expected
