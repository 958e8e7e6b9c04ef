"""What backends might have given, for tests that have none, and what it comes to."""

from __future__ import annotations

import io
from typing import Any

from spine_migrate.parity.outputs.compare import Options, judged
from spine_migrate.parity.outputs.model import Outputs
from spine_migrate.parity.outputs.observation import Observation
from spine_migrate.parity.outputs.rules import NO_RULES
from spine_migrate.report import outputs_terminal

OPTIONS = Options("pipeline", "ingest_otc", NO_RULES)
_EVENTS = ("created", "started", "completed")


def ran(
    result: Any, *, took: float = 1.0, events: tuple[str, ...] = _EVENTS, status: str = "completed", **more: Any
) -> Observation:
    error = None if status == "completed" else "ValueError"
    documents = {
        "$": result,
        "status": status,
        "error_type": error,
        "error": None,
        "attempts": 1,
        "events": [{"type": each} for each in events],
        "children": [],
        **more,
    }
    return Observation(status, documents, "00000000-0000-4000-8000-000000000000", seconds=took, waited=0.25)


def late() -> Observation:
    return Observation("timed out", {}, "id", gave_up="No worker has taken the run.")


def of(options: Options = OPTIONS, **backends: list[Observation]) -> Outputs:
    return judged([(name, tuple(runs)) for name, runs in backends.items()], options)


def paths(outputs: Outputs, name: str) -> list[str]:
    (one,) = [one for one in outputs.backends if one.name == name]
    return [found.path for found in one.differences]


def text(outputs: Outputs) -> str:
    shown = io.StringIO()
    outputs_terminal.render(outputs, shown)
    return shown.getvalue()
