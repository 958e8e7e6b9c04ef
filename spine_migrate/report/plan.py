"""A plan, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from spine_migrate.plan.locking import Locking
from spine_migrate.plan.model import Example, Finding, Plan, Scan, Table
from spine_migrate.report.locking import locking_text

FORMAT = 1

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_STEP = 1024
_MINUTE, _HOUR = 60, 3600


def as_json(plans: Sequence[Plan], locking: Sequence[Locking] = ()) -> dict[str, Any]:
    """``{"format": 1, "ready": ..., "plans": [...], "stages": [...]}``; a plan has the fields of ``plan.model.Plan``, a
    stage those of ``plan.locking.Locking``.
    """
    return {
        "format": FORMAT,
        "ready": all(plan.ready for plan in plans) and all(one.ready for one in locking),
        "plans": [plan.as_json() for plan in plans],
        "stages": [one.as_json() for one in locking],
    }


def as_text(plans: Sequence[Plan], locking: Sequence[Locking] = ()) -> str:
    """Every plan with its SQL; each ends in ``ready`` or in the numbered list of what blocks it."""
    parts = ["\n".join(_lines(plan)) for plan in plans]
    return "\n\n".join([*parts, *filter(None, map(locking_text, locking))])


def announcement(scan: Scan) -> str:
    """The line that says which scan comes next."""
    rows = f", about {scan.rows:,} rows" if scan.rows else ""
    return f"{scan.purpose}: reads {scan.table} ({_size(scan.bytes)}{rows})"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"Plan for {plan.mapping} (mapping {plan.digest[:12]}, PostgreSQL {plan.server_version}, as {plan.role})"
    if plan.started:
        yield "  The migration has begun; rows that were moved before are counted again below."
    yield from _tables(plan)
    yield from _rows(plan)
    yield from _conflicts(plan)
    yield from _estimate(plan)
    if plan.unknown:
        yield "  could not tell"
        yield from (f"    {_plain(found.what)}: {_plain(found.why)}" for found in plan.unknown)
    if plan.warnings:
        yield "  to know"
        yield from (f"    {line}" for line in _findings(plan.warnings, "-"))
    if plan.scans:
        yield "  tables that were read"
        yield from (f"    {announcement(scan)}" for scan in plan.scans)
    for step in plan.steps:
        yield f"  {step.title}; takes {step.lock}"
        yield from (f"    {line}" for line in step.sql.splitlines())
    if plan.ready:
        yield "ready"
    else:
        yield f"not ready, {len(plan.blocks)} to lift first"
        yield from _findings(plan.blocks, None)


def _tables(plan: Plan) -> Iterator[str]:
    for role, table in (("source", plan.source), ("target", plan.target)):
        if table is not None:
            yield f"  {role:<13} {', '.join(_facts(table))}"
            if len(table.parts) > 1:
                yield from (f"    part {part.name}, {_size(part.bytes)}" for part in table.parts)


def _facts(table: Table) -> Iterator[str]:
    yield table.name
    yield table.kind if table.persistence == "permanent" else f"{table.persistence} {table.kind}"
    yield _size(table.bytes)
    yield f"replica identity {table.replica_identity}"
    if table.inbound_keys:
        yield f"{len(table.inbound_keys)} foreign keys point to it"
    if table.triggers:
        yield f"{len(table.triggers)} triggers"


def _rows(plan: Plan) -> Iterator[str]:
    if plan.rows is None:
        return
    yield f"  rows          {plan.rows.total:>12,}"
    yield f"  quarantine    {plan.rows.rejected:>12,}"
    for found in plan.rows.rejects:
        yield f"    {found.reason}, {found.field}: {found.rows:,}"
        yield from _examples(found.examples)
    if plan.keys is not None:
        yield f"  moved before  {plan.keys.ours:>12,}"
        yield f"  key taken     {plan.keys.taken:>12,}  by rows of somebody else"
        yield from _examples(plan.keys.examples)
    for link in plan.links or ():
        yield f"  broken links  {link.rows:>12,}  {link.field}"
        yield from _examples(link.examples)


def _conflicts(plan: Plan) -> Iterator[str]:
    for conflict in plan.conflicts or ():
        yield f"  unique index {conflict.index}"
        yield f"    {conflict.losers:,} rows collide with an earlier one, in {conflict.groups:,} groups"
        yield from _examples(conflict.examples)
        yield f"    {conflict.taken:,} rows collide with a target row"
        yield from _examples(conflict.taken_examples)


def _estimate(plan: Plan) -> Iterator[str]:
    if plan.estimate is None:
        return
    found = plan.estimate
    yield f"  time          {_time(found.seconds_low)} to {_time(found.seconds_high)} with one worker"
    yield f"  room          about {_size(found.target_bytes)} in the target, and about as much WAL"
    yield f"    measured on {found.sample_rows:,} rows in {found.sample_seconds:.2f} s: {found.how}"


def _examples(examples: Iterable[Example]) -> Iterator[str]:
    return (f"      {_plain(example.key)}: {_plain(example.detail)}" for example in examples)


def _findings(findings: Iterable[Finding], bullet: str | None) -> Iterator[str]:
    """Numbered, or with a bullet; the remedy stands on lines of its own."""
    for number, found in enumerate(findings, 1):
        head = bullet or f"{number}."
        yield f"{head} {_plain(found.sentence)}"
        yield from (f"{' ' * len(head)} {_plain(line)}" for line in found.remedy.splitlines())


def _size(count: int) -> str:
    size = float(count)
    for unit in _UNITS:
        if size < _STEP or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == _UNITS[0] else f"{size:.1f} {unit}"
        size /= _STEP
    raise AssertionError("the last unit takes any size")


def _time(seconds: float) -> str:
    if seconds < 1:
        return "under a second"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"


def _plain(text: str) -> str:
    """Row values may hold anything; a terminal shall not act on it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
