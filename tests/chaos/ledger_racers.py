"""Two processes that submit the same work, or claim the same run, at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from psycopg_pool import ConnectionPool

from spine_migrate.execution import RunRecord, TransitionError, WorkSpec
from spine_migrate.execution.ledgers.postgres import PostgresLedger

#: Seconds after which a race that does not come to an end has failed.
LONGEST = 120.0

# Not forked: a driver's threads and connections are no child's.
_PROCESSES = get_context("spawn")

Act = Callable[[PostgresLedger, str], Any]


def submit(ledger: PostgresLedger, key: str) -> str:
    """The id of the run that has the key."""
    return ledger.create(RunRecord(WorkSpec("task", "work", idempotency_key=key))).run_id


def submit_for_entity(ledger: PostgresLedger, key: str) -> str:
    """The same where two unique indexes stand in the way."""
    metadata = {"entity_type": "feed", "entity_id": key}
    return ledger.create(RunRecord(WorkSpec("task", "work", idempotency_key=key, metadata=metadata))).run_id


def claim(ledger: PostgresLedger, run_id: str) -> int | None:
    """The fence, None where the claim was refused."""
    try:
        return ledger.claim(run_id, "racer", lease_seconds=LONGEST).fence
    except TransitionError:
        return None


def race(url: str, act: Act, prizes: Sequence[str]) -> Iterator[list[Any]]:
    """What ``act`` gave to each of two processes, prize by prize."""
    start = _PROCESSES.Barrier(2, timeout=LONGEST)
    with ExitStack() as opened:
        tells = []
        for _ in range(2):
            told, teller = _PROCESSES.Pipe(duplex=False)
            opened.enter_context(told)
            tells.append(told)
            racer = _PROCESSES.Process(target=_race, args=(url, act, prizes, start, teller))
            racer.start()
            opened.callback(racer.join, LONGEST)
            # The racer's own end must be the last one, so that its death is heard.
            teller.close()
        for _ in prizes:
            yield [told.recv() for told in tells]


def _race(url: str, act: Act, prizes: Sequence[str], start: Barrier, teller: Connection) -> None:
    with ConnectionPool(url, min_size=1, max_size=1) as pool:
        ledger = PostgresLedger(pool)
        for prize in prizes:
            start.wait()
            teller.send(act(ledger, prize))
    teller.close()
