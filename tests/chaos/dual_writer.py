"""An application that writes every change to the legacy table and to ``runs``, in one transaction, until stopped."""

from __future__ import annotations

import random
import time
from multiprocessing.synchronize import Event

import psycopg

#: At most so many transactions per second.
RATE = 500

_INSERT = """
    WITH old AS (
        INSERT INTO executions (execution_id, pipeline_name, params, lane, trigger_source, status, retry_count,
                                max_retries, created_at)
        VALUES (%(key)s, 'dual', '{"n": 1.0}', 'normal', 'api', 'completed', 0, 3, clock_timestamp()) RETURNING *)
    INSERT INTO runs (run_id, kind, name, params, priority, lane, status, attempt, max_retries, trigger_source,
                      metadata, tags, created_at)
    SELECT execution_id, 'pipeline', pipeline_name, params, 'normal', lane, status, 1, max_retries, trigger_source,
           '{"migrated_from": "capture-spine/executions"}', '{}', created_at
      FROM old"""
_UPDATE = """
    WITH old AS (
        UPDATE executions SET error = %(text)s, completed_at = clock_timestamp()
         WHERE execution_id = %(key)s RETURNING *)
    UPDATE runs SET error = old.error, completed_at = old.completed_at FROM old WHERE run_id = old.execution_id"""
_DELETE = """
    WITH new AS (DELETE FROM runs WHERE run_id = %(key)s)
    DELETE FROM executions WHERE execution_id = %(key)s"""


def write(url: str, seed: int, stop: Event) -> None:
    """Insert, update, and delete what was inserted, by ``seed``; in a process of its own."""
    chance = random.Random(seed)
    mine: list[str] = []
    began, done = time.monotonic(), 0
    with psycopg.connect(url, autocommit=True) as connection:
        moved = [str(key) for (key,) in connection.execute("SELECT run_id FROM runs ORDER BY 1 LIMIT 500")]
        while not stop.is_set():
            drawn = chance.random()
            if drawn < 0.4:
                mine.append(str(connection.execute("SELECT gen_random_uuid()").fetchall()[0][0]))
                connection.execute(_INSERT, {"key": mine[-1]})
            elif drawn < 0.8 or not mine:
                connection.execute(_UPDATE, {"key": chance.choice(mine or moved), "text": f"written {chance.random()}"})
            else:
                connection.execute(_DELETE, {"key": mine.pop(chance.randrange(len(mine)))})
            done += 1
            time.sleep(max(0.0, began + done / RATE - time.monotonic()))
