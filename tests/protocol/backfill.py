"""The backfill: one transaction for each range, by as many workers at a time as the scope has; and its end.

A batch that fails or is killed leaves nothing, and its range is done again. The checkpoint, which is moved in the same
transaction, keeps two workers from the same range.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.rules import Rules, Scope
from tests.protocol.state import Batch, Move, Phase, State, held, landed, names, shown, truncating


def moves(state: State, rules: Rules, scope: Scope) -> Iterator[Move]:
    for number, batch in enumerate(state.batches):
        for what, after in _steps(state, batch, number, rules, scope):
            yield f"batch {number + 1} {what}", after
    if not state.backfilled and all(batch.phase == Phase.OVER for batch in state.batches):
        yield "the backfill is finished", state._replace(backfilled=True)


def _steps(state: State, batch: Batch, number: int, rules: Rules, scope: Scope) -> Iterator[Move]:
    if batch.phase == Phase.IDLE:
        yield from _begin(state, number, rules, scope)
        return
    if batch.phase == Phase.OVER:
        if state.backfilled and scope.retries:
            yield "is to be done again", state.with_batch(number, Batch())
        return
    if scope.kills:
        yield "is killed", state.with_batch(number, Batch())
    if batch.phase == Phase.LOCKED:
        yield _snapshot(state, batch, number, rules)
    elif batch.phase == Phase.WRITTEN:
        yield "commits", landed(state.with_batch(number, Batch(Phase.OVER)), batch.rows)
    elif batch.locked:
        yield from _write(state, batch, number, rules)
    else:
        yield from _lock(state, batch, number)


def _begin(state: State, number: int, rules: Rules, scope: Scope) -> Iterator[Move]:
    busy = sum(batch.phase not in {Phase.IDLE, Phase.OVER} for batch in state.batches)
    if busy == scope.workers or (rules.triggers_first and not state.captured):
        return
    if rules.lock_before_snapshot:
        yield from _lock(state, Batch(Phase.LOCKED), number)
    else:
        yield _snapshot(state, Batch(), number, rules)


def _lock(state: State, batch: Batch, number: int) -> Iterator[Move]:
    if not any(applier.alone for applier in state.appliers):
        yield "takes its lock", state.with_batch(number, batch._replace(locked=True))


def _snapshot(state: State, batch: Batch, number: int, rules: Rules) -> Move:
    rows = [(key, row.version) for key, row in enumerate(state.source) if row is not None and row.place == number]
    ours = frozenset(key for key, _ in rows if state.target[key] is not None)
    if rules.batch_leaves_ours:
        rows = [(key, version) for key, version in rows if key not in ours]
        ours = frozenset()
    after = batch._replace(phase=Phase.READ, rows=tuple(rows), known=ours)
    return f"takes its snapshot: {shown(rows)}", state.with_batch(number, after)


def _write(state: State, batch: Batch, number: int, rules: Rules) -> Iterator[Move]:
    keys = {key for key, _ in batch.rows}
    if truncating(state) or keys & held(state, batch=number):
        return
    met = {key for key in keys if state.target[key] is not None}
    refused = met if rules.batch_leaves_ours else met - (batch.known - batch.stale)
    if refused and (rules.batch_leaves_ours or rules.one_snapshot):
        # A unique violation, or a row that was changed since the snapshot: it rolls back and is done again.
        yield f"fails on {names(refused)}", state.with_batch(number, Batch())
        return
    written = Batch(Phase.WRITTEN, locked=True, rows=batch.rows)
    yield f"writes {shown(batch.rows)}", state.with_batch(number, written)
