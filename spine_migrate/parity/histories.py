"""Event parity: the history of every moved run, compared with the legacy one and held against the laws of histories.

What is compared are the pairs of a mapping of runs and the mapping of their events, in the snapshot of the comparison.
A law that the legacy tables break in the same way is inherited: it is told, and is no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from spine_migrate.db import catalog
from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import rows
from spine_migrate.errors import MappingError
from spine_migrate.mapping import model as mappings
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit import run_laws
from spine_migrate.mapping.emit.lives import EVENT_COLUMNS, RUN_COLUMNS, Lives
from spine_migrate.mapping.emit.narrow import Narrow
from spine_migrate.mapping.load import load, shipped
from spine_migrate.parity.evidence import Histories, HistoryCheck, HistoryExample
from spine_migrate.parity.in_flight import IN_FLIGHT, InFlight, in_flight
from spine_migrate.parity.model import COMPLETE, CUT_OVER, Comparison, Reason, Verdict

#: What each check holds a run to, in the order of reports. Codes are stable.
LAWS = {
    "sequence": "The event types are the same in the same order: by timestamp, then by the key of the table.",
    "count": "There are as many events.",
    "types": "There are as many events of each type.",
    "timestamps": "There are as many events of each timestamp.",
    "gaps": "No step between two events is missing; a run with started_at has a started event, one that has ended has "
    "the event of an end.",
    "terminal": "After the end come only the reprocessing of a dead letter, that a failed run was retried, and notes "
    "of others.",
    "started-first": "The creation comes before everything else, the start before the completion.",
    "status-agrees": "The run has the status that its last event led to.",
    "times-agree": "started_at and completed_at are the timestamps of the last start and the last end.",
    "orphans": "Every event has its run, and every event of this migration a run of this migration.",
    "attempts": "attempt counts on by one from the run that is retried, and from each time it was tried again.",
    "parents": "parent_run_id and retry_of_run_id lead to runs that are there, and in no circle of up to "
    f"{run_laws.CIRCLE} runs.",
    "idempotency": "No two runs have one idempotency key.",
    "one-active": "No two active runs are about one entity.",
}
# Why histories are not judged at all where any row may be on its way.
ANYTHING = "anything-in-flight"
# Of these an example shows when things happened.
_TIMED = frozenset({"timestamps", "terminal", "started-first", "times-agree"})
# Events of one history that an example shows.
_SHOWN = 20


def histories(
    connection: Connection, comparisons: Sequence[Comparison], files: Mapping[str, mappings.Mapping], named: int
) -> list[Histories]:
    """One for each mapping of runs among ``comparisons``, with its events where they are among them too.

    Runs in the transaction that the comparisons were made in. ``files`` are mappings that were given, by name; the
    others ship. ``named`` is how many runs to name per check. Raises psycopg.Error where the server fails.
    """
    pairs = [(one, _mapping(one, files)) for one in comparisons]
    found = []
    for comparison, mapping in pairs:
        if mapping is None or not set(run_laws.COLUMNS) | set(RUN_COLUMNS) <= set(mapping.target.columns):
            continue
        events = next((pair for pair in pairs if _are_events(pair[1], mapping)), None)
        found.append(_Pair(connection, comparison, mapping, events, named).run())
    return found


def _mapping(comparison: Comparison, files: Mapping[str, mappings.Mapping]) -> mappings.Mapping | None:
    """None for one that is nowhere or broken, as the comparison itself says."""
    name = comparison.mapping
    if name in files:
        return files[name]
    try:
        return load(name) if name in shipped() else None
    except MappingError:
        return None


def _are_events(mapping: mappings.Mapping | None, runs: mappings.Mapping) -> bool:
    if mapping is None or mapping.required is None or mapping.required.requires != runs.name:
        return False
    return set(EVENT_COLUMNS) <= set(mapping.target.columns)


@dataclass(frozen=True)
class _Pair:
    connection: Connection
    comparison: Comparison
    mapping: mappings.Mapping
    events: tuple[Comparison, mappings.Mapping | None] | None
    named: int

    def run(self) -> Histories:
        events = self.events[0] if self.events else None
        reasons = [reason for one in (self.comparison, events) if one for reason in _in_the_way(one)]
        checks: list[HistoryCheck] = []
        on_their_way: list[Reason] = []
        if not _in_the_way(self.comparison):
            try:
                # A savepoint, so that what a value makes fail here leaves the snapshot usable.
                with self.connection.transaction():
                    checks, on_their_way = self._checks(with_events=not reasons)
            except psycopg.DataError as error:
                reasons.append(
                    Reason(
                        "value-fails",
                        f"The server cannot evaluate the mapping's rules on some legacy row (SQLSTATE {error.sqlstate})"
                        f" that is not in quarantine; the row was changed after it was moved.",
                    )
                )
        reasons += on_their_way
        # Where too much is on its way nothing is known for certain.
        different = any(check.broken for check in checks) and not any(one.code == ANYTHING for one in on_their_way)
        untold = Verdict.UNKNOWN if reasons else Verdict.EQUAL
        return Histories(
            self.comparison.mapping,
            events.mapping if events else None,
            Verdict.DIFFERENT if different else untold,
            self.comparison.counts.target_rows if self.comparison.counts and checks else 0,
            checks,
            reasons,
        )

    def _checks(self, *, with_events: bool) -> tuple[list[HistoryCheck], list[Reason]]:
        """And why some runs were not judged."""
        runs = self._narrow(self.comparison, self.mapping)
        lives = None
        if with_events and self.events and self.events[1]:
            lives = Lives(runs, self._narrow(self.events[0], self.events[1]))
        queries = [
            run_laws.attempts(runs, lives.events if lives else None),
            run_laws.parents(runs),
            run_laws.idempotency(runs),
            run_laws.one_active(runs),
        ]
        if lives:
            queries.insert(0, lives.judged())
        anything, flying = self._flying(runs, lives)
        told = [row for query in queries for row in rows(self.connection, query, self.named, flying)]
        counts = {row["code"]: row for row in told if row["run"] is None}
        examples = [row for row in told if row["run"] is not None]
        shown = self._shown(runs, lives, list({row["run"] for row in examples}))
        without = set(LAWS) - {"attempts", "parents", "idempotency", "one-active"} if lives is None else set()
        checks = [
            HistoryCheck(
                code,
                law,
                counts[code]["runs"] if code in counts else 0,
                counts[code]["inherited"] if code in counts else 0,
                list(_examples(code, examples, shown)),
            )
            for code, law in LAWS.items()
            if code not in without
        ]
        return checks, list(_unjudged(checks, counts.values(), anything=anything))

    def _flying(self, runs: Narrow, lives: Lives | None) -> tuple[bool, list[str]]:
        """Whether any run may be on its way, and those that are for certain: their rows, or events of theirs."""
        of_runs = in_flight(self.connection, runs.migration_id, runs.binding)
        anything, found = _on_the_target(of_runs, self.comparison)
        if lives and self.events:
            of_events = in_flight(self.connection, lives.events.migration_id, lives.events.binding)
            any_event, events = _on_the_target(of_events, self.events[0])
            anything = anything or any_event
            if of_events.keys or events:
                found |= {
                    row["run"] for row in rows(self.connection, lives.touched(), list(of_events.keys), list(events))
                }
        return anything, sorted(found)

    def _narrow(self, comparison: Comparison, mapping: mappings.Mapping) -> Narrow:
        names = (comparison.source_table or "", comparison.target_table or "")
        source, target = (catalog.named(self.connection, name) for name in names)
        return Narrow(bind(mapping, source, target), target.columns, comparison.migration_id or 0)

    def _shown(self, runs: Narrow, lives: Lives | None, named: list[str]) -> dict[str, dict[str, Any]]:
        """The histories of the runs that are named."""
        if not named:
            return {}
        if lives:
            found = rows(self.connection, lives.shown(), named, _SHOWN)
        else:
            query = sql.SQL("SELECT run_id::text AS run, legacy_key::text FROM {} AS o WHERE run_id::text = ANY($1)")
            found = rows(self.connection, query.format(runs.old("run_id")), named)
        return {row["run"]: row for row in found}


def _on_the_target(flight: InFlight, comparison: Comparison) -> tuple[bool, set[str]]:
    """Whether any row of the target may be on its way, and those that are for certain, also those that are removed."""
    going = {one.target_key for one in comparison.differences if flight.goes(one) and one.target_key is not None}
    unnamed = flight.removing and (comparison.counts is None or len(going) < comparison.counts.extra)
    return flight.everything or unnamed, {*flight.target_keys, *going}


def _unjudged(checks: Sequence[HistoryCheck], counts: Iterable[dict[str, Any]], *, anything: bool) -> Iterator[Reason]:
    if anything and any(check.broken for check in checks):
        yield Reason(ANYTHING, "So much is captured and not applied yet that histories cannot be told; compare again.")
    elif any(row["flying"] for row in counts):
        yield Reason(
            IN_FLIGHT,
            "Changes of some runs that break a law are captured and not applied yet; compare again when spine-migrate "
            "sync status says that the target is up to date.",
        )


def _in_the_way(comparison: Comparison) -> list[Reason]:
    """Why nothing can be said of histories, where that is so."""
    if comparison.counts is None:
        return comparison.reasons
    if comparison.step not in COMPLETE:
        return [reason for reason in comparison.reasons if reason.code == "unfinished"]
    if CUT_OVER in comparison.reasons:
        return [CUT_OVER]
    if comparison.scope.partial:
        return [Reason("partial", f"{comparison.mapping}: only {comparison.scope} were compared, histories are whole.")]
    return []


def _examples(code: str, examples: list[dict[str, Any]], shown: dict[str, dict[str, Any]]) -> Iterator[HistoryExample]:
    for row in examples:
        if row["code"] != code:
            continue
        history = shown.get(row["run"], {})
        timed = "_timed" if code in _TIMED else ""
        note = row["note"] or ""
        if row["of_legacy"]:
            note = f"{note} (as in the legacy tables)" if note else "as in the legacy tables"
        yield HistoryExample(
            row["run"], history.get("legacy_key"), note, history.get(f"old{timed}"), history.get(f"new{timed}")
        )
