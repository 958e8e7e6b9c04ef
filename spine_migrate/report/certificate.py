"""Certificates, and what became of them, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from spine_migrate.mapping.emit.certificate import BUCKETS
from spine_migrate.parity.certificate import Certificate, Sealed
from spine_migrate.parity.certificate_check import Check, Checked, Outcome, SideNow
from spine_migrate.report.value import escaped

FORMAT = 1
_LISTED = 16


def as_text(certificate: Certificate, digest: str) -> str:
    """All of it but the digests of buckets and the statements, which the file has."""
    snapshot = certificate.snapshot
    where = f" at {snapshot.lsn}" if snapshot.lsn else ""
    lines = [f"Certificate {digest}", ""]
    for one in certificate.migrations:
        lines.extend((*_sealed(one), ""))
    lines.extend(
        (
            f"Taken {snapshot.taken_at.isoformat()}, database {snapshot.database}, snapshot {snapshot.snapshot}{where}",
            f"PostgreSQL {snapshot.server_version}, spine-migrate {certificate.tool_version}",
            f"Equality by {certificate.mode.value}: {certificate.equality}",
            f"Settings: {', '.join(f'{name} = {value}' for name, value in certificate.settings.items())}",
            "Not checked:",
            *(f"  - {line}" for line in certificate.not_checked),
        )
    )
    return "\n".join(escaped(line) for line in lines)


def _sealed(one: Sealed) -> list[str]:
    lines = [
        f"{one.mapping}  {one.source_table} -> {one.target_table}  equal",
        f"  root             {one.new.root} (both sides)",
        f"  rows             {one.new.rows:,} of {one.counts.source_rows:,} legacy rows",
        f"  mapping's digest {one.digest}",
        f"  migration        {one.migration_id}",
    ]
    if one.quarantine:
        held = ", ".join(f"{each.open + each.discarded:,} {each.reason}" for each in one.quarantine)
        lines.append(f"  in quarantine    {held}")
    lines.extend(
        f"  links open       {link.field}: {link.waiting:,} waiting, {link.broken:,} broken" for link in one.links
    )
    if one.self_test is not None:
        lines.append(f"  self-test        {one.self_test} kinds of difference, all found")
    return [*lines, *(f"  not compared     {place}" for place in one.not_compared)]


def check_as_text(check: Check) -> str:
    lines: list[str] = []
    for one in check.migrations:
        lines.append(f"{one.mapping} (migration {one.migration_id}): {one.outcome.value}")
        if one.reason is not None:
            lines.append(f"  {one.reason.sentence}")
        lines.extend(
            f"  {name}: {_side(side)}" for name, side in (("legacy", one.old), ("target", one.new)) if side is not None
        )
        if one.outcome is Outcome.CHANGED:
            lines.append(f"  {_advice(one)}")
    return "\n".join(escaped(line) for line in [*lines, _SENTENCES[check.outcome]])


_SENTENCES = {
    Outcome.HOLDS: "The certificate holds: both sides are as they were certified.",
    Outcome.CHANGED: "Changed since it was certified.",
    Outcome.UNKNOWN: "Could not tell whether the certificate holds.",
}


def _side(side: SideNow) -> str:
    if not side.buckets:
        return f"as certified, rows: {side.rows_now:,}"
    listed = ", ".join(map(str, side.buckets[:_LISTED])) + (", …" if len(side.buckets) > _LISTED else "")
    return (
        f"changed, rows: {side.rows_certified:,} certified, {side.rows_now:,} now; "
        f"buckets changed: {len(side.buckets)} of {BUCKETS} ({listed})"
    )


def _advice(one: Checked) -> str:
    if one.agree:
        return "Both sides still agree with each other; compare again for a new certificate."
    return "The sides differ from each other; spine-migrate compare lists the rows."


def check_as_json(check: Check) -> dict[str, Any]:
    """``{"format", "outcome", "snapshot", "migrations"}``; ``old`` and ``new`` are null where it could not be told."""
    snapshot = {**asdict(check.snapshot), "taken_at": check.snapshot.taken_at.isoformat()}
    migrations = [{**asdict(one), "agree": one.agree} for one in check.migrations]
    return {"format": FORMAT, "outcome": check.outcome.value, "snapshot": snapshot, "migrations": migrations}
