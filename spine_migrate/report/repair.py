"""What a repair did or would do, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from spine_migrate.backfill.repair_batch import Kept
from spine_migrate.backfill.repaired import Repaired
from spine_migrate.report.value import escaped

FORMAT = 1

_WORDS = {"missing": "missing rows", "differing": "rows that differ", "extra": "rows without a legacy row"}
_DONE = {
    "missing": "moved",
    "quarantined": "put into quarantine, since the rules refuse them",
    "differing": "corrected",
    "extra": "removed",
}
_BEYOND = {
    "doubled": "are on the target and in quarantine: mend the row and retry it, or remove it from the target",
    "gone": "are in quarantine and their legacy row is gone: quarantine discard",
}
_WHY = {
    "changed": "changed since they were compared; they were left alone",
    "duplicate": "keys that more than one row has; which one is right only you can tell",
    "doubled": "in quarantine, and on the target as well",
    "key_taken": "the target has a row with this key that is not ours, or has lost its mark",
    "refused": "a rule cannot carry the legacy value any more",
    "referenced": "rows point to them",
    "server_refused": "the server refuses the row",
    "busy": "others wrote or held them for as long as --retry-for; give the command again",
}


def as_json(results: Sequence[Repaired]) -> dict[str, Any]:
    """``{"format": 1, "migrations": [...]}``; a migration has the fields of ``Repaired``."""
    return {"format": FORMAT, "migrations": [_fields(one) for one in results]}


def _fields(one: Repaired) -> dict[str, Any]:
    """Not asdict: it would count the pairs of a Counter anew."""
    found = {name: getattr(one, name) for name in [field.name for field in fields(one)]}
    return {**found, "examples": [asdict(kept) for kept in one.examples]}


def planned(results: Sequence[Repaired], kinds: Sequence[str]) -> str:
    """What ``repair`` would do with these kinds of rows."""
    lines = []
    for one in results:
        lines.append(f"{one.mapping}: to repair (migration {one.migration_id})")
        lines += [f"  {one.found[kind]:>12,}  {_WORDS[kind]}" for kind in kinds]
        lines += [f"  {one.found[kind]:>12,}  {words}" for kind, words in _BEYOND.items() if one.found[kind]]
        lines += _left(one)
    return "\n".join(lines) or "There is nothing to repair."


def to_do(results: Sequence[Repaired], kinds: Sequence[str]) -> int:
    """How many rows it would try."""
    return sum(one.found[kind] for one in results for kind in kinds)


def as_text(results: Sequence[Repaired]) -> str:
    lines = []
    for one in results:
        lines.append(f"{one.mapping}: repaired (migration {one.migration_id})")
        lines += [f"  {one.rows[kind]:>12,}  {words}" for kind, words in _DONE.items() if one.rows[kind]]
        if one.fields:
            lines.append(
                "  columns written: " + ", ".join(f"{name} {rows:,}" for name, rows in one.fields.most_common())
            )
        if not one.rows:
            lines.append(f"  {0:>12,}  rows")
        if one.recounted:
            lines.append(f"  {one.recounted:>+12,}  rows that the ledger's count of moved rows was off by")
        lines += _left(one)
    return "\n".join(lines) or "There is nothing to repair."


def _left(one: Repaired) -> list[str]:
    lines = []
    for reason, count in one.kept.items():
        lines.append(f"  left {count:>7,}  {reason}: {_WHY.get(reason, reason)}")
        lines += [_example(kept) for kept in one.examples if kept.reason == reason]
    return lines


def _example(kept: Kept) -> str:
    return f"    {escaped(kept.key)}{f'  {escaped(kept.detail)}' if kept.detail else ''}"
