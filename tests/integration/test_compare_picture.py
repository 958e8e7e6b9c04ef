"""The picture of a comparison: every legacy row and every wrong row is in the slice that it belongs to, or counted."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import Picture, Slice
from spine_migrate.parity.model import Comparison
from spine_migrate.parity.options import Options
from spine_migrate.parity.picture import SLICES
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid

_ROWS = 400


@arranged
def legacy(legacy: Legacy) -> None:
    """A row a day: two without a date, one in quarantine, one long before all others and one at the end of time."""
    legacy.execute(
        """INSERT INTO executions (execution_id, pipeline_name, status, created_at)
           SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'ingest',
                  CASE n WHEN 100 THEN 'limbo' ELSE 'completed' END,
                  CASE n WHEN 1 THEN '0001-01-01'::timestamptz WHEN 400 THEN 'infinity'
                         ELSE '2024-01-01'::timestamptz + n * interval '1 day' END
             FROM generate_series(1, 400) n"""
    )


def compared(legacy: Legacy, *, max_differences: int = 100) -> tuple[Comparison, Picture]:
    with connect(legacy.url) as connection:
        options = Options(max_differences=max_differences, picture=True)
        (found,) = compare(connection, ["capture-spine/executions"], options).comparisons
    assert found.picture is not None
    return found, found.picture


def totals(picture: Picture) -> dict[str, int]:
    every = [picture.timeless, *picture.slices]
    return {name: sum(asdict(one)[name] for one in every) for name in asdict(picture.timeless) if name != "start"}


def around(picture: Picture, time: str) -> Slice:
    """The slice that a time falls into."""
    return max((one for one in picture.slices if (one.start or "") <= time), key=lambda one: one.start or "")


def test_every_row_is_in_one_slice(legacy: Legacy) -> None:
    legacy.move()
    found, picture = compared(legacy)
    assert (picture.axis, picture.column, picture.unplaced) == ("time", "created_at", 0)
    assert totals(picture) == {
        "rows": _ROWS, "quarantined": 1, "differing": 0, "missing": 0, "extra": 0, "doubled": 0,
    }  # fmt: skip
    assert found.counts is not None
    assert found.counts.quarantined == 1


def test_a_date_far_off_does_not_stretch_the_picture(legacy: Legacy) -> None:
    legacy.move()
    _, picture = compared(legacy)
    first, *usual = picture.slices
    assert (first.start, first.rows) == (None, 1)
    assert len(usual) == SLICES
    # A row a day over 400 days is five in each, but for the last, where what comes later is too.
    assert max(one.rows for one in usual) <= 10
    assert usual[-1].rows >= 1


@pytest.mark.parametrize("max_differences", [100, 1])
def test_what_is_wrong_is_where_it_happened(legacy: Legacy, max_differences: int) -> None:
    """Listed in full, or counted on the server where the list is cut: the same picture."""
    legacy.move()
    legacy.execute("UPDATE runs SET error = 'x', lane = 'y' WHERE run_id = %s", uuid(50))
    legacy.execute("DELETE FROM runs WHERE run_id = ANY(%s::uuid[])", [uuid(200), uuid(201)])
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(300))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(100))
    found, picture = compared(legacy, max_differences=max_differences)
    assert found.counts is not None
    assert around(picture, "2024-02-20").differing == 1
    assert around(picture, "2024-07-19").missing + around(picture, "2024-07-20").missing >= 1
    assert around(picture, "2024-10-27").extra == 1
    assert totals(picture) == {
        "rows": _ROWS - 2, "quarantined": 0, "differing": 1, "missing": 2, "extra": 1, "doubled": 0,
    }  # fmt: skip
    assert (found.counts.gone, picture.unplaced) == (1, 1)


def test_rows_without_a_time_stand_apart(legacy: Legacy) -> None:
    legacy.execute("ALTER TABLE executions ALTER created_at DROP NOT NULL")
    legacy.move()
    legacy.execute("UPDATE executions SET created_at = NULL WHERE execution_id = ANY(%s::uuid[])", [uuid(7), uuid(8)])
    _, picture = compared(legacy)
    assert (picture.timeless.rows, picture.timeless.differing) == (2, 2)
    assert totals(picture)["rows"] == _ROWS


def test_where_all_times_are_the_same_it_goes_by_key(legacy: Legacy) -> None:
    legacy.execute("UPDATE executions SET created_at = '2024-01-01'")
    legacy.move()
    legacy.execute("UPDATE runs SET error = 'x' WHERE run_id = %s", uuid(399))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(200))
    _, picture = compared(legacy)
    assert (picture.axis, picture.column) == ("key", "execution_id")
    assert [one.start for one in picture.slices] == sorted(one.start or "" for one in picture.slices)
    assert max(one.rows for one in picture.slices) <= 2 * _ROWS / SLICES
    assert [one.differing for one in picture.slices][-1] == 1
    # Nothing says where a target row belongs whose legacy row is gone.
    assert picture.unplaced == 1


def test_an_unfinished_migration_misses_nothing_yet(legacy: Legacy) -> None:
    legacy.move()
    legacy.execute("DELETE FROM runs WHERE run_id = ANY(%s::uuid[])", [uuid(n) for n in range(20, 60)])
    legacy.execute("UPDATE runs SET error = 'x' WHERE run_id = ANY(%s::uuid[])", [uuid(n) for n in range(60, 70)])
    legacy.execute("UPDATE spine_migrate.migration SET step = 'backfill'")
    found, picture = compared(legacy, max_differences=1)
    assert found.counts is not None
    assert found.counts.not_reached == 40
    assert (totals(picture)["missing"], totals(picture)["differing"], picture.unplaced) == (0, 10, 0)


def test_an_empty_table_and_nothing_asked_for_have_no_picture(database: Database) -> None:
    legacy = build(database)
    legacy.move()
    with connect(legacy.url) as connection:
        assert [one.picture for one in compare(connection, (), Options(picture=True)).comparisons] == [None]
    legacy.executions(1)
    legacy.move()
    with connect(legacy.url) as connection:
        assert {one.picture for one in compare(connection).comparisons} == {None}
