"""The server is aborted in the middle of an undo, and of a retry from quarantine."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from typing import Any, LiteralString

import psycopg
import pytest

from spine_migrate.db.embedded import EmbeddedServer
from tests.chaos.conftest import FULL
from tests.chaos.patient import Patient
from tests.chaos.test_crashed_server import SETTINGS, admitted
from tests.conftest import StartServer
from tests.legacy import prove

CRASHES = 6 if FULL else 2
UNDO = ("undo", "--all", "--yes", "--quiet")
LEGACY: LiteralString = (
    "SELECT (SELECT md5(string_agg(e::text, '' ORDER BY execution_id)) FROM executions e),"
    " (SELECT md5(string_agg(v::text, '' ORDER BY event_id)) FROM execution_events v)"
)
# A row that the undo comes to when that share of its table is behind it.
ROW_OF: dict[str, LiteralString] = {
    # One without links: where a row that it points to goes, it is touched before its turn.
    "runs": "SELECT FROM runs r WHERE r.run_id = (SELECT s.execution_id FROM executions s JOIN runs x"
    " ON x.run_id = s.execution_id WHERE coalesce(x.parent_run_id, x.retry_of_run_id) IS NULL ORDER BY s.ctid"
    " OFFSET (SELECT floor(%s * count(*)) FROM runs WHERE coalesce(parent_run_id, retry_of_run_id) IS NULL)"
    " LIMIT 1) FOR UPDATE",
    "run_events": "SELECT FROM run_events r WHERE r.event_id = (SELECT s.event_id FROM execution_events s"
    " JOIN run_events x USING (event_id) ORDER BY s.ctid"
    " OFFSET (SELECT floor(%s * count(*)) FROM run_events) LIMIT 1) FOR UPDATE",
}
COUNTS: dict[str, LiteralString] = {
    "run_events": "SELECT count(*) FROM run_events",
    "runs": "SELECT count(*) FROM runs",
}

Strike = Callable[[psycopg.Connection[Any]], None]


def moved(server: EmbeddedServer, seed: int, executions: int = 1600) -> Patient:
    """Everything is moved. Tables are blown up so that an undo takes several batches and builds its indexes."""
    patient = admitted(server, executions, seed)
    execute(patient, "ALTER TABLE runs SET (fillfactor = 20)")
    tool = patient.tool("executions-to-runs", "--quiet")
    _, errors = tool.communicate(timeout=120)
    assert tool.returncode == 1, errors
    for table in ("executions", "execution_events"):
        execute(patient, f"ALTER TABLE {table} SET (fillfactor = 10)")
        execute(patient, f"VACUUM FULL {table}")
    return patient


def execute(patient: Patient, statement: str) -> None:
    with psycopg.connect(patient.url, autocommit=True) as connection:
        connection.execute(statement)


def rows(patient: Patient, statement: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(patient.url) as connection:
        return connection.execute(statement).fetchall()


@contextmanager
def held(patient: Patient, strike: Strike, tool: Callable[[], subprocess.Popen[str]]) -> Iterator[None]:
    """Until the block ends, the tool waits for what ``strike`` locks. ``tool`` may start it: by then the lock is there,
    however slow this process is.
    """
    with closing(psycopg.connect(patient.url)) as gate:
        strike(gate)
        held_up = tool()
        held_up.send_signal(signal.SIGCONT)
        assert patient.held_up(gate, held_up), held_up.communicate()
        yield


def in_batch(patient: Patient, table: str, share: float) -> Strike:
    """In the batch that comes to a row: rows before it are removed, those of earlier batches for good."""

    def strike(gate: psycopg.Connection[Any]) -> None:
        locked = gate.execute(ROW_OF[table], [share])
        assert locked.rowcount == 1

    return strike


def in_building(gate: psycopg.Connection[Any]) -> None:
    """CREATE INDEX CONCURRENTLY waits for snapshots that are older; its index is there and not valid."""
    gate.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    gate.execute("SELECT count(*) FROM runs")


@contextmanager
def served(patient: Patient) -> Iterator[None]:
    """With indexes of the owner's, an undo builds none: what is held up then is a batch."""
    columns = ("parent_run_id", "retry_of_run_id")
    for column in columns:
        execute(patient, f"CREATE INDEX of_ours_{column} ON runs ({column})")
    yield
    for column in columns:
        execute(patient, f"DROP INDEX of_ours_{column}")


def again(patient: Patient, server: EmbeddedServer, strike: Strike, *words: str) -> None:
    """Start a command, crash the server in it, and see it give up."""
    started = cache(lambda: patient.tool(*words, "--retry-for", "0"))
    with held(patient, strike, started):
        server.crash()
    tool = started()
    _, errors = tool.communicate(timeout=60)
    assert tool.returncode == 5, errors
    server.start()


