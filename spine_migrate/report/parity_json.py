"""A comparison as JSON, for machines and for the record. ``format`` changes when a key changes its meaning or goes."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from typing import Any

from spine_migrate.parity.evidence import Histories, Scope, SelfTest
from spine_migrate.parity.model import Comparison, Difference, Report, Rule, Snapshot

FORMAT = 1


def render(report: Report) -> str:
    return json.dumps(document(report), indent=2, ensure_ascii=False) + "\n"


def schema() -> str:
    """The JSON Schema (draft 2020-12) of what ``render`` gives."""
    return (resources.files("spine_migrate.report") / "parity.schema.json").read_text(encoding="utf-8")


def document(report: Report) -> dict[str, Any]:
    """Values are strings as the server wrote them, whole; None is SQL NULL or, inside JSON, an absent key."""
    return {
        "format": FORMAT,
        "tool_version": report.tool_version,
        "verdict": report.verdict.value,
        "reasons": [asdict(reason) for reason in report.reasons],
        "snapshot": _snapshot(report.snapshot),
        "source_snapshot": _snapshot(report.source_snapshot) if report.source_snapshot else None,
        "mode": report.mode.value,
        "equality": report.equality,
        "events": report.events,
        "not_checked": report.not_checked,
        "comparisons": [_comparison(one) for one in report.comparisons],
        "histories": [_histories(one) for one in report.histories],
    }


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    return {**asdict(snapshot), "taken_at": snapshot.taken_at.isoformat()}


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "mapping": one.mapping,
        "mapping_file": one.file,
        "mapping_digest": one.digest,
        "migration_id": one.migration_id,
        "step": one.step,
        "source_table": one.source_table,
        "target_table": one.target_table,
        "verdict": one.verdict.value,
        "reasons": [asdict(reason) for reason in one.reasons],
        "counts": asdict(one.counts) if one.counts else None,
        "equations": [{**asdict(equation), "holds": equation.holds} for equation in one.equations],
        "quarantine": [asdict(held) for held in one.quarantine],
        "links": [asdict(link) for link in one.links],
        "fields": [{"field": f.field, "rule": _rule(f.rule), "rows": f.rows} for f in one.fields],
        "differences_total": one.differences_total,
        "differences_listed": len(one.differences),
        "differences": [_difference(difference) for difference in one.differences],
        "not_compared": one.not_compared,
        "method": asdict(one.method) if one.method else None,
        "scope": _scope(one.scope),
        "forgiven": [{"rows": each.rows, "what": each.what, "rule": _rule(each.rule)} for each in one.forgiven],
        "self_test": _self_test(one.self_test) if one.self_test else None,
        "picture": asdict(one.picture) if one.picture else None,
    }


def _scope(scope: Scope) -> dict[str, Any]:
    return {
        "partial": scope.partial,
        "sample": scope.sample,
        "since": scope.since.isoformat() if scope.since else None,
        "keys": list(scope.keys) if scope.keys is not None else None,
    }


def _self_test(test: SelfTest) -> dict[str, Any]:
    return {
        "rows": test.rows,
        "injections": [{**asdict(one), "passed": one.passed} for one in test.injections],
        "skipped": asdict(test.skipped) if test.skipped else None,
    }


def _histories(histories: Histories) -> dict[str, Any]:
    return {
        "mapping": histories.mapping,
        "events": histories.events,
        "verdict": histories.verdict.value,
        "runs": histories.runs,
        "checks": [{**asdict(check), "broken": check.broken} for check in histories.checks],
        "reasons": [asdict(reason) for reason in histories.reasons],
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {**asdict(difference), "rule": _rule(difference.rule)}


def _rule(rule: Rule | None) -> dict[str, Any] | None:
    return {**asdict(rule), "place": str(rule)} if rule else None
