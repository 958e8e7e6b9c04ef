"""What a move tells its observer: every transition, batch, row in quarantine and retry, and what a veto leaves."""

from __future__ import annotations

import threading
from collections import Counter
from typing import NoReturn

import pytest

from spine_migrate.errors import Refused
from spine_migrate.notices import Batch, Before, Notice, Progress, Quarantined, Retry, Subject, Transition
from tests.database import Database
from tests.legacy import Legacy, build
from tests.observers import Remembering


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def _sums(seen: Remembering) -> tuple[int, int, Counter[str]]:
    """Rows moved, adopted, and in quarantine by reason."""
    reasons: Counter[str] = Counter()
    for notice in seen.of(Quarantined):
        reasons.update(notice.reasons)
    return sum(one.moved for one in seen.of(Batch)), sum(one.adopted for one in seen.of(Batch)), reasons


def _some_of_each(legacy: Legacy) -> None:
    legacy.many_executions(500)
    legacy.executions(901, 902, 903, status="no such status")
    legacy.executions(904, pipeline_name="p" * 1000)


def test_a_move_tells_its_transitions_and_adds_up(legacy: Legacy) -> None:
    """What was told is what the ledger says; the migration is named once it is there."""
    _some_of_each(legacy)
    seen = Remembering()
    outcome = legacy.move(observer=seen, batch_rows=100)
    about = Subject("capture-spine/executions", outcome.migration_id, '"public"."executions"', '"public"."runs"')
    new = Subject("capture-spine/executions", None, '"public"."executions"', '"public"."runs"')
    assert seen.notices[0] == Before(new, "backfill", None)
    assert seen.of(Transition) == [
        Transition(about, None, "backfill"),
        Transition(about, "backfill", "done", ends="backfill"),
    ]
    moved, adopted, reasons = _sums(seen)
    assert (moved, adopted, dict(reasons)) == (outcome.moved, outcome.adopted, outcome.quarantined)
    assert dict(reasons) == {"unknown_value": 3, "too_long": 1}
    assert len([one for one in seen.of(Batch) if one.seconds]) == outcome.batches
    assert {notice.subject for notice in seen.notices if isinstance(notice, Batch | Progress | Quarantined)} == {about}
    first, last = seen.of(Progress)[0], seen.of(Progress)[-1]
    assert (first.rows, first.accounted, first.blocks) == (0, 0, 0)
    assert (last.rows, last.accounted, last.blocks, last.phase) == (504, 504, first.total_blocks, "links")


def test_a_move_that_goes_on_asks_again_and_tells_no_transition_twice(legacy: Legacy) -> None:
    legacy.many_executions(300)
    outcome = legacy.move(limit=100)
    seen = Remembering()
    legacy.move(observer=seen)
    assert [(one.stage, one.step, one.subject.migration_id) for one in seen.of(Before)] == [
        ("backfill", "backfill", outcome.migration_id)
    ]
    assert [(one.from_step, one.to_step) for one in seen.of(Transition)] == [("backfill", "done")]
    assert seen.of(Progress)[0].accounted == 100
    again = Remembering()
    legacy.move(observer=again)
    assert [one.step for one in again.of(Before)] == ["done"]
    assert not again.of(Transition)
    assert not again.of(Batch)


class _Veto:
    def notice(self, notice: Notice, /) -> None:
        if isinstance(notice, Before):
            _refuse()


def _refuse() -> NoReturn:
    raise Refused("hook-veto", "No.")


@pytest.mark.parametrize("offline", [False, True])
def test_a_veto_leaves_everything_as_it_was(legacy: Legacy, offline: bool) -> None:  # noqa: FBT001 - a parameter
    """Nothing on the target, nothing in the ledger, no index taken away."""
    legacy.many_executions(10)
    state = (
        "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM spine_migrate.migration),"
        " (SELECT count(*) FROM spine_migrate.audit), (SELECT count(*) FROM pg_indexes WHERE tablename = 'runs')"
    )
    before = legacy.rows(state)
    with pytest.raises(Refused, match="No"):
        legacy.move(observer=_Veto(), offline=offline)
    assert legacy.rows(state) == before
    assert legacy.move().moved == 10


def test_a_veto_of_a_run_that_goes_on_moves_nothing(legacy: Legacy) -> None:
    legacy.many_executions(100)
    legacy.move(limit=40)
    with pytest.raises(Refused):
        legacy.move(observer=_Veto())
    assert legacy.value("SELECT count(*) FROM runs") == 40


class _Looking:
    """Looks, while a hook would be waited for, whether the tool has a transaction open."""

    def __init__(self, legacy: Legacy) -> None:
        self.legacy = legacy
        self.open: list[int] = []

    def notice(self, notice: Notice, /) -> None:
        if isinstance(notice, (Before, Transition)):
            self.open.append(
                self.legacy.value(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'spine-migrate'"
                    " AND datname = current_database() AND xact_start IS NOT NULL"
                )
            )


def test_no_transaction_is_open_while_a_hook_is_asked(legacy: Legacy) -> None:
    legacy.many_executions(10)
    looking = _Looking(legacy)
    legacy.move(observer=looking)
    assert looking.open == [0, 0, 0]


def test_rows_that_the_building_of_an_index_evicts_are_told(legacy: Legacy) -> None:
    """An offline load finds collisions at its end."""
    legacy.executions(1, 2, 3, idempotency_key="one and the same")
    seen = Remembering()
    outcome = legacy.move(observer=seen, offline=True)
    assert outcome.quarantined == {"unique_conflict": 2}
    assert dict(_sums(seen)[2]) == outcome.quarantined


def test_a_lock_that_is_waited_for_is_told(legacy: Legacy) -> None:
    """With its cause, at each try, while the lock is held."""
    legacy.many_executions(10)
    told = threading.Event()

    class Retries(Remembering):
        def notice(self, notice: Notice, /) -> None:
            super().notice(notice)
            if isinstance(notice, Retry):
                told.set()

    seen = Retries()
    with legacy.connect() as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
        moving = threading.Thread(target=legacy.move, kwargs={"observer": seen, "retry_seconds": 120.0})
        moving.start()
        assert told.wait(60)
        other.execute("COMMIT")
    moving.join(120)
    assert not moving.is_alive()
    retries = seen.of(Retry)
    assert [one.attempt for one in retries] == list(range(1, len(retries) + 1))
    assert {one.cause for one in retries} == {"lock_timeout"}
    assert sum(one.moved for one in seen.of(Batch)) == 10
