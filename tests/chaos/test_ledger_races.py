"""Two processes race for one idempotency key, and for one claim: one winner each, told by the tables themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tests.chaos.conftest import FULL, tell
from tests.chaos.ledger_racers import Act, claim, race, submit, submit_for_entity
from tests.database import Database
from tests.ledgers import in_postgres, pool_of

ROUNDS = 1000 if FULL else 50

Connection = psycopg.Connection[Any]


@pytest.fixture
def pool(database: Database) -> Iterator[ConnectionPool[Any]]:
    with pool_of(database.url) as opened:
        yield opened


def asked(pool: ConnectionPool[Any], query: str) -> list[tuple[Any, ...]]:
    with pool.connection() as connection:
        found: list[tuple[Any, ...]] = connection.execute(query.encode()).fetchall()
        return found


@pytest.mark.parametrize("act", [submit, submit_for_entity])
def test_one_key_is_one_run(database: Database, pool: ConnectionPool[Any], act: Act) -> None:
    keys = [f"key {number}" for number in range(ROUNDS)]

    rounds = list(race(database.url, act, keys))

    assert all(first == second for first, second in rounds)
    stored = asked(pool, "SELECT idempotency_key, run_id::text, status FROM runs")
    assert sorted(stored) == sorted((key, first, "pending") for key, (first, _) in zip(keys, rounds, strict=True))
    told = asked(pool, "SELECT run_id::text, event_type FROM run_events")
    assert sorted(told) == sorted((first, "created") for first, _ in rounds)
    assert asked(pool, "SELECT count(*) FROM run_handoff") == [(ROUNDS,)]
    tell(f"{ROUNDS} rounds, one run each")


def test_one_claim_has_one_winner(database: Database, pool: ConnectionPool[Any]) -> None:
    timed = in_postgres(pool)
    run_ids = [timed.made() for _ in range(ROUNDS)]

    rounds = list(race(database.url, claim, run_ids))

    winners = [[fence for fence in answers if fence is not None] for answers in rounds]
    assert [len(fences) for fences in winners] == [1] * ROUNDS
    held = asked(pool, "SELECT run_id::text, fence, status FROM run_handoff JOIN runs USING (run_id)")
    assert sorted(held) == sorted((run_id, fence, "running") for run_id, (fence,) in zip(run_ids, winners, strict=True))
    told = asked(
        pool,
        "SELECT run_id::text, array_agg(event_type ORDER BY timestamp)::text[] FROM run_events GROUP BY run_id",
    )
    # A refusal says what stood in the way at last, so it comes after the start.
    assert sorted(told) == sorted((run_id, ["created", "started", "transition_refused"]) for run_id in run_ids)
    first = sum(answers[0] is not None for answers in rounds)
    tell(f"{ROUNDS} rounds, one claim each; {first} won by the one process, {ROUNDS - first} by the other")
