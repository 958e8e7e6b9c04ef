"""Who still called, and the gate: silent, called, or could not tell."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import psycopg
import pytest

from spine_migrate.db import schema
from spine_migrate.db.connect import connect
from spine_migrate.db.shim_tables import GAP, ShimTables, Silence, Verdict
from spine_migrate.errors import ConfigurationError, Refused
from spine_shims.modes import LEGACY, Side
from spine_shims.tables import Tables
from spine_shims.telemetry import Telemetry
from tests.database import Database, patient
from tests.shim_caller import NEVER
from tests.shim_calls import BILL, NOW, SEND, add_call, add_worker, days

SINCE = NOW - days(14)


@pytest.fixture
def shims(database: Database) -> Database:
    database.arrange(schema.upgrade)
    return database


@pytest.fixture
def tables(shims: Database) -> Iterator[ShimTables]:
    with connect(shims.url) as connection:
        yield ShimTables.opened(connection, None)


def _asked(tables: ShimTables, *tasks: str, since: datetime = SINCE) -> Silence:
    return tables.silence(tasks, since, NOW)


def test_hosts_are_told_together(tables: ShimTables, shims: Database) -> None:
    add_call(shims, NOW - days(1), host="b", count=2)
    add_call(shims, NOW - days(3), host="a", count=3, first_seen=NOW - days(9))
    add_call(shims, NOW - days(2), version="1.1")
    add_call(shims, NOW - days(20), task=SEND)
    first, second, third = tables.calls()
    assert (first.hosts, first.count, first.first_seen, first.last_seen) == (
        ["a", "b"],
        5,
        NOW - days(9),
        NOW - days(1),
    )
    assert (second.version, third.task) == ("1.1", SEND)
    assert [one.task for one in tables.calls([SEND])] == [SEND]
    assert tables.calls([SEND], NOW - days(19)) == []
    assert tables.calls(["shop.tasks.none"]) == []


def test_silence_that_was_watched_is_silence(tables: ShimTables, shims: Database) -> None:
    add_call(shims, SINCE - days(1))
    add_worker(shims, SINCE - days(5), NOW)
    assert _asked(tables, BILL) == Silence(SINCE, (BILL,), (), ())
    assert _asked(tables, BILL).verdict is Verdict.SILENT


def test_the_boundary_counts_as_called(tables: ShimTables, shims: Database) -> None:
    add_worker(shims, SINCE - days(5), NOW)
    add_call(shims, SINCE)
    silence = _asked(tables, BILL)
    assert silence.verdict is Verdict.CALLED
    assert [one.caller for one in silence.callers] == ["shop/views.py:7 pay"]


def test_several_hosts_watch_in_turn(tables: ShimTables, shims: Database) -> None:
    add_worker(shims, SINCE - days(5), SINCE + days(6))
    add_worker(shims, SINCE + days(5), SINCE + days(9), host="worker-2")
    add_worker(shims, SINCE + days(9) + GAP, NOW - GAP, host="worker-3")
    assert _asked(tables, BILL).verdict is Verdict.SILENT


@pytest.mark.parametrize(
    ("spans", "sentence"),
    [
        ([], f"No worker has announced the task {BILL} since 2026-11-06 12:00:00 UTC; nobody was there"),
        ([(-3, -1)], f"No worker has announced the task {BILL} since"),
        ([(1, 14)], f"No worker was there to count the calls of {BILL} before 2026-11-07 12:00:00 UTC."),
        (
            [(-1, 6), (6.1, 14)],
            f"No worker was there to count the calls of {BILL} from 2026-11-12 12:00:00 UTC until 2026-11-12 14:24:00",
        ),
        ([(-1, 13)], f"No worker was there to count the calls of {BILL} from 2026-11-19 12:00:00 UTC on."),
    ],
)
def test_where_nobody_was_there_silence_proves_nothing(
    spans: list[tuple[float, float]], sentence: str, tables: ShimTables, shims: Database
) -> None:
    """Days after the beginning."""
    for since, seen in spans:
        add_worker(shims, SINCE + days(since), SINCE + days(seen))
    # Another task's worker sees nothing of it.
    add_worker(shims, SINCE - days(5), NOW, task=SEND)
    silence = _asked(tables, BILL)
    assert silence.verdict is Verdict.UNKNOWN
    assert len(silence.reasons) == 1
    assert silence.reasons[0].startswith(sentence)


def test_a_call_that_was_seen_settles_it(tables: ShimTables, shims: Database) -> None:
    add_call(shims, NOW - days(1))
    silence = _asked(tables, BILL)
    assert silence.verdict is Verdict.CALLED
    assert len(silence.reasons) == 1


def test_without_a_name_every_known_task_is_asked_about(tables: ShimTables, shims: Database) -> None:
    assert _asked(tables).verdict is Verdict.UNKNOWN
    assert "nothing to go by" in _asked(tables).reasons[0]
    add_worker(shims, SINCE - days(5), NOW)
    assert _asked(tables) == Silence(SINCE, (BILL,), (), ())
    add_call(shims, SINCE - days(30), task=SEND)
    silence = _asked(tables)
    assert (silence.verdict, silence.tasks) == (Verdict.UNKNOWN, (BILL, SEND))
    assert SEND in silence.reasons[0]


def test_what_telemetry_writes_is_what_the_gate_reads(tables: ShimTables, shims: Database) -> None:
    """A worker that has just come proves a silence of no longer than it is there; one call ends that."""
    telemetry = Telemetry(Tables.at(patient(shims.url)), interval_seconds=NEVER)
    telemetry.announce([BILL])
    assert telemetry.flush()
    ((since,),) = tables.connection.execute("SELECT since FROM shim_worker").fetchall()
    assert tables.silence([BILL], since, tables.now()).verdict is Verdict.SILENT
    assert tables.silence([BILL], since - days(1), tables.now()).verdict is Verdict.UNKNOWN
    telemetry.note(BILL, "somebody", LEGACY, Side.LEGACY)
    telemetry.close()
    assert tables.silence([BILL], since, tables.now()).verdict is Verdict.CALLED


def test_modes_are_set_changed_and_cleared(tables: ShimTables, shims: Database) -> None:
    assert tables.set_mode(BILL, "canary=10%") is None
    assert tables.set_mode(BILL, "dispatch") == "canary=10%"
    tables.set_mode("*", "legacy")
    assert [(one.task, one.mode, one.set_by) for one in tables.modes()] == [
        ("*", "legacy", shims.owner.name),
        (BILL, "dispatch", shims.owner.name),
    ]
    assert tables.clear_mode(BILL) == "dispatch"
    assert tables.clear_mode(BILL) is None
    assert tables.modes(BILL) == []
    with pytest.raises(ConfigurationError, match="'mirror' is no mode of a task; it is legacy, dispatch, shadow or"):
        tables.set_mode(BILL, "mirror")


def test_a_database_without_the_tables_is_refused(database: Database) -> None:
    schema.upgrade(database.url, revision="spine_0004")
    with connect(database.url) as connection, pytest.raises(Refused, match="spine-migrate db upgrade") as refused:
        ShimTables.opened(connection, None)
    assert refused.value.precondition == "table-missing"


def test_a_schema_of_any_name(database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute('CREATE SCHEMA "we""ird %s.x"')
    schema.upgrade(database.url, target_schema='we"ird %s.x')
    with connect(database.url) as opened:
        tables = ShimTables.opened(opened, None)
        tables.set_mode(BILL, "legacy")
        assert [one.task for one in tables.modes()] == [BILL]
        assert tables.calls() == []
