"""A backfill waits for real replicas: a streaming standby, a slot."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import psycopg
import pytest

from spine_migrate.db.embedded import EmbeddedServer
from tests.conftest import StartServer
from tests.legacy import Legacy, build
from tests.moving import moving
from tests.standby import standby
from tests.waiting import until

_VERSION = int(os.environ.get("SPINE_TEST_PG_VERSION", "18"))
_MEGABYTE = 1 << 20


@pytest.fixture
def primary(start_server: StartServer) -> EmbeddedServer:
    """It flushes its WAL nowhere but to who follows."""
    return start_server(_VERSION)


@pytest.fixture
def legacy(primary: EmbeddedServer) -> Legacy:
    built = build(primary.url())
    built.many_executions(5000)
    return built


@pytest.fixture
def follower(primary: EmbeddedServer, legacy: Legacy) -> Iterator[EmbeddedServer]:
    with standby(primary, _VERSION) as server:
        until(
            lambda: legacy.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"),
            "the standby does not follow",
        )
        yield server


def test_a_standby_that_stops_replaying_holds_it_back_until_it_goes_on(
    legacy: Legacy, follower: EmbeddedServer
) -> None:
    with psycopg.connect(follower.url(), autocommit=True) as on_standby:
        on_standby.execute("SELECT pg_wal_replay_pause()")
        until(
            lambda: on_standby.execute("SELECT pg_get_wal_replay_pause_state()").fetchall() == [("paused",)],
            "the standby goes on",
        )
        with moving(legacy, max_lag_bytes=_MEGABYTE, batch_rows=100, rows_per_second=1500) as going:
            going.is_held("max-lag-bytes")
            detail = going.told("held_detail")
            said = re.fullmatch(r"the replica standby is ([\d,]+) bytes behind, the limit is 1,048,576", detail)
            assert said is not None, detail
            assert int(said[1].replace(",", "")) > _MEGABYTE
            assert 0 < going.moved() < 5000
            on_standby.execute("SELECT pg_wal_replay_resume()")
            assert going.result().moved == 5000
            assert going.held[-1] is None
        moved = legacy.value("SELECT pg_current_wal_lsn()::text")
        until(
            lambda: (
                on_standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [moved]).fetchall() == [(True,)]
            ),
            "the standby does not catch up",
        )
        assert on_standby.execute("SELECT count(*) FROM runs").fetchall() == [(5000,)]


def test_a_slot_that_nobody_reads_holds_it_back(legacy: Legacy) -> None:
    legacy.rows("SELECT pg_create_physical_replication_slot('archive', true)")
    with moving(legacy, max_lag_bytes=_MEGABYTE, batch_rows=100, rows_per_second=1500) as going:
        going.is_held("max-lag-bytes")
        assert "the slot, which nobody reads, archive is" in going.told("held_detail")
        legacy.rows("SELECT pg_drop_replication_slot('archive')")
        assert going.result().moved == 5000


def test_without_replicas_there_is_nothing_to_wait_for(legacy: Legacy) -> None:
    with moving(legacy, max_lag_bytes=0) as going:
        assert going.result().moved == 5000
    assert going.held == []
