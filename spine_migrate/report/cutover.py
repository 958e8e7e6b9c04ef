"""The gates of a cutover, what a switch did, and what a rollback left, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spine_migrate.cutover.dependent import Dependent
from spine_migrate.cutover.finish import Finished
from spine_migrate.cutover.gates import Examined, Gate
from spine_migrate.cutover.switch import Switched
from spine_migrate.report.value import escaped

FORMAT = 1


@dataclass(frozen=True)
class RolledBack:
    """``staying``: target rows without a legacy form, ``set_aside``: rows kept as they were; both by mapping.
    ``finished``: what an earlier call had left open.
    """

    switched: Switched | None
    staying: Mapping[str, int]
    set_aside: Mapping[str, int]
    finished: Finished


def gates_text(examined: Examined) -> str:
    """One line for each gate, with its remedy where it is closed; then what hangs on the tables."""
    lines = [line for gate in examined.gates for line in gate_lines(gate)]
    if examined.dependents:
        lines += ["", "What hangs on the legacy tables:", *dependents_text(examined.dependents)]
    return "\n".join(lines)


def gate_lines(gate: Gate) -> Iterator[str]:
    yield f"{'open  ' if gate.ok else 'CLOSED'}  {gate.name}: {escaped(gate.evidence)}"
    if not gate.ok:
        yield f"        {escaped(gate.remedy)}"


def dependents_text(found: Iterable[Dependent]) -> Iterator[str]:
    for one in found:
        yield f"  {'breaks' if one.blocks else 'known '}  {one.kind} {escaped(one.object)}: {escaped(one.breaks)}"
        yield f"          {escaped(one.remedy)}"
        if one.statement is not None:
            yield from (f"          {escaped(line)}" for line in one.statement.splitlines())


def cutover_json(examined: Examined, switched: Switched | None) -> dict[str, Any]:
    """``{"format": 1, "gates": [...], "dependents": [...], "ok": ..., "switched": null or {...}}``."""
    return {
        "format": FORMAT,
        "ok": examined.ok,
        "gates": [asdict(gate) for gate in examined.gates],
        "dependents": [asdict(one) for one in examined.dependents],
        "switched": None if switched is None else asdict(switched),
    }


def switched_text(switched: Switched, mappings: Sequence[str]) -> str:
    unproven = "".join(f"{line}\n" for line in _unproven("cutover", switched.unproven))
    return (
        f"{', '.join(mappings)}: cut over. The tables were locked for {switched.seconds * 1000:,.0f} ms.\n{unproven}"
        f"Keep spine-migrate sync run going: it carries what is written from now on back to the legacy tables, so that "
        f"spine-migrate rollback is as quick."
    )


def _unproven(command: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield f"Holds for new rows only: {escaped(name)}. Give {command} again, which validates it, or do it by hand."


def finished_json(done: Finished) -> dict[str, Any]:
    """``{"format": 1, "switched": null, "validated": [...], "unproven": [...]}``."""
    return {"format": FORMAT, "switched": None, **asdict(done)}


def finished_text(done: Finished) -> str:
    lines = ["Cut over already; what was left to do:", *_validated(done), *_unproven("cutover", done.unproven)]
    return "\n".join(lines)


def _validated(done: Finished) -> Iterator[str]:
    for name in done.validated:
        yield f"Validated, holds for all rows now: {escaped(name)}."


def rollback_json(done: RolledBack) -> dict[str, Any]:
    """``{"format": 1, "switched": null or {...}, "without_legacy_form": {...}, "set_aside": {...}, "validated": [...],
    "unproven": [...]}``: the last two of foreign keys that an earlier call had left open.
    """
    return {
        "format": FORMAT,
        "switched": None if done.switched is None else asdict(done.switched),
        "without_legacy_form": dict(done.staying),
        "set_aside": dict(done.set_aside),
        **asdict(done.finished),
    }


def rollback_text(done: RolledBack) -> str:
    lines = []
    if done.switched is not None:
        lines.append(f"Rolled back. The tables were locked for {done.switched.seconds * 1000:,.0f} ms.")
        lines += _unproven("rollback", done.switched.unproven)
    lines += [*_validated(done.finished), *_unproven("rollback", done.finished.unproven)]
    lines += [
        f"{mapping}: {count:,} rows of the target have no legacy form and stay there."
        for mapping, count in done.staying.items()
    ]
    lines += [
        f"{mapping}: {count:,} rows of the target hold more than their legacy rows; they are kept as they were in "
        f"spine_migrate.set_aside."
        for mapping, count in done.set_aside.items()
        if count
    ]
    lines.append("The target follows the legacy tables again: keep spine-migrate sync run going.")
    return "\n".join(lines)
