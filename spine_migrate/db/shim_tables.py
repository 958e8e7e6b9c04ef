"""Who still calls the old tasks, whether that has ended, and the modes they are in: the tables of the shims as the tool
reads and changes them. What writes ``shim_call`` and ``shim_worker`` is ``spine_shims.telemetry``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import groupby
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.db import catalog, version_table
from spine_migrate.db.connect import Connection
from spine_migrate.errors import ConfigurationError, Refused
from spine_migrate.named_queries import load

_TABLES = ("shim_mode", "shim_call", "shim_worker")

#: While no worker is there, messages wait, and are counted once one is; a longer time may have let them expire.
GAP = timedelta(hours=1)


@dataclass(frozen=True)
class Call:
    """One caller of one task. ``count`` is that of all calls from ``first_seen`` to ``last_seen``; ``side`` is what
    became of them: legacy, dispatch, shadow.
    """

    task: str
    caller: str
    hosts: list[str]
    version: str
    mode: str
    side: str
    count: int
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True)
class Set:
    """A mode in the table, and which role set it when."""

    task: str
    mode: str
    set_by: str
    set_at: datetime


class Verdict(StrEnum):
    SILENT = "silent"
    CALLED = "called"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Silence:
    """Whether ``tasks`` were not called since a moment. ``callers`` are who did; ``reasons`` say why it cannot be told.

    One that was called settles it, whatever else is not known.
    """

    since: datetime
    tasks: tuple[str, ...]
    callers: tuple[Call, ...]
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        if self.callers:
            return Verdict.CALLED
        return Verdict.UNKNOWN if self.reasons else Verdict.SILENT


@dataclass(frozen=True)
class Purged:
    """How many callers are forgotten, how many workers, and of how many workers that stay the time before the bound."""

    callers: int
    workers: int
    shortened: int


@dataclass(frozen=True)
class ShimTables:
    """``schema`` holds them; ``opened`` finds it."""

    connection: Connection
    schema: str

    @classmethod
    def opened(cls, connection: Connection, target_schema: str | None) -> ShimTables:
        """Without a schema, ``db upgrade`` knows where it put them. Raises Refused (``table-missing``)."""
        schema = target_schema or version_table.recorded_target(connection)
        try:
            found = [catalog.find(connection, table, schema) for table in _TABLES]
        except Refused as error:
            if error.precondition != "table-missing":
                raise
            raise Refused(error.precondition, f"{error.sentence} Run spine-migrate db upgrade first.") from error
        return cls(connection, found[0].name.schema)

    def now(self) -> datetime:
        """The server's clock."""
        ((now,),) = self._run("now").fetchall()
        found: datetime = now
        return found

    def calls(self, tasks: Sequence[str] = (), since: datetime | None = None) -> list[Call]:
        """The latest first; of all tasks where none is named."""
        values = {"tasks": list(tasks) or None, "since": since}
        with self.connection.cursor(row_factory=class_row(Call)) as cursor:
            return cursor.execute(self._queries["calls"], values).fetchall()

    def silence(self, tasks: Sequence[str], since: datetime, now: datetime) -> Silence:
        """Whether some tasks, or all that are known, were not called from ``since`` to ``now``.

        Silence proves something only where somebody was there to count: workers that had the shim of the task, all the
        time but for pauses of ``GAP``. A message from anywhere ends at one of them. What this does not see: a call that
        executes the task in its own process (``task(...)``, ``apply``, eager mode) where that process counts nothing.
        """
        asked = tuple(dict.fromkeys(tasks)) or tuple(task for (task,) in self._run("known_tasks").fetchall())
        rows = self._run("watched", tasks=list(asked), since=since - GAP).fetchall()
        watched = {task: [span for _, *span in spans] for task, spans in groupby(rows, key=lambda row: row[0])}
        reasons = [
            reason for task in asked if (reason := unwatched(task, watched.get(task, []), since, now)) is not None
        ]
        if not asked:
            reasons = ["No worker has announced a shim, and no call was ever counted; there is nothing to go by."]
        return Silence(since, asked, tuple(self.calls(asked, since)) if asked else (), tuple(reasons))

    def purgeable(self, before: datetime) -> Purged:
        """What ``purge`` would do."""
        return self._counted("purgeable", before)

    def purge(self, before: datetime) -> Purged:
        """Forget who has not called since, and what workers have seen before: without it the calls of that time would
        be silence that somebody has watched.
        """
        return self._counted("purge", before)

    def _counted(self, name: str, before: datetime) -> Purged:
        ((callers, workers, shortened),) = self._run(name, before=before).fetchall()
        return Purged(callers, workers, shortened)

    def modes(self, task: str | None = None) -> list[Set]:
        with self.connection.cursor(row_factory=class_row(Set)) as cursor:
            return cursor.execute(self._queries["modes"], {"task": task}).fetchall()

    def set_mode(self, task: str, mode: str) -> str | None:
        """Gives the mode before. The table knows which modes there are. Raises ConfigurationError for another."""
        try:
            ((before,),) = self._run("set_mode", task=task, mode=mode).fetchall()
        except psycopg.errors.CheckViolation:
            raise ConfigurationError(
                f"{mode!r} is no mode of a task; it is legacy, dispatch, shadow or canary=N%, with N from 0 to 100."
            ) from None
        return None if before is None else str(before)

    def clear_mode(self, task: str) -> str | None:
        """Gives the mode that was, None where there was none."""
        row = self._run("clear_mode", task=task).fetchone()
        return None if row is None else str(row[0])

    def announced(self, task: str) -> bool:
        """Whether a worker with the shim of the task was ever seen."""
        return self._run("ready", task=task).fetchone() == (True,)

    def _run(self, name: str, **values: Any) -> psycopg.Cursor[Any]:
        return self.connection.execute(self._queries[name], values)

    @cached_property
    def _queries(self) -> dict[str, sql.Composed]:
        schema = self.schema.replace("%", "%%")
        names = {table: sql.Identifier(schema, table) for table in _TABLES}
        return {name: sql.SQL(text).format(**names) for name, text in load("spine_migrate.db", "shims").items()}


def unwatched(task: str, spans: Iterable[Sequence[datetime]], since: datetime, now: datetime) -> str | None:
    """Why silence of a task would prove nothing: the first time in which nobody was there to count its calls."""
    seen = None
    for begin, end in spans:
        if begin > (since if seen is None else seen + GAP):
            return _gap(task, seen, begin)
        seen = end if seen is None else max(seen, end)
    if seen is None:
        return f"No worker has announced the task {task} since {_time(since)}; nobody was there to count its calls."
    return _gap(task, seen, None) if seen < now - GAP else None


def _gap(task: str, seen: datetime | None, again: datetime | None) -> str:
    begin = "" if seen is None else f" from {_time(seen)}"
    until = " on" if again is None else f" until {_time(again)}" if seen is not None else f" before {_time(again)}"
    return f"No worker was there to count the calls of {task}{begin}{until}."


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}"
