"""The applier: takes entries of the log, reads the rows of their keys anew, and writes them to the target.

It may take any one entry or all that it sees: an entry can be deferred, and the order of ids is not that of commits.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.rules import Rules, Scope
from tests.protocol.state import (
    EVERY,
    NO_KEYS,
    Applier,
    Entry,
    Move,
    Phase,
    State,
    held,
    in_order,
    landed,
    name,
    names,
    shown,
    truncating,
)

Rows = dict[int, int | None]


def moves(state: State, rules: Rules, scope: Scope) -> Iterator[Move]:
    if not state.captured:
        return
    for number, applier in enumerate(state.appliers):
        who = "applier" if len(state.appliers) == 1 else f"applier {number + 1}"
        for what, after in _steps(state, applier, number, rules, scope):
            yield f"{who} {what}", after


def _steps(state: State, applier: Applier, number: int, rules: Rules, scope: Scope) -> Iterator[Move]:
    if applier.phase == Phase.IDLE:
        yield from _begin(state, number, rules, scope)
        return
    if scope.kills:
        yield "is killed", _ended(state, applier, number, lost=not rules.removed_where_applied)
    if applier.phase == Phase.PASSED:
        yield _again(state, number, applier.again if rules.noted_before else state.tombstones, rules)
    elif applier.phase == Phase.WRITTEN:
        yield "commits", _committed(state, applier, number, rules)
    else:
        yield from _write(state, applier, number, rules)


def _begin(state: State, number: int, rules: Rules, scope: Scope) -> Iterator[Move]:
    for entries in _choices(state.log):
        yield _take(state, number, entries, rules, scope)
    if not state.tombstones:
        return
    if not rules.barrier:
        yield _again(state, number, state.tombstones, rules)
    elif _nothing_in_flight(state):
        noted = state.tombstones if rules.noted_before else NO_KEYS
        yield "passes the barrier", state.with_applier(number, Applier(Phase.PASSED, again=noted))


def _nothing_in_flight(state: State) -> bool:
    """No batch has its lock, and no other applier keeps batches from having it."""
    return not any(batch.locked for batch in state.batches) and not any(one.alone for one in state.appliers)


def _choices(log: tuple[Entry, ...]) -> Iterator[tuple[Entry, ...]]:
    for number, entry in enumerate(log):
        if entry not in log[:number]:
            yield (entry,)
    if len(log) > 1:
        yield log


def _take(state: State, number: int, entries: tuple[Entry, ...], rules: Rules, scope: Scope) -> Move:
    left = list(state.log)
    rows: Rows = {}
    for entry in entries:
        left.remove(entry)
        for key in range(scope.keys) if entry.key == EVERY else (entry.key,):
            rows[key] = _now(state, key) if rules.keys_only else entry.image
    alone = _nothing_in_flight(state) if rules.whatever_the_batch else state.backfilled
    reading = _reading(state, rows)._replace(entries=entries, alone=alone)
    after = state._replace(log=tuple(left)).with_applier(number, reading)
    taken = ", ".join(name(entry.key) for entry in entries)
    return f"takes {taken} from the log: {shown(sorted(rows.items()))}", after


def _again(state: State, number: int, keys: frozenset[int], rules: Rules) -> Move:
    rows = {key: _now(state, key) if rules.keys_only else None for key in keys}
    after = state.with_applier(number, _reading(state, rows)._replace(again=keys))
    return f"takes the tombstones: {shown(sorted(rows.items()))}", after


def _reading(state: State, rows: Rows) -> Applier:
    known = frozenset(key for key in rows if state.target[key] is not None)
    return Applier(Phase.READ, rows=tuple(sorted(rows.items())), known=known)


def _now(state: State, key: int) -> int | None:
    row = state.source[key]
    return None if row is None else row.version


def _write(state: State, applier: Applier, number: int, rules: Rules) -> Iterator[Move]:
    """Deletes, then upserts. A row that was changed since the snapshot makes it fail; a row that it cannot see, because
    it was inserted since, does so for an upsert, and is passed over by a delete.
    """
    others = state.appliers[:number] + state.appliers[number + 1 :]
    effects = [(key, version) for key, version in applier.rows if version is not None or key in applier.known]
    waits = {key for key, _ in effects} & held(state, applier=number)
    if truncating(state) or waits or (rules.fence and any(one.phase == Phase.WRITTEN for one in others)):
        return
    met = {key for key, version in effects if version is None or state.target[key] is not None}
    refused = {key for key in met if key not in applier.known or key in applier.stale}
    if refused or (rules.fence and applier.overtaken):
        yield f"fails on {names(refused) if refused else 'the capture'}", _ended(state, applier, number)
        return
    written = Applier(
        Phase.WRITTEN,
        entries=applier.entries,
        again=applier.again,
        alone=applier.alone,
        rows=tuple(effects),
        buried=_buried(applier, rules),
    )
    yield f"writes {shown(effects)}", state.with_applier(number, written)


def _buried(applier: Applier, rules: Rules) -> frozenset[int]:
    """TRUNCATE leaves no tombstones: it waited for every batch that had read the table."""
    if not rules.deletes_applied_again or applier.again or applier.alone:
        return NO_KEYS
    named = {entry.key for entry in applier.entries}
    gone = {key for key, version in applier.rows if version is None and key in named}
    return frozenset(gone if rules.tombstone_for_every_delete else gone - applier.known)


def _committed(state: State, applier: Applier, number: int, rules: Rules) -> State:
    # A tombstone that was applied again is forgotten.
    state = state._replace(tombstones=(state.tombstones - applier.again) | applier.buried)
    anew = applier.buried if rules.noted_before else NO_KEYS
    appliers = tuple(
        one._replace(overtaken=one.overtaken or one.phase == Phase.READ, again=one.again - anew)
        if other != number and one.phase != Phase.IDLE
        else one
        for other, one in enumerate(state.appliers)
    )
    return landed(state._replace(appliers=appliers).with_applier(number, Applier()), applier.rows)


def _ended(state: State, applier: Applier, number: int, *, lost: bool = False) -> State:
    """Rolled back: its entries are in the log as before, unless they had left it for good."""
    if applier.entries and not lost:
        state = state._replace(log=in_order(state.log + applier.entries))
    return state.with_applier(number, Applier())
