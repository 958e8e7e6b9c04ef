"""The options of ``spine-migrate runs``: moments, and names that must be those of the runtime."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner

from spine_migrate.cli import runs_opened
from spine_migrate.cli.moments import before, moment
from spine_migrate.execution.runs import FINAL, RunStatus
from spine_migrate.execution.spec import KINDS
from spine_migrate.report.runs import span


def _moment(text: str) -> Any:
    found: list[Any] = []
    command = click.Command(
        "x", params=[click.Option(["--at"], callback=moment)], callback=lambda **given: found.extend(given.values())
    )
    result = CliRunner().invoke(command, ["--at", text])
    return found[0] if found else result.stderr


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("10s", timedelta(seconds=10)),
        ("2w", timedelta(weeks=2)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:00Z", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("2026-11-20T08:00+02:00", datetime(2026, 11, 20, 6, tzinfo=UTC)),
    ],
)
def test_moments(text: str, meant: timedelta | datetime) -> None:
    assert _moment(text) == meant


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5h", "1y", "1d12h", "yesterday", "2026-13-01", "999999w"])
def test_what_is_no_moment(text: str) -> None:
    assert "Invalid value for '--at'" in _moment(text)


def test_before() -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    assert before(now, timedelta(days=1)) == datetime(2026, 11, 19, tzinfo=UTC)
    assert before(now, datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_choices_are_those_of_the_runtime() -> None:
    assert runs_opened.KINDS == KINDS
    assert tuple(RunStatus) == runs_opened.STATUSES
    assert set(runs_opened.FINAL) == FINAL


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.000 s"),
        (59.5, "59.500 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90000, "1 d 1 h"),
        (-1, "-1.000 s"),
    ],
)
def test_spans(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_the_help_of_every_command_is_fast_and_has_an_example() -> None:
    script = """
import contextlib, io, sys
from spine_migrate.cli import main
commands = ["list", "show", "cancel", "retry", "reprocess", "purge"]
for words in [[name] for name in commands] + [["index", name] for name in ("create", "drop", "status")]:
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main(["runs", *words, "--help"], prog_name="spine-migrate")
    assert f"  spine-migrate runs {' '.join(words)}" in shown.getvalue().partition("Example")[2], words
print(*sorted({module.partition(".")[0] for module in sys.modules}), "spine_migrate.execution" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    *loaded, runtime = ended.stdout.split()
    assert {"psycopg", "sqlalchemy", "alembic", "rich"}.isdisjoint(loaded)
    assert runtime == "False"
