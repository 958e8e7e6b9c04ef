"""Moving executions, whole, beside one plain INSERT ... SELECT of the same columns.

Whole means all that ``run`` does: judging, quarantine, links, checkpoints, the count at the end. The plain statement
has the mapping's own expressions and the same session settings. ``by hand`` is what a DBA writes without the mapping:
the same columns, the feed in metadata, no mark of origin, nothing kept. Neither of them could be resumed, or survives
one bad row.
"""

from __future__ import annotations

from functools import partial

from benchmarks.history import EXECUTIONS, History, history
from benchmarks.rounds import Side, compare
from benchmarks.setup import Setup
from spine_migrate.backfill.run import Options

BY_HAND = {
    "run_id": "s.execution_id",
    "kind": "'pipeline'",
    "name": "s.pipeline_name",
    "params": "s.params",
    "priority": "'normal'",
    "lane": "s.lane",
    "idempotency_key": "s.idempotency_key",
    "parent_run_id": "s.parent_execution_id",
    "status": "s.status",
    "external_ref": "s.backend_task_id",
    "result": "s.result",
    "error": "s.error",
    "error_type": "left(s.error_type, 100)",
    "attempt": "coalesce(s.retry_count, 0) + 1",
    "retry_of_run_id": "s.retry_of_execution_id",
    "max_retries": "s.max_retries",
    "trigger_source": "s.trigger_source",
    "metadata": "CASE WHEN s.feed_id IS NULL THEN '{}' ELSE"
    " jsonb_build_object('feed_id', s.feed_id, 'entity_type', 'feed', 'entity_id', s.feed_id) END",
    "tags": "'{}'",
    "created_at": "s.created_at",
    "started_at": "s.started_at",
    "completed_at": "s.completed_at",
}

# The rows that a plain statement can carry; a join that costs it a hundredth of its time.
_ORDINARY = (
    "NOT EXISTS (SELECT FROM spine_demo.awkward_row AS a"
    " WHERE a.entity = 'executions' AND a.source_key = s.execution_id::text)"
)


def online(setup: Setup) -> None:
    with setup.server() as server:
        clean = history(server, executions=setup.rows)
        print(f"{setup.rows:,} executions, none awkward, into the indexed table")
        compare(setup.alternate(_plain(clean) | _ours(clean)), "plain", rows=setup.rows)


def awkward(setup: Setup) -> None:
    with setup.server() as server:
        odd = history(server, executions=setup.rows, awkward=1.0)
        print(f"{setup.rows:,} executions, one in a hundred awkward; the plain statement leaves the awkward ones out")
        sides = {"plain": Side(odd.empty_target, lambda: odd.plain_insert(EXECUTIONS, where=_ORDINARY))}
        compare(setup.alternate(sides | _ours(odd)), "plain", rows=setup.rows)


def offline(setup: Setup) -> None:
    with setup.server() as server:
        clean = history(server, executions=setup.rows)
        print(f"{setup.rows:,} executions, none awkward, indexes and foreign keys built after the load")
        sides = {
            f"offline, {workers} workers": Side(
                clean.empty_target, partial(clean.move, EXECUTIONS, Options(offline=True, workers=workers))
            )
            for workers in (1, 2, 4)
        }
        compare(setup.alternate(_plain(clean) | sides), "plain", rows=setup.rows)


def _plain(clean: History) -> dict[str, Side]:
    return {
        "plain": Side(clean.empty_target, lambda: clean.plain_insert(EXECUTIONS)),
        "by hand": Side(clean.empty_target, lambda: clean.plain_insert(EXECUTIONS, columns=BY_HAND)),
    }


def _ours(source: History) -> dict[str, Side]:
    return {
        "1 worker": Side(source.empty_target, lambda: source.move(EXECUTIONS)),
        "2 workers": Side(source.empty_target, lambda: source.move(EXECUTIONS, Options(workers=2))),
    }
