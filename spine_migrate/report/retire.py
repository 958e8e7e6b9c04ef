"""The gates of a retire, what it would drop, what it did, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from spine_migrate.cutover.retire import Retired
from spine_migrate.cutover.retire_gates import Examined
from spine_migrate.db.retirements import Retirement
from spine_migrate.report.cutover import dependents_text, gate_lines
from spine_migrate.report.value import escaped

FORMAT = 1


def gates_text(examined: Examined) -> str:
    """One line for each gate, with its remedy where it is closed; what hangs on the tables, who reads them, what would
    be run.
    """
    lines = [line for gate in examined.gates for line in gate_lines(gate)]
    if examined.dependents:
        lines += ["", "What hangs on what goes:", *dependents_text(examined.dependents)]
    lines += ["", "Who reads it (no gate):"]
    if examined.readers.unknown:
        lines.append(f"  {examined.readers.unknown}")
    lines += [f"  {calls:,} calls  {escaped(text)}" for text, calls in examined.readers.statements]
    if not examined.readers.statements and not examined.readers.unknown:
        lines.append("  No statement that names it is in pg_stat_statements.")
    lines += ["", "What would be run, in one transaction:"]
    lines += [
        f"  {escaped(one.statement)};{f'  -- {one.bytes:,} bytes' if one.bytes else ''}" for one in examined.drops
    ]
    return "\n".join(lines)


def evidence(examined: Examined) -> dict[str, Any]:
    """What the ledger keeps of the gates."""
    return {
        "gates": [{"name": gate.name, "evidence": gate.evidence} for gate in examined.gates],
        "dependents": [asdict(one) for one in examined.dependents],
        "drops": [asdict(one) for one in examined.drops],
    }


def as_json(examined: Examined, allowed: Sequence[Retirement] = (), retired: Retired | None = None) -> dict[str, Any]:
    """``{"format": 1, "ok": ..., "gates": [...], "dependents": [...], "readers": {...}, "drops": [...],
    "allowed": [...], "retired": null or {...}}``.
    """
    return {
        "format": FORMAT,
        "ok": examined.ok,
        "gates": [asdict(gate) for gate in examined.gates],
        "dependents": [asdict(one) for one in examined.dependents],
        "readers": {
            "unknown": examined.readers.unknown,
            "statements": [{"statement": text, "calls": calls} for text, calls in examined.readers.statements],
        },
        "drops": [asdict(one) for one in examined.drops],
        "allowed": [_one_json(one) for one in allowed],
        "retired": None if retired is None else asdict(retired),
    }


def done_text(allowed: Sequence[Retirement], retired: Retired | None) -> str:
    names = ", ".join(one.mapping for one in allowed)
    kept = allowed[0].kept if allowed else ""
    if retired is None:
        return escaped(
            f"{names}: retire is allowed ({kept}). Nothing was dropped: alembic upgrade spine_contract@head does that, "
            f"or spine-migrate retire. Until then changes are not carried back; rollback and retire --revoke end that."
        )
    return escaped(
        f"{names}: retired ({kept}). The application could wait for at most {retired.seconds * 1000:,.0f} ms."
    )


def revoked_text(count: int) -> str:
    if not count:
        return "Nothing was allowed."
    return "Retire is not allowed any more; keep spine-migrate sync run going, which carries changes back again."


def before_json(found: Sequence[Retirement]) -> dict[str, Any]:
    """``{"format": 1, "already": [...]}``, where nothing was left to do."""
    return {"format": FORMAT, "already": [_one_json(one) for one in found]}


def before_text(found: Sequence[Retirement]) -> str:
    return "\n".join(
        escaped(
            f"{one.mapping}: retired on {one.retired_at:%Y-%m-%d %H:%M:%S %Z} by {one.retired_by} ({one.kept}); there "
            f"is nothing left to do."
        )
        for one in found
    )


def _one_json(one: Retirement) -> dict[str, Any]:
    return {
        "mapping": one.mapping,
        "migration_id": one.migration_id,
        "source_table": one.source_table,
        "allowed_at": one.allowed_at.isoformat(),
        "allowed_by": one.allowed_by,
        "archive": one.archive,
        "archive_digest": one.archive_digest,
        "without_archive": one.without_archive,
        "retired_at": None if one.retired_at is None else one.retired_at.isoformat(),
        "retired_by": one.retired_by,
        "retired_how": one.retired_how,
    }
