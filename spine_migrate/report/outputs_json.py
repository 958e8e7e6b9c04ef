"""A comparison of backends as JSON. ``format`` changes when a key changes its meaning or goes."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from typing import Any

from spine_migrate.parity.outputs.model import Measured, Outputs
from spine_migrate.parity.outputs.observation import Observation

FORMAT = 1


def render(outputs: Outputs) -> str:
    return json.dumps(document(outputs), indent=2, ensure_ascii=False) + "\n"


def schema() -> str:
    """The JSON Schema (draft 2020-12) of what ``render`` gives."""
    return (resources.files("spine_migrate.report") / "outputs.schema.json").read_text(encoding="utf-8")


def document(outputs: Outputs) -> dict[str, Any]:
    """Times in seconds. The first of ``backends`` is the baseline. ``noise`` is null where it was not looked for."""
    return {
        "format": FORMAT,
        "tool_version": outputs.tool_version,
        "verdict": outputs.verdict.value,
        "reasons": [asdict(reason) for reason in outputs.reasons],
        "kind": outputs.kind,
        "name": outputs.name,
        "repeat": outputs.repeat,
        "dry_run": outputs.dry_run,
        "backends": [_backend(outputs, one) for one in outputs.backends],
        "noise": None if outputs.noise is None else [asdict(one) for one in outputs.noise],
        "rules": [
            {
                "path": one.rule.pattern.text,
                "file": outputs.rules_file,
                "line": one.rule.line,
                "because": one.rule.because,
                "forgiven": one.forgiven,
            }
            for one in outputs.rules
        ],
        "not_checked": list(outputs.not_checked),
    }


def _backend(outputs: Outputs, one: Measured) -> dict[str, Any]:
    return {
        "name": one.name,
        "verdict": one.verdict.value,
        "reasons": [asdict(reason) for reason in one.reasons],
        "seconds": {
            "median": one.median_seconds,
            "least": min(one.seconds, default=None),
            "most": max(one.seconds, default=None),
            "overhead": outputs.overhead(one),
            "until_begun": one.median_waited,
        },
        "events_compared": one.events_compared,
        "runs": [_run(run) for run in one.observations],
        "noisy": list(one.noisy),
        "differences": [asdict(found) for found in one.differences],
    }


def _run(run: Observation) -> dict[str, Any]:
    return {"run_id": run.run_id, "status": run.status, "seconds": run.seconds, "until_begun": run.waited}
