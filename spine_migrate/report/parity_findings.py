"""What is wrong, once per place that somebody can mend: the rule, the table, the law; not once per row.

Annotations and SARIF results are made of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from spine_migrate.parity.evidence import Histories
from spine_migrate.parity.model import Comparison, Difference, FieldCount, Report, Rule, Verdict

# Reasons that say no more than the counts of fields do, which name the rule.
_TOLD_BY_FIELDS = "differing"


@dataclass(frozen=True)
class Finding:
    """``code`` is stable and ``title`` short; ``rows`` is how many rows it is about, None where it is about none.

    ``path`` is the mapping's file on this machine and ``rule`` the rule in it, where the finding has one.
    ``differences`` are the listed ones that belong to it. ``certain`` is false for what could not be told.
    """

    code: str
    title: str
    sentence: str
    mapping: str | None = None
    path: str | None = None
    rule: Rule | None = None
    rows: int | None = None
    differences: list[Difference] = field(default_factory=list)
    certain: bool = True

    @property
    def line(self) -> int | None:
        return self.rule.line if self.rule else None


def findings(report: Report) -> Iterator[Finding]:
    """Differences first, as they are certain; nothing where all is equal."""
    paths = {one.mapping: one.path for one in report.comparisons}
    for one in report.comparisons:
        if one.verdict is Verdict.DIFFERENT:
            yield from _different(one)
    for histories in report.histories:
        yield from _histories(histories, paths.get(histories.mapping))
    for one in report.comparisons:
        yield from _untold(one)
    for reason in report.reasons:
        yield Finding(reason.code, "spine-migrate compare", reason.sentence, certain=False)


def _different(one: Comparison) -> Iterator[Finding]:
    for count in one.fields:
        yield _field(one, count)
    for reason in one.reasons:
        if reason.code != _TOLD_BY_FIELDS or not one.fields:
            listed = [each for each in one.differences if each.kind in (reason.code, reason.code.removesuffix("s"))]
            yield Finding(reason.code, one.mapping, reason.sentence, one.mapping, one.path, differences=listed)


def _field(one: Comparison, count: FieldCount) -> Finding:
    prefix = count.field.removesuffix("*")
    listed = [
        each
        for each in one.differences
        if each.kind == "field"
        and each.rule == count.rule
        and (each.field == count.field or (prefix != count.field and (each.field or "").startswith(prefix)))
    ]
    sentence = f"rows that differ in {count.field}: {count.rows}"
    return Finding(
        "field", f"{one.mapping}: {count.field}", sentence, one.mapping, one.path, count.rule, count.rows, listed
    )


def _histories(histories: Histories, path: str | None) -> Iterator[Finding]:
    for check in histories.checks:
        if check.broken > 0:
            sentence = f"{check.law} Runs that break it, and did not in the legacy tables: {check.broken}."
            title = f"{histories.mapping}: {check.code}"
            yield Finding(f"history-{check.code}", title, sentence, histories.mapping, path, rows=check.broken)
    if histories.verdict is Verdict.UNKNOWN:
        for reason in histories.reasons:
            yield Finding(reason.code, histories.mapping, reason.sentence, histories.mapping, path, certain=False)


def _untold(one: Comparison) -> Iterator[Finding]:
    if one.verdict is Verdict.UNKNOWN:
        for reason in one.reasons:
            yield Finding(reason.code, one.mapping, reason.sentence, one.mapping, one.path, certain=False)
    for each in one.self_test.failed if one.self_test else []:
        place = f" in {each.field}" if each.field else ""
        sentence = (
            f"The self-test injected {each.injected} differences of the kind {each.kind}{place}; "
            f"found: {each.found}, invented: {each.invented}."
        )
        yield Finding("self-test", one.mapping, sentence, one.mapping, one.path, certain=False)
