"""What a comparison rests on, in the words and rows that every rendering for people shares.

Every text is as it comes; a rendering escapes it for where it goes.
"""

from __future__ import annotations

from collections.abc import Iterator

from spine_migrate.parity.evidence import Histories, HistoryCheck, HistoryExample, Injection, SelfTest
from spine_migrate.parity.model import Comparison, Report, Snapshot

FORGIVEN_HEADINGS = ("rows", "what the rule gave up", "rule")
INJECTION_HEADINGS = ("kind", "field", "injected", "found", "invented", "")
CHECK_HEADINGS = ("broken", "inherited", "law")
EXAMPLE_HEADINGS = ("run", "law", "legacy key", "what", "legacy", "target")


def basis(report: Report) -> dict[str, str]:
    """What the whole report rests on, by name."""
    legacy = _read(report.source_snapshot, " of the legacy tables") if report.source_snapshot else {}
    return {
        f"Equality ({report.mode.value})": report.equality,
        "Events": report.events,
        **_read(report.snapshot, ""),
        **legacy,
        "Tool": f"spine-migrate {report.tool_version}",
    }


def _read(taken: Snapshot, whose: str) -> dict[str, str]:
    where = f", {'replayed up to' if taken.standby else 'at'} {taken.lsn}" if taken.lsn else ""
    return {
        f"Snapshot{whose}": f"{taken.snapshot}{where}",
        f"Database{whose}": f"{taken.database}, PostgreSQL {taken.server_version}",
        f"Snapshot{whose} taken at": taken.taken_at.isoformat(timespec="seconds"),
    }


def ways(one: Comparison) -> list[str]:
    """How one migration was compared: method, scope, self-test; a line each, of those that there are."""
    lines = [f"method {one.method.name}: {one.method.why}"] if one.method else []
    if one.scope.partial:
        lines.append(f"compared: {one.scope}, not all rows")
    if one.self_test:
        lines.append(f"self-test: {self_test(one.self_test)}")
    return lines


def self_test(test: SelfTest) -> str:
    if test.skipped:
        return f"none. {test.skipped.sentence}"
    passed = len(test.injections) - len(test.failed)
    told = f"{passed} of {len(test.injections)} kinds of difference found, injected into a copy of {test.rows} rows"
    return f"failed, {told}" if test.failed or not test.injections else told


def injections(tests: list[Injection]) -> Iterator[tuple[str, ...]]:
    for one in tests:
        numbers = (str(one.injected), str(one.found), str(one.invented))
        yield one.kind, one.field or "", *numbers, "found" if one.passed else "NOT found"


def forgiven(one: Comparison) -> Iterator[tuple[str, str, str]]:
    for each in one.forgiven:
        rule = f"{each.rule.field} ({each.rule})" if each.rule else "(dropped by the mapping)"
        yield str(each.rows), each.what, rule


def histories_title(histories: Histories) -> str:
    events = f" with {histories.events}" if histories.events else ", without events"
    return f"Histories of {histories.mapping}{events}"


def histories_facts(histories: Histories) -> list[str]:
    checks = f"runs looked at: {histories.runs}, laws: {len(histories.checks)}"
    return [checks, *(reason.sentence for reason in histories.reasons)]


def checks(found: list[HistoryCheck]) -> Iterator[tuple[str, str, str]]:
    for one in found:
        yield str(one.broken), str(one.inherited), f"{one.code}: {one.law}"


def examples(found: list[HistoryCheck]) -> Iterator[tuple[str, ...]]:
    for one in found:
        yield from ((each.run, one.code, *_shown(each)) for each in one.examples)


def _shown(one: HistoryExample) -> tuple[str, str, str, str]:
    return one.legacy_key or "", one.note, one.old or "", one.new or ""


def broken(report: Report) -> int:
    """Runs whose history breaks a law that its legacy history keeps, counted once per law."""
    return sum(check.broken for histories in report.histories for check in histories.checks)
