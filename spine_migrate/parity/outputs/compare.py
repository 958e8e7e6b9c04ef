"""The same work through several backends, round after round, and what their outputs have in common.

The first backend is the baseline. Its runs are compared with each other first: where they differ, the work is not
deterministic, and a difference there says nothing about a backend (old against old, the idea of twitter/diffy). Then
every run of every other backend is compared with the first one of the baseline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from spine_migrate import __version__
from spine_migrate.parity.model import Reason, Verdict, overall
from spine_migrate.parity.outputs.driving import Backend
from spine_migrate.parity.outputs.json_diff import Compared, Difference, compared
from spine_migrate.parity.outputs.json_path import RESULT, Path, covered, of_every_item, written
from spine_migrate.parity.outputs.model import Applied, Found, Measured, Noise, Outputs
from spine_migrate.parity.outputs.observation import HISTORY, OUTCOME, Observation
from spine_migrate.parity.outputs.rules import Rule, Rules

NOT_CHECKED = (
    "what the handler changes outside of its result: tables, files, calls of other systems",
    "what children come to; that they were submitted is compared, by kind and name",
    "events by which a run comes to a worker (queued, heartbeat, postponed), their times and the workers' names",
    "other params than these",
)

#: How a run ends is never noise.
_ENDING = "status"


@dataclass(frozen=True)
class Options:
    """``accept_failure``: failing alike is equal."""

    kind: str
    name: str
    rules: Rules
    repeat: int = 1
    accept_failure: bool = False
    dry_run: bool = False


@dataclass
class _Comparing:
    """``masked`` counts, by pattern, the differences that noise explains."""

    rules: Rules
    forgiven: Counter[Rule] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)

    def differences(self, old: Observation, new: Observation) -> list[Difference]:
        """By all that both have."""
        found = Compared()
        for root in (*OUTCOME, *HISTORY):
            if root in old.documents and root in new.documents:
                found.add(compared(old.documents[root], new.documents[root], self.rules, root=root))
        self.forgiven.update(found.forgiven)
        return found.differences

    def unsteady(self, runs: Sequence[Observation]) -> frozenset[Path]:
        """Where runs of one backend differ from its first."""
        return frozenset(difference.path for other in runs[1:] for difference in self.differences(runs[0], other))


def compare(
    backends: Sequence[Backend], options: Options, *, started: Callable[[str, int, int], None] = lambda *_: None
) -> Outputs:
    """Round after round, so that a machine that grows slower does so for all. ``started`` is told backend, round and
    number of rounds. A backend that did not end in time is not tried again; where that is the baseline, nothing is.

    Raises BackendError.
    """
    observed: dict[str, list[Observation]] = {backend.name: [] for backend in backends}
    for number in range(options.repeat):
        for backend in backends:
            runs = observed[backend.name]
            if all(one.gave_up is None for one in (*runs[-1:], *observed[backends[0].name])):
                started(backend.name, number + 1, options.repeat)
                runs.append(backend.observe())
    return judged([(name, tuple(runs)) for name, runs in observed.items()], options)


def judged(observed: Sequence[tuple[str, tuple[Observation, ...]]], options: Options) -> Outputs:
    """What observations come to, by backend, the baseline first."""
    comparing = _Comparing(options.rules)
    (first_name, first_runs), *others = observed
    ended = _ended(first_runs)
    noise = frozenset(path for path in comparing.unsteady(ended) if path[0] != _ENDING)
    reasons = tuple(_about_baseline(first_name, first_runs, noise, options))
    baseline = Measured(
        first_name,
        first_runs,
        Verdict.UNKNOWN if reasons else Verdict.EQUAL,
        reasons=reasons,
        events_compared=_has_events(ended),
        noisy=_patterns(noise),
    )
    steady = ended[:1] if len({run.documents[_ENDING] for run in ended}) == 1 else []
    measured = [_measured(name, runs, steady, noise, comparing) for name, runs in others]
    verdict = overall([one.verdict for one in (baseline, *measured)])
    found = Counter(of_every_item(path) for path in noise)
    return Outputs(
        kind=options.kind,
        name=options.name,
        repeat=options.repeat,
        verdict=verdict,
        reasons=tuple(reason for one in (baseline, *measured) for reason in one.reasons),
        backends=(baseline, *measured),
        rules_file=None if options.rules.file is None else str(options.rules.file),
        rules=tuple(Applied(rule, comparing.forgiven[rule]) for rule in options.rules.rules),
        noise=None if len(ended) <= 1 else tuple(
            Noise(path, count, comparing.masked[path]) for path, count in sorted(found.items())
        ),
        dry_run=options.dry_run,
        tool_version=__version__,
        not_checked=NOT_CHECKED,
    )  # fmt: skip


def _about_baseline(
    name: str, runs: Sequence[Observation], noise: frozenset[Path], options: Options
) -> Iterator[Reason]:
    """Why nothing can be said by it."""
    yield from _given_up(runs)
    ended = _ended(runs)
    endings = {one.documents[_ENDING] for one in ended}
    if len(endings) > 1:
        yield Reason("baseline-unsteady", f"The runs of the baseline {name} end differently: {_and(sorted(endings))}.")
    elif ended and not ended[0].completed and not options.accept_failure:
        error = ended[0].documents["error_type"] or ended[0].status
        yield Reason(
            "baseline-failed",
            f"The baseline {name} did not complete ({error}), so that being like it proves nothing; give"
            f" --accept-failure where it is meant to fail.",
        )
    elif (RESULT,) in noise:
        yield Reason(
            "result-noise",
            f"The results of the baseline {name} have nothing in common, so that there is nothing to compare; ignore $"
            f" by a rule where that is as it should be.",
        )


def _measured(
    name: str,
    runs: tuple[Observation, ...],
    reference: list[Observation],
    noise: frozenset[Path],
    comparing: _Comparing,
) -> Measured:
    """``reference`` is the baseline's first run, or nothing where that is no reference."""
    ended = _ended(runs)
    own = comparing.unsteady(ended)
    found: dict[str, Found] = {}
    for run in ended if reference else ():
        for difference in comparing.differences(reference[0], run):
            if covered(difference.path, noise):
                comparing.masked[of_every_item(_noisy_part(difference.path, noise))] += 1
                continue
            _count(found, difference, unsteady=covered(difference.path, own))
    reasons = tuple(_given_up(runs))
    if not runs:
        reasons = (Reason("not-executed", f"Nothing was executed on {name}, as the baseline did not end."),)
    verdict = Verdict.UNKNOWN if reasons or not reference else Verdict.EQUAL
    return Measured(
        name,
        runs,
        Verdict.DIFFERENT if found else verdict,
        tuple(found.values()),
        reasons,
        events_compared=_has_events(reference) and _has_events(ended),
        noisy=_patterns(own),
    )


def _count(found: dict[str, Found], difference: Difference, *, unsteady: bool) -> None:
    path = written(difference.path)
    before = found.get(path)
    found[path] = (
        Found(path, difference.kind, difference.old, difference.new, 1, unsteady)
        if before is None
        else replace(before, times=before.times + 1)
    )


def _noisy_part(path: Path, noise: frozenset[Path]) -> Path:
    return next(path[:end] for end in range(1, len(path) + 1) if path[:end] in noise)


def _given_up(runs: Sequence[Observation]) -> Iterator[Reason]:
    for run in runs:
        if run.gave_up is not None:
            yield Reason("timeout", run.gave_up)


def _ended(runs: Sequence[Observation]) -> list[Observation]:
    return [run for run in runs if run.gave_up is None]


def _has_events(runs: Sequence[Observation]) -> bool:
    return bool(runs) and "events" in runs[0].documents


def _patterns(paths: frozenset[Path]) -> tuple[str, ...]:
    return tuple(sorted({of_every_item(path) for path in paths}))


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)
