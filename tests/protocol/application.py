"""The application: transactions that insert, update, delete, change keys and truncate; and the triggers that it fires.

Operations are on single rows by key. There READ COMMITTED does all that REPEATABLE READ and SERIALIZABLE do, and more:
those only fail where it waits and goes on. So a writer has no snapshot of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.rules import Rules, Scope
from tests.protocol.state import EVERY, Entry, Move, Phase, Row, State, Writer, in_order, name

Changes = dict[int, Row | None]


def moves(state: State, rules: Rules, scope: Scope) -> Iterator[Move]:
    if state.cutover == Phase.LOCKED and rules.cutover_locks_first:
        return
    for number, writer in enumerate(state.writers):
        who = f"writer {number + 1}"
        if writer.phase == Phase.READ:
            yield f"{who} commits", _committed(state, number, writer, rules)
            if scope.rollbacks:
                yield f"{who} rolls back", state.with_writer(number, Writer(Phase.OVER))
        # They are alike, so it is enough that they begin in their order.
        begun = number == 0 or state.writers[number - 1].phase != Phase.IDLE
        if begun and writer.phase != Phase.OVER and state.operations < scope.operations:
            for kind, what, changes in _operations(state, number, scope):
                if kind in scope.kinds:
                    yield f"{who} {what}", _changed(state, number, kind, changes, rules)


def _operations(state: State, number: int, scope: Scope) -> Iterator[tuple[str, str, Changes]]:
    """What a writer can do now without waiting: its kind, in words, and what becomes of which keys."""
    others = [other for place, other in enumerate(state.writers) if place != number and other.phase == Phase.READ]
    if any(other.truncated for other in others):
        return
    waits = {key for other in others for key, _ in other.changes}
    changes = dict(state.writers[number].changes)
    rows = {key: changes.get(key, state.source[key]) for key in range(scope.keys) if key not in waits}
    version = state.versions + 1
    for key, row in rows.items():
        if row is None:
            for what, new in _written(f"inserts {name(key)}={version}", key, version, None, scope):
                yield "insert", what, {key: new}
            continue
        for what, new in _written(f"updates {name(key)}={version}", key, version, row, scope):
            yield "update", what, {key: new}
        yield "delete", f"deletes {name(key)}", {key: None}
        for other in (other for other, there in rows.items() if there is None):
            rekeyed = f"changes key {name(key)} to {name(other)}={version}"
            for what, new in _written(rekeyed, other, version, row, scope):
                yield "rekey", what, {key: None, other: new}
    # TRUNCATE waits for whoever has written the table or read it; a session in READ may not have come to reading yet.
    reading = any(one.phase == Phase.WRITTEN for one in state.batches + state.appliers)
    if not others and not reading:
        yield "truncate", "truncates", dict.fromkeys(range(scope.keys))


def _written(what: str, key: int, version: int, old: Row | None, scope: Scope) -> Iterator[tuple[str, Row]]:
    """The row as it comes to lie: where its key says, or, in ranges of places, where it was or anywhere else."""
    if not scope.by_place:
        yield what, Row(version, key % scope.ranges)
        return
    for place in range(scope.ranges):
        where = f" in range {place + 1}" if old is None or old.place != place else ""
        yield what + where, Row(version, place)


def _changed(state: State, number: int, kind: str, changes: Changes, rules: Rules) -> State:
    """The triggers append in the writer's own transaction, once they are there: the old key and the new one."""
    writer = state.writers[number]
    entries: tuple[Entry, ...] = ()
    if state.captured and kind == "truncate":
        entries = (Entry(EVERY),)
    elif state.captured:
        entries = tuple(Entry(key, None if row is None else row.version) for key, row in changes.items())
    if rules.keys_only:
        entries = tuple(Entry(entry.key) for entry in entries)
    else:
        entries = tuple(entry._replace(number=state.operations) for entry in entries)
    return state._replace(
        operations=state.operations + 1,
        versions=state.versions + any(row is not None for row in changes.values()),
    ).with_writer(
        number,
        Writer(
            Phase.READ,
            changes=tuple(sorted({**dict(writer.changes), **changes}.items())),
            entries=writer.entries + entries,
            truncated=writer.truncated or kind == "truncate",
        ),
    )


def _committed(state: State, number: int, writer: Writer, rules: Rules) -> State:
    source = list(state.source)
    for key, row in writer.changes:
        source[key] = row
    state = state._replace(
        source=tuple(source),
        log=in_order(state.log + writer.entries),
        committed=state.committed | {row.version for _, row in writer.changes if row is not None},
    ).with_writer(number, Writer(Phase.OVER))
    if not writer.truncated:
        return state
    # Not MVCC-safe (PostgreSQL manual, 13.6): whoever has an older snapshot and has not read yet finds the table empty.
    return state._replace(
        batches=tuple(one._replace(rows=()) if one.phase == Phase.READ else one for one in state.batches),
        appliers=tuple(
            one._replace(rows=tuple((key, None) for key, _ in one.rows))
            if one.phase == Phase.READ and rules.keys_only
            else one
            for one in state.appliers
        ),
    )
