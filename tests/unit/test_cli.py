"""The group of commands: what it lists, and how an error ends a command."""

from __future__ import annotations

import errno
import subprocess
import sys

import click
import psycopg
import pytest
from click.testing import CliRunner, Result

from spine_migrate import __version__, cli
from spine_migrate.cli import main
from spine_migrate.cli.options import database_options, json_option, mapping_option, one_database, yes_option
from spine_migrate.errors import ConfigurationError, Interrupted, Refused, ServerFault

RAISED: list[BaseException] = []


@click.command()
def fail() -> None:
    """Raise what the test wants."""
    raise RAISED[-1]


@click.command()
@database_options
@mapping_option
@json_option
@yes_option
def options(**given: object) -> None:
    """Print what arrives."""
    click.echo(repr(sorted(given.items())))


@pytest.fixture(autouse=True)
def _two_more_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli._COMMANDS, "fail", (f"{__name__}:fail", "Raise."))  # noqa: SLF001 - as a command is added
    monkeypatch.setitem(cli._COMMANDS, "options", (f"{__name__}:options", "Print."))  # noqa: SLF001 - as above


def _failing(error: BaseException, *before: str) -> Result:
    RAISED.append(error)
    return CliRunner().invoke(main, [*before, "fail"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("No such thing."), 2),
        (Refused("some-name", "No such thing."), 3),
        (Interrupted("No such thing."), 4),
        (ServerFault("No such thing."), 5),
    ],
)
def test_an_error_of_ours(error: Exception, code: int) -> None:
    ended = _failing(error)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (code, "", "spine-migrate: No such thing.\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt(error: BaseException) -> None:
    ended = _failing(error)
    assert (ended.exit_code, ended.stdout) == (4, "")
    assert ended.stderr.startswith("spine-migrate: Interrupted;")


def test_a_defect() -> None:
    """One sentence with the type, not the message, which may hold a value of a row."""
    ended = _failing(ZeroDivisionError("secret"))
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert ended.stderr.count("\n") == 1
    assert "ZeroDivisionError" in ended.stderr
    assert "--debug" in ended.stderr
    assert "secret" not in ended.stderr


def test_an_error_of_the_driver_that_nobody_explained() -> None:
    ended = _failing(psycopg.errors.InsufficientPrivilege("permission denied"))
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert "spine-migrate grants" in ended.stderr


def test_debug_shows_where() -> None:
    ended = _failing(ZeroDivisionError("x"), "--debug")
    assert ended.exit_code == 5
    assert "in fail" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("spine-migrate: ")


def test_a_reader_that_went_away_is_no_error_of_ours() -> None:
    ended = _failing(OSError(errno.EPIPE, "Broken pipe"))
    assert ended.exit_code == 1
    assert "spine-migrate:" not in ended.stderr


@pytest.mark.parametrize("arguments", [["nothing"], ["fail", "--nothing"], ["--nothing"]])
def test_wrong_usage(arguments: list[str]) -> None:
    ended = CliRunner().invoke(main, arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "Usage:" in ended.stderr


def test_help_lists_the_commands_in_the_order_of_a_migration() -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0
    listed = [line.split()[0] for line in shown.stdout.splitlines() if line[:2] == "  " and line[2:3].isalpha()]
    commands = [name for name in listed if name in cli._COMMANDS]  # noqa: SLF001 - what the list is made of
    assert commands == list(cli._COMMANDS)  # noqa: SLF001 - as above
    assert "Exit codes:" in shown.stdout


def test_the_help_of_every_command_loads_no_driver() -> None:
    """One fresh interpreter asks each for its help."""
    script = """
import contextlib, io, sys
from spine_migrate.cli import main
for name in main.list_commands(None):
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main([name, "--help"], prog_name="spine-migrate")
    assert shown.getvalue().startswith(f"Usage: spine-migrate {name} "), name
print(*sorted({module.partition(".")[0] for module in sys.modules}))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert {"psycopg", "sqlalchemy", "alembic", "rich"}.isdisjoint(ended.stdout.split())


def test_the_module_is_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "spine_migrate", "--version"], check=True, capture_output=True, text=True
    )
    assert ended.stdout == f"spine-migrate, version {__version__}\n"


def test_the_shared_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable for both databases, each of its own wins, an option wins over both."""
    monkeypatch.setenv("SPINE_DATABASE_URL", "both")
    monkeypatch.setenv("SPINE_SOURCE_URL", "source")
    shown = CliRunner().invoke(main, ["options", "--source-schema", "old", "--json"])
    assert shown.stdout == repr([
        ("as_json", True), ("mapping", None), ("source", "source"), ("source_schema", "old"), ("target", "both"),
        ("target_schema", None), ("yes", False),
    ]) + "\n"  # fmt: skip
    assert "('target', 'given')" in CliRunner().invoke(main, ["options", "--target", "given"]).stdout


@pytest.mark.parametrize("option", ["--source-schema", "--target-schema", "--mapping"])
def test_an_empty_name_is_refused(option: str) -> None:
    ended = CliRunner().invoke(main, ["options", option, ""])
    assert ended.exit_code == 2
    assert "the name is empty" in ended.stderr


def test_one_database() -> None:
    assert one_database(None, None) is None
    assert one_database("a", None) == one_database(None, "a") == one_database("a", "a") == "a"
    with pytest.raises(ConfigurationError, match="one database"):
        one_database("a", "b")
