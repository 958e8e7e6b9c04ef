"""kill -9 of a repair inside its batches: what was changed is on record as it was, and the next repair ends it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.chaos.conftest import FULL, tell
from tests.chaos.patient import LONGEST, Patient, admit
from tests.command import run
from tests.database import Database

KILLS = 24 if FULL else 4
REPAIR = ("repair", "--yes", "--quiet", "--wait", "--batch-size", "5")
EXECUTIONS, EVENTS = "capture-spine/executions", "capture-spine/execution_events"
KEYS = {"runs": "run_id", "run_events": "event_id"}

# One row in so many, by the key, so that a seed decides which.
_SPOILT: tuple[LiteralString, ...] = (
    "DELETE FROM run_events WHERE hashtext(run_id::text) % 5 = 0",
    """DELETE FROM runs r
        WHERE hashtext(run_id::text) % 5 = 0 AND NOT EXISTS (SELECT FROM run_events v WHERE v.run_id = r.run_id)
          AND NOT EXISTS (SELECT FROM runs c WHERE r.run_id IN (c.parent_run_id, c.retry_of_run_id))
          AND NOT EXISTS (SELECT FROM spine_migrate.link l WHERE l.target_key = r.run_id::text)""",
    "UPDATE runs SET error = 'spoilt \\ ''é', attempt = attempt + 1 WHERE hashtext(run_id::text) % 3 = 0",
    "UPDATE run_events SET data = '{\"spoilt\": [1.00]}' WHERE hashtext(event_id::text) % 4 = 1",
    """INSERT INTO runs (run_id, kind, name, status, metadata)
       SELECT gen_random_uuid(), kind, name, 'completed', '{"migrated_from": "capture-spine/executions"}'
         FROM runs WHERE hashtext(run_id::text) % 6 = 1""",
    """INSERT INTO run_events (run_id, event_type, timestamp, source)
       SELECT run_id, 'completed', now(), 'capture-spine/execution_events'
         FROM run_events WHERE hashtext(event_id::text) % 8 = 2""",
)
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """Rows that a repair changes one after the other, by their keys on the target."""

    table: str
    extra: bool
    keys: list[str]


def rows(patient: Patient) -> Rows:
    """Both tables of the target, as JSON by key."""
    with psycopg.connect(patient.url) as connection:
        found = {}
        for table, key in KEYS.items():
            statement = sql.SQL("SELECT t.{}::text, row_to_json(t) FROM {} AS t")
            named = map(sql.Identifier, (key, table))
            found.update({f"{table} {one}": row for one, row in connection.execute(statement.format(*named))})
    return found


def recorded(patient: Patient) -> list[tuple[str, str, Any]]:
    """Kind, table and key, and the row as it was."""
    with psycopg.connect(patient.url) as connection:
        return [
            (kind, f"{'runs' if mapping == EXECUTIONS else 'run_events'} {key}", before)
            for kind, mapping, key, before in connection.execute(
                "SELECT r.kind, m.mapping, r.target_key, r.before FROM spine_migrate.repair r"
                " JOIN spine_migrate.migration m USING (migration_id)"
            )
        ]


def spoilt(patient: Patient) -> tuple[Rows, list[Stage]]:
    """Rows of every kind that a repair can mend, many of each; in the order in which it comes to them."""
    right = rows(patient)
    with psycopg.connect(patient.url) as connection:
        for statement in _SPOILT:
            assert connection.execute(statement).rowcount >= KILLS
    wrong = rows(patient)

    def stage(table: str, *, extra: bool) -> Stage:
        found = (key for key, row in wrong.items() if (key not in right if extra else row != right.get(key, row)))
        return Stage(table, extra, sorted(key.split()[1] for key in found if key.startswith(f"{table} ")))

    # The runs come before their events, and go after them.
    return wrong, [stage(table, extra=extra) for extra in (False, True) for table in sorted(KEYS, reverse=not extra)]


def strike(stage: Stage, key: str, *, at_its_end: bool) -> sql.Composed:
    """Locks a row that a batch is to change; or what a batch that removes rows counts, when all else of it is done."""
    if stage.extra and at_its_end:
        return sql.SQL(
            "SELECT FROM spine_migrate.checkpoint JOIN spine_migrate.migration m USING (migration_id)"
            " WHERE segment = -1 AND m.mapping = {} FOR UPDATE OF checkpoint"
        ).format(sql.Literal(EXECUTIONS if stage.table == "runs" else EVENTS))
    return sql.SQL("SELECT FROM {} AS t WHERE t.{} = {}::uuid FOR UPDATE").format(
        sql.Identifier(stage.table), sql.Identifier(KEYS[stage.table]), sql.Literal(key)
    )


def proved(patient: Patient, wrong: Rows) -> int:
    """Of each row that is not as it was there is one record, with all that it was, and none of any other."""
    now, found = rows(patient), recorded(patient)
    changed = {key for key in wrong.keys() | now.keys() if wrong.get(key) != now.get(key)}
    assert sorted(key for _, key, _ in found) == sorted(changed)
    for kind, key, before in found:
        assert before == wrong.get(key)
        assert (kind == "missing", kind == "extra") == (key not in wrong, key not in now)
    if found:
        patient.consistent()
    return len(found)


@pytest.mark.timeout(900)
def test_a_repair_killed_again_and_again(database: Database, chance: random.Random) -> None:
    patient = admit(database.url, executions=1200 if FULL else 250, seed=chance.randrange(1000))
    patient.finish()
    wrong, stages = spoilt(patient)
    killed, done = 0, [0]
    for stage in sorted((chance.choice(stages) for _ in range(KILLS)), key=stages.index):
        left = sorted(set(stage.keys) - {key.split()[1] for _, key, _ in recorded(patient)})
        if not left:
            continue
        with psycopg.connect(patient.url) as gate:
            gate.execute(strike(stage, chance.choice(left), at_its_end=chance.random() < 1 / 3))
            tool = patient.tool(*REPAIR)
            patient.held_up(gate, tool)
            inside = patient.in_transaction()
            tool.kill()
            tool.communicate()
            killed += tool.returncode == -9 and inside > 0
        done.append(proved(patient, wrong))

    tell(f"{killed} of {KILLS} kills found the repair inside a batch; rows done by then: {done[1:]}")
    assert killed > KILLS // 2
    assert done == sorted(done)
    last = patient.tool(*REPAIR)
    out, errors = last.communicate(timeout=LONGEST)
    assert last.returncode == 0, out + errors
    proved(patient, wrong)
    patient.prove()
    again = run(patient.url, *REPAIR)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(recorded(patient)) == proved(patient, wrong)
