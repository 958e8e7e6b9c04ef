"""Before everything the capture, after everything the cutover.

Both wait for the writers in flight. Once the table is locked nothing is written, and the applier drains the log.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.rules import Rules, Scope
from tests.protocol.state import Move, Phase, State


def moves(state: State, rules: Rules, scope: Scope) -> Iterator[Move]:
    writing = any(writer.phase == Phase.READ for writer in state.writers)
    if not state.captured and not writing:
        yield "the triggers are committed", state._replace(captured=True)
    if state.cutover == Phase.IDLE and state.backfilled:
        if rules.cutover_locks_first and not writing:
            yield "cutover locks the table", state._replace(cutover=Phase.LOCKED)
        elif not rules.cutover_locks_first and drained(state):
            yield "cutover finds nothing pending", state._replace(cutover=Phase.LOCKED)
    elif state.cutover == Phase.LOCKED:
        if scope.kills:
            yield "cutover is killed", state._replace(cutover=Phase.IDLE)
        if (drained(state) or not rules.cutover_locks_first) and not writing:
            yield "cutover switches", state._replace(cutover=Phase.OVER)


def drained(state: State) -> bool:
    """The backfill is finished, and nothing that is committed is still to be applied, as far as can be seen."""
    return (
        state.backfilled
        and not state.log
        and not state.tombstones
        and all(applier.phase == Phase.IDLE for applier in state.appliers)
        and all(batch.phase in {Phase.IDLE, Phase.OVER} for batch in state.batches)
    )
