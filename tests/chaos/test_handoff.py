"""Every part of the way from a submit to a mark is killed at seeded moments: no run is lost, none executed twice in one
attempt.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.celery_worker import prepared
from tests.chaos.conftest import FULL, tell
from tests.chaos.handoff import Handoff, handoff
from tests.database import Database
from tests.redis_server import RedisServer

#: Killed from outside, at moments that are drawn.
OUTSIDE = {"child": 60, "relay": 15, "broker": 12, "worker": 8} if FULL else {"child": 5, "relay": 1, "broker": 1}
SUBMITTERS = 60 if FULL else 6
#: Killed by themselves, in the handler and between its end and the mark.
INSIDE = 40 if FULL else 4
SLOW = 40 if FULL else 4


def kill(parts: Handoff, chance: random.Random) -> None:
    ways: dict[str, Callable[[random.Random], None]] = {
        "child": parts.kill_child,
        "relay": parts.kill_relay,
        "broker": parts.kill_broker,
        "worker": parts.kill_worker,
    }
    order = [way for way, count in OUTSIDE.items() for _ in range(count)]
    chance.shuffle(order)
    for way in order:
        time.sleep(chance.uniform(0.02, 0.3))
        ways[way](chance)
        parts.deliver_again(3, chance)


@pytest.mark.timeout(1200)
def test_nothing_is_lost_and_no_attempt_is_executed_twice(
    database: Database, redis_server: RedisServer, chance: random.Random
) -> None:
    place = prepared(database, redis_server.url, lease=1.0, broker=redis_server.url)
    with handoff(place, redis_server) as parts:
        parts.submit("dies", INSIDE, {"times": 1})
        parts.submit("dies_before_the_mark", INSIDE, {"times": 1})
        parts.kill_submitters(SUBMITTERS)
        parts.submit("slow", SLOW, {"seconds": 0.3})
        kill(parts, chance)
        parts.recover()
        parts.kills["in the handler"] = parts.kills["before the mark"] = INSIDE

        tell(f"kills: {dict(parts.kills)}, {parts.kills.total()} in all")
        parts.prove()
        for name in ("dies", "dies_before_the_mark"):
            ((fewest,),) = place.rows("SELECT min(attempt) FROM runs WHERE name = %s", name)
            assert fewest > 1
    assert parts.kills.total() >= (200 if FULL else 15)
    assert parts.kills.keys() >= OUTSIDE.keys()
