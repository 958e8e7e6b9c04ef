"""Rows that cannot be applied: they are found in few statements, a bounded number at a time, and hold up no other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from psycopg import sql

from spine_migrate.carry.known import chosen, known
from spine_migrate.db import captures
from spine_migrate.db.connect import Connection, connect
from spine_migrate.errors import Refused
from spine_migrate.sync import halving, loop, turn
from spine_migrate.sync.applier import Applier
from spine_migrate.sync.appliers import applier_of
from spine_migrate.sync.halving import MOST_REFUSED, Halving
from tests.cutting import Pair, ten_followed
from tests.database import Database
from tests.legacy import Legacy, arranged, build, filled, uuid
from tests.syncing import apply, lag_of, logged, move_live

MANY = 2000
LEVELS = math.ceil(math.log2(MANY))


@arranged
def live(legacy: Legacy) -> None:
    """So many executions and ten more, moved, their changes captured."""
    legacy.many_executions(MANY + 10)
    move_live(legacy)


@contextmanager
def applying(legacy: Legacy) -> Iterator[tuple[Connection, Applier]]:
    """What applies the only capture there is."""
    with connect(legacy.url, settings=loop.APPLIER_SETTINGS) as session:
        (one,) = [known(session, migration) for migration in chosen(session)]
        (captured,) = captures.captures(session, [one.migration.migration_id])
        yield session, applier_of(session, one, captured, [])


def refuse(legacy: Legacy, table: str, condition: sql.SQL | sql.Composed) -> None:
    """To delete rows for which this is so, by a trigger of the application's."""
    legacy.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$")
    legacy.execute(
        sql.SQL("CREATE TRIGGER no BEFORE DELETE ON {} FOR EACH ROW WHEN ({}) EXECUTE FUNCTION no()").format(
            sql.Identifier(table), condition
        )
    )
    legacy.execute(sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER no").format(sql.Identifier(table)))


_FIRST = sql.SQL("old.run_id <= '{}'").format(sql.SQL(uuid(MANY)))


def attempts(legacy: Legacy) -> dict[int, int]:
    """How many rows were tried so often."""
    return dict(
        legacy.rows("SELECT attempts, count(*) FROM spine_migrate.pending WHERE why = 'deferred' GROUP BY 1 ORDER BY 1")
    )


@pytest.mark.parametrize("bad", [[], [1], [700, 701, 1500], list(range(40, 80))])
def test_as_many_statements_as_rows_can_be_halved(database: Database, bad: list[int]) -> None:
    asked = []
    with connect(database.url) as connection, connection.transaction():
        constraint = sql.SQL("CREATE TABLE numbers (n int CHECK (n <> ALL ({}::int[])))").format(sql.Literal(bad))
        connection.execute(constraint)

        def insert(part: Sequence[str]) -> int:
            asked.append(len(part))
            return connection.execute("INSERT INTO numbers SELECT unnest(%s::text[])::int", (list(part),)).rowcount

        done = Halving(connection).each([str(number) for number in range(MANY)], insert)
    assert (done.total, sorted(map(int, done.refused)), done.untried) == (MANY - len(bad), bad, [])
    assert len(asked) <= 1 + 2 * len(bad) * LEVELS


def test_what_cannot_be_deleted_after_a_truncate_holds_up_nothing(live: Legacy) -> None:
    """Two thousand before ten others: those go at once, what is written meanwhile too; each has its turn."""
    refuse(live, "runs", _FIRST)
    live.execute("TRUNCATE executions CASCADE")
    with applying(live) as (session, made):
        made.next(session, limit=MANY)
        assert made.remove_all_extra(session, limit=MANY).deleted == 10
        assert not made.awaits_everything(session)
        assert MOST_REFUSED <= attempts(live)[1] <= MOST_REFUSED + LEVELS
        live.executions(5000)
        assert made.next(session, limit=MANY).inserted == 1
        for _ in range(2):
            made.deferred(session, limit=MANY, patient=False)
        tried = attempts(live)
        assert set(tried) == {0, 1}
        assert 3 * MOST_REFUSED <= tried[1] <= 3 * (MOST_REFUSED + LEVELS)
        assert lag_of(live).untried == tried[0] == MANY - tried[1]
        live.execute("DROP TRIGGER no ON runs")
        assert made.deferred(session, limit=MANY, patient=False).deleted == MANY
    assert not attempts(live)
    live.prove()


def test_a_slice_of_it_at_a_time(live: Legacy) -> None:
    """The next goes on from there."""
    live.execute("TRUNCATE executions CASCADE")
    with applying(live) as (session, made):
        made.next(session, limit=MANY)
        turns = iter([True, True, False, True, True, True])
        assert made.remove_all_extra(session, limit=100, more=lambda: next(turns)).deleted == 200
        assert made.remove_all_extra(session, limit=MANY, more=lambda: next(turns)).deleted == MANY - 190
        assert not made.awaits_everything(session)
    live.prove()


def test_jobs_that_cannot_be_deleted_are_put_off_by_their_own_keys(database: Database) -> None:
    """Their runs have others."""
    legacy = build(database)
    legacy.execute("INSERT INTO jobs (job_type, status) SELECT 'fetch', 'done' FROM generate_series(1, 10)")
    move_live(legacy, "jobs")
    refuse(legacy, "runs", sql.SQL("old.metadata #>> '{{legacy,job_id}}' IN ('4', '7')").format())
    legacy.execute("TRUNCATE jobs")
    with applying(legacy) as (session, made):
        made.next(session, limit=100)
        assert made.remove_all_extra(session, limit=3).deleted == 8
        assert not made.awaits_everything(session)
    assert legacy.rows("SELECT row_key, detail IS NOT NULL FROM spine_migrate.pending ORDER BY 1") == [
        ("4", True), ("7", True),
    ]  # fmt: skip
    legacy.execute("DROP TRIGGER no ON runs")
    apply(legacy, "jobs")
    assert legacy.value("SELECT count(*) FROM runs") == 0


def test_what_the_legacy_table_refuses_has_its_turn_too(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a way back: changes and rows that a TRUNCATE of the target took, more than one transaction looks for."""
    legacy = build(database)
    legacy.many_executions(30)
    pair = Pair(legacy, ("executions",))
    pair.begin()
    pair.switch()
    monkeypatch.setattr(halving, "MOST_REFUSED", 4)
    legacy.execute("ALTER TABLE executions_legacy ADD CONSTRAINT short CHECK (length(error) < 30) NOT VALID")
    legacy.execute("UPDATE executions SET error = repeat('x', 40) WHERE execution_id <= %s", uuid(20))
    legacy.execute("UPDATE executions SET error = 'fits' WHERE execution_id > %s", uuid(20))
    with applying(legacy) as (session, made):
        assert made.next(session, limit=100).deferred >= 20
        for _ in range(10):
            made.deferred(session, limit=100, patient=True)
        assert legacy.value("SELECT count(*) FROM executions_legacy WHERE error = 'fits'") == 10
        assert set(attempts(legacy)) <= {1, 2, 3}
        legacy.execute("ALTER TABLE executions_legacy DROP CONSTRAINT short")
        made.deferred(session, limit=100, patient=True)
        assert not attempts(legacy)
        refuse(legacy, "executions_legacy", sql.SQL("old.execution_id <= '{}'").format(sql.SQL(uuid(20))))
        legacy.execute("TRUNCATE runs CASCADE")
        made.next(session, limit=100)
        made.remove_all_extra(session, limit=100)
        assert not made.awaits_everything(session)
        for _ in range(10):
            made.deferred(session, limit=100, patient=True)
        assert legacy.value("SELECT count(*) FROM executions_legacy") == 20
        legacy.execute("DROP TRIGGER no ON executions_legacy")
        made.deferred(session, limit=100, patient=True)
    assert legacy.value("SELECT count(*) FROM executions_legacy") == 0


def test_a_switch_is_refused_before_it_locks_what_would_be_tried_for_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    legacy = filled(database, ten_followed)
    pair = Pair(legacy)
    refuse(legacy, "runs", sql.SQL("true").format())
    legacy.execute("DELETE FROM executions WHERE execution_id <= %s", uuid(5))
    monkeypatch.setattr(turn, "FEW", 4)
    monkeypatch.setattr(turn.Turn, "hold", _never)
    with pytest.raises(Refused, match="5 changed rows") as refused:
        pair.switch()
    assert refused.value.precondition == "not-drained"
    assert not logged(legacy)


def _never(*_: object) -> None:
    raise AssertionError("the tables are locked")