def undone(patient: Patient, legacy: list[tuple[Any, ...]]) -> None:
    """Nothing of the migration is left, nothing of the source is touched, and it all moves again."""
    assert rows(patient, "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM run_events)") == [(0, 0)]
    assert rows(patient, "SELECT DISTINCT step FROM spine_migrate.migration") == [("undone",)]
    assert rows(patient, LEGACY) == legacy
    execute(patient, "ALTER TABLE runs RESET (fillfactor)")
    patient.finish()


@pytest.mark.timeout(900)
def test_an_undo_that_gives_up_is_started_again(start_server: StartServer, chance: random.Random) -> None:
    server = start_server(settings=SETTINGS)
    patient = moved(server, chance.randrange(1000))
    legacy = rows(patient, LEGACY)
    shares = sorted(chance.random() for _ in range(CRASHES))
    for share in shares[: CRASHES // 2]:
        again(patient, server, in_batch(patient, "run_events", share), *UNDO)
        patient.consistent()
    events = patient.tool("undo", "--mapping", "capture-spine/execution_events", "--yes", "--quiet")
    events.communicate(timeout=60)
    assert events.returncode == 0
    again(patient, server, in_building, *UNDO)
    assert rows(patient, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(1,)]
    with served(patient):
        for share in shares[CRASHES // 2 :]:
            again(patient, server, in_batch(patient, "runs", share), *UNDO)
            patient.consistent()

    last = patient.tool(*UNDO)
    _, errors = last.communicate(timeout=120)

    assert last.returncode == 0, errors
    undone(patient, legacy)


@pytest.mark.timeout(900)
def test_an_undo_outlives_the_crashes(start_server: StartServer, chance: random.Random) -> None:
    server = start_server(settings=SETTINGS)
    patient = moved(server, chance.randrange(1000))
    legacy = rows(patient, LEGACY)
    with served(patient):
        started = cache(lambda: patient.tool(*UNDO, "--retry-for", "120"))
        # Of each table the last row: batches are behind it by then.
        for table, count in COUNTS.items():
            before = rows(patient, count)
            with held(patient, in_batch(patient, table, 0.999), started):
                assert [(0,)] < rows(patient, count) < before
                # Until the next lock is there, however slow this process is.
                started().send_signal(signal.SIGSTOP)
                server.crash()
            server.start()
        tool = started()
        tool.send_signal(signal.SIGCONT)
        _, errors = tool.communicate(timeout=120)

    assert tool.returncode == 0, errors
    undone(patient, legacy)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("retry_for", ["120", "0"], ids=["outlives", "gives-up"])
def test_a_retry_from_quarantine(start_server: StartServer, chance: random.Random, retry_for: str) -> None:
    """Struck at the end of the executions' batch, then of that of the events that come along."""
    server = start_server(settings=SETTINGS)
    patient = moved(server, chance.randrange(1000), 400)
    execute(
        patient,
        "UPDATE executions SET status = 'completed' WHERE execution_id::text IN"
        " (SELECT source_key FROM spine_migrate.quarantine WHERE reason = 'unknown_value')",
    )
    before = rows(patient, "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM run_events)")[0]
    retry = ("quarantine", "retry", "--all", "--quiet")

    def at_its_end(mapping: str) -> Strike:
        def strike(gate: psycopg.Connection[Any]) -> None:
            gate.execute(
                "SELECT FROM spine_migrate.checkpoint c JOIN spine_migrate.migration m USING (migration_id)"
                " WHERE m.mapping = %s AND c.segment = -1 FOR UPDATE OF c",
                [mapping],
            )

        return strike

    strikes = [at_its_end("capture-spine/executions"), at_its_end("capture-spine/execution_events")]
    if retry_for == "0":
        for strike in strikes:
            again(patient, server, strike, *retry)
            patient.consistent(retried=True)
        tool = patient.tool(*retry)
    else:
        started = cache(lambda: patient.tool(*retry, "--retry-for", retry_for))
        for strike in strikes:
            with held(patient, strike, started):
                started().send_signal(signal.SIGSTOP)
                server.crash()
            server.start()
        tool = started()
        tool.send_signal(signal.SIGCONT)
    _, errors = tool.communicate(timeout=120)

    assert tool.returncode == 1, errors
    after = rows(patient, "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM run_events)")[0]
    assert all(now > then for now, then in zip(after, before, strict=True))
    patient.consistent(retried=True)
    with psycopg.connect(patient.url) as connection:
        prove(connection, "executions", "execution_events")
