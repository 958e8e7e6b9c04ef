"""``spine-migrate shims purge``: what is forgotten, and that silence is not proven by what was."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from spine_migrate.cli import main
from spine_migrate.db import schema
from spine_migrate.db.connect import connect
from spine_migrate.db.shim_tables import Purged, ShimTables, Verdict
from spine_shims.tables import Tables
from spine_shims.telemetry import Telemetry
from tests.database import Database, patient
from tests.shim_caller import NEVER
from tests.shim_calls import BILL, NOW, SEND, add_call, add_worker, days

BOUND = NOW - days(7)


@pytest.fixture
def shims(database: Database) -> Database:
    database.arrange(schema.upgrade)
    return database


def _asked(database: Database, *words: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, ["shims", "purge", *words, "--target", database.url], input=typed)


def _left(database: Database) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    with database.connect() as connection:
        calls = connection.execute("SELECT task, caller FROM shim_call ORDER BY 1, 2").fetchall()
        workers = connection.execute("SELECT task, host, since, seen_at FROM shim_worker ORDER BY 1, 2, 3").fetchall()
    return calls, workers


def _arranged(database: Database) -> None:
    add_call(database, NOW - days(20), caller="gone.py:1 f")
    add_call(database, BOUND, caller="kept.py:1 f", first_seen=NOW - days(30))
    add_worker(database, NOW - days(30), NOW - days(8), host="gone")
    add_worker(database, BOUND, NOW, host="new")
    # Two processes of one host, and of one the time since the bound as well.
    add_worker(database, NOW - days(20), NOW - days(3), host="old")
    add_worker(database, NOW - days(10), NOW - days(1), host="old")
    add_worker(database, BOUND, NOW - days(2), host="old")
    add_worker(database, NOW - days(9), NOW, host="old", task=SEND)


def test_what_was_last_seen_before_is_forgotten(shims: Database) -> None:
    _arranged(shims)
    with connect(shims.url) as connection:
        tables = ShimTables.opened(connection, None)
        assert tables.purgeable(BOUND) == tables.purge(BOUND) == Purged(callers=1, workers=1, shortened=3)
        assert tables.purge(BOUND) == Purged(0, 0, 0)
    assert _left(shims) == (
        [(BILL, "kept.py:1 f")],
        [(BILL, "new", BOUND, NOW), (BILL, "old", BOUND, NOW - days(1)), (SEND, "old", BOUND, NOW)],
    )


def test_silence_is_not_proven_by_what_was_forgotten(shims: Database) -> None:
    add_call(shims, NOW - days(10))
    add_worker(shims, NOW - days(30), NOW)
    with connect(shims.url) as connection:
        tables = ShimTables.opened(connection, None)
        assert tables.silence([BILL], NOW - days(14), NOW).verdict is Verdict.CALLED
        tables.purge(BOUND)
        assert tables.silence([BILL], NOW - days(14), NOW).verdict is Verdict.UNKNOWN
        assert tables.silence([BILL], NOW - days(6), NOW).verdict is Verdict.SILENT


def test_a_worker_that_goes_on_goes_on_with_what_is_left(shims: Database) -> None:
    """And does not say again that it was there before."""
    tables = Tables.at(patient(shims.url))
    telemetry = Telemetry(tables, host="worker", version="1.0", interval_seconds=NEVER)
    telemetry.announce([BILL])
    assert telemetry.flush()
    with shims.connect() as connection:
        connection.execute(
            "UPDATE shim_worker SET since = since - interval '30 days', seen_at = seen_at - interval '1 minute'"
        )
    assert _asked(shims, "--older-than", "7d", "--yes").exit_code == 0
    telemetry.announce([BILL])
    assert telemetry.flush()
    telemetry.close()
    (_, ((_, host, since, seen_at),)) = _left(shims)
    with shims.connect() as connection:
        values = {"since": since, "seen_at": seen_at}
        ages = "SELECT now() - %(since)s < interval '8 days', now() - %(seen_at)s < interval '1 minute'"
        assert connection.execute(ages, values).fetchone() == (True, True)
    assert host == "worker"


def test_the_command(shims: Database) -> None:
    _arranged(shims)
    before = _left(shims)
    planned = _asked(shims, "--older-than", BOUND.isoformat(), "--dry-run", "--json")
    expected = {"format": 1, "before": BOUND.isoformat(), "callers": 1, "workers": 1, "shortened": 3}
    assert json.loads(planned.stdout) == {**expected, "state": "planned"}
    refused = _asked(shims, "--older-than", BOUND.isoformat(), typed="n\n")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "1 callers and 1 workers that were last seen before 2026-11-13 12:00" in refused.stderr
    assert _left(shims) == before
    assert "Forget 1 callers?" in refused.stderr
    done = _asked(shims, "--older-than", BOUND.isoformat(), "--json", typed="y\n")
    assert json.loads(done.stdout) == {**expected, "state": "purged"}
    assert _left(shims) != before


def test_it_is_recorded(shims: Database) -> None:
    _arranged(shims)
    assert _asked(shims, "--older-than", BOUND.isoformat(), "--yes").exit_code == 0
    with shims.connect() as connection:
        query = "SELECT detail FROM spine_migrate.audit WHERE action = 'shims purged'"
        ((detail,),) = connection.execute(query).fetchall()
    assert detail == {"before": BOUND.isoformat(), "callers": 1, "workers": 1, "shortened": 3}


def test_a_time_to_come_is_refused(shims: Database) -> None:
    asked = _asked(shims, "--older-than", "2999-01-01", "--yes")
    assert asked.exit_code == 2
    assert "--older-than is a time to come" in asked.stderr
