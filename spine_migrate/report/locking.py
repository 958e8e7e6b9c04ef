"""Locks that a step takes and who is in the way of them, as text."""

from __future__ import annotations

from collections.abc import Iterator

from spine_migrate.plan.locking import Locking, Taking
from spine_migrate.report.value import escaped


def locking_text(found: Locking) -> str:
    """Empty where no lock is taken, and nothing blocks."""
    blocks = [f"not ready: {escaped(one.sentence)}" for one in found.blocks]
    unknown = [f"could not tell {escaped(one.what)}: {escaped(one.why)}" for one in found.unknown]
    return "\n".join([*_takings(found), *_holders(found), *unknown, *blocks])


def _takings(found: Locking) -> Iterator[str]:
    for stage in dict.fromkeys(one.stage for one in found.takings):
        yield f"Locks of the {stage}:"
        for one in found.takings:
            if one.stage == stage:
                yield from _taking(one)


def _taking(one: Taking) -> Iterator[str]:
    yield f"  {one.mode.value} on {escaped(str(one.table))}, {one.held}"
    yield f"    stops {', '.join(one.mode.stops)}"
    if one.lock_timeout is None:
        yield "    nobody who reads or writes waits behind it"
    else:
        yield f"    given up after {one.lock_timeout} ms, and tried again a moment later"
    yield from (f"    {escaped(statement)}" for statement in (one.asks, *one.under))


def _holders(found: Locking) -> Iterator[str]:
    if not found.takings:
        return
    if not found.in_the_way:
        yield "Nobody is in the way of these now."
        return
    yield "In the way now:"
    for one in found.in_the_way:
        yield f"  {escaped(one.who_has_what)}"
        yield f"    {one.how_long}"
