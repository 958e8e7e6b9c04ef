"""Progress of a run on stderr: a bar on a terminal, a line now and then elsewhere. What draws one is loaded for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spine_migrate.backfill.pace import Progress as Figures

SECONDS_BETWEEN_LINES = 10.0


def figures(at: Figures) -> str:
    """``120,000 rows  31,000 rows/s  12 quarantined  0:00:25 left``, or what the run is held back by."""
    left = at.seconds_left
    if at.held is not None:
        return f"{at.accounted:,} rows  held back by {at.held.by}: {at.held.detail}"
    parts = [
        f"{at.accounted:,} rows",
        f"{at.rate:,.0f} rows/s",
        *([f"{at.quarantined:,} quarantined"] if at.quarantined else []),
        *([f"{timedelta(seconds=round(left))} left"] if left is not None and at.stage == "backfill" else []),
    ]
    return "  ".join(parts)


@contextmanager
def shown(*, quiet: bool) -> Iterator[Callable[[Figures], None]]:
    """Gives the function that a run reports to. ``quiet`` shows nothing."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Callable[[Figures], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        tasks = {}

        def report(at: Figures) -> None:
            if at.mapping not in tasks:
                tasks[at.mapping] = progress.add_task(at.mapping, total=max(at.total_blocks, 1), figures="")
            description = at.mapping if at.stage == "backfill" else f"{at.mapping}: {at.stage}"
            done = at.blocks if at.total_blocks else 1
            progress.update(tasks[at.mapping], completed=done, description=description, figures=figures(at))

        yield report


def _lines() -> Callable[[Figures], None]:
    said_at, stage, held = 0.0, "backfill", ""

    def report(at: Figures) -> None:
        nonlocal said_at, stage, held
        now = time.monotonic()
        by = at.held.by if at.held is not None else ""
        if now - said_at < SECONDS_BETWEEN_LINES and (at.stage, by) == (stage, held):
            return
        said_at, stage, held = now, at.stage, by
        percent = 100 * at.blocks / at.total_blocks if at.total_blocks else 100.0
        print(f"{at.mapping}: {at.stage} {percent:.1f}%  {figures(at)}", file=sys.stderr)  # noqa: T201 - this is the report

    return report


@contextmanager
def blocks_shown(
    say: Callable[[str], None] | None = None,
) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[int, int], None]]]:
    """For a comparison: what it calls with each mapping's name, number and how many there are, and with the blocks read
    and all blocks. A line for each mapping; a bar under it, on a terminal only, as long as there is something to read.
    """
    if say is not None or not sys.stderr.isatty():
        say = say or _say
        yield lambda name, number, of: say(_comparing(name, number, of)), lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", visible=False)

        def started(name: str, number: int, of: int) -> None:
            bar.update(task, visible=False)
            bar.console.print(_comparing(name, number, of), markup=False, highlight=False)

        def progress(done: int, of: int) -> None:
            bar.update(task, completed=done, total=max(of, 1), visible=done < of)

        yield started, progress


def _comparing(name: str, number: int, of: int) -> str:
    return f"Comparing {name} ({number} of {of})"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)  # noqa: T201 - this is the report
