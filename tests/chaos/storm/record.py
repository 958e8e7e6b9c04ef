"""What a writer knows of its own rows, in a file of its own: a JSON line per transaction, on disk before the next one.

A transaction whose COMMIT was not answered is in doubt: its line says so, and a second line, written once the server
answers again, says what became of it. (Each transaction leaves its number in the table ``storm.witness``.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

# Status and error of an execution. A status of None is one that other writers may change.
Row = tuple[str | None, str | None]
# How often the table had been truncated when the job was inserted, and its error_message.
Job = tuple[int, str]

COMMITTED, DOUBT = "committed", "doubt"


@dataclass
class Change:
    """What transactions made of own rows, by key; None where a row was deleted. ``events``: how many a row has."""

    rows: dict[str, Row | None] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, Job | None] = field(default_factory=dict)

    def take(self, later: Change) -> None:
        self.rows.update(later.rows)
        self.events.update(later.events)
        self.jobs.update(later.jobs)


@dataclass
class Entry:
    """One transaction. ``longest``: seconds of its slowest statement, by what it may have waited for (``acts``)."""

    number: int
    phase: int
    level: str
    outcome: str
    acts: list[str]
    longest: dict[str, float]
    change: Change
    detail: str = ""


class Record:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, entry: Entry) -> None:
        self._line(asdict(entry))

    def settle(self, number: int, *, committed: bool) -> None:
        self._line({"number": number, "committed": committed})

    def backend(self, pid: int) -> None:
        self._line({"backend": pid})

    def _line(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


@dataclass
class Told:
    """What all records say. ``backends``: process numbers of the writers' sessions."""

    entries: list[Entry] = field(default_factory=list)
    backends: set[int] = field(default_factory=set)
    committed: Change = field(default_factory=Change)
    witnessed: set[tuple[int, int]] = field(default_factory=set)


def read(paths: Iterable[Path], *, settled: bool = True) -> Told:
    """One file per writer, in the order of their numbers. ``settled``: no transaction may still be in doubt."""
    told = Told()
    for writer, path in enumerate(paths):
        doubtful: dict[int, Entry] = {}
        for line in _lines(path):
            if "backend" in line:
                told.backends.add(line["backend"])
                continue
            if "committed" in line:
                entry = doubtful.pop(line["number"])
                entry.outcome = COMMITTED if line["committed"] else "lost"
            else:
                entry = _entry(line)
                told.entries.append(entry)
            if entry.outcome == COMMITTED:
                told.committed.take(entry.change)
                told.witnessed.add((writer, entry.number))
            elif entry.outcome == DOUBT:
                doubtful[entry.number] = entry
        assert not (settled and doubtful), f"{path.name}: {list(doubtful)} are still in doubt"
    return told


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            # The last one may be being written.
            if line.endswith("\n"):
                yield json.loads(line)


def _entry(line: dict[str, Any]) -> Entry:
    change = line.pop("change")
    rows = {key: None if row is None else (row[0], row[1]) for key, row in change["rows"].items()}
    jobs = {key: None if job is None else (job[0], job[1]) for key, job in change["jobs"].items()}
    return Entry(**line, change=Change(rows, change["events"], jobs))
