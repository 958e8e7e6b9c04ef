"""The options that commands share, as decorators. Each says under which parameter names the values arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from spine_migrate.errors import ConfigurationError

Command = TypeVar("Command", bound=Callable[..., Any])

# Of an attempt to lock a table, in milliseconds: several times the server's deadlock_timeout, after which an autovacuum
# gives way, and less than applications wait for an answer.
LONGEST_LOCK = 10_000
_URL = "PG* variables and a password file count, as with psql."


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


def target_option(command: Command) -> Command:
    """``target: str | None``: the database that holds the target tables and the ledger; None leaves it to libpq."""
    return click.option(
        "--target",
        metavar="URL",
        envvar=["SPINE_TARGET_URL", "SPINE_DATABASE_URL"],
        show_envvar=True,
        help=f"The database of the target tables and the ledger. {_URL}",
    )(command)


def source_option(command: Command) -> Command:
    """``source: str | None``: the database that holds the legacy tables; None leaves it to libpq."""
    return click.option(
        "--source",
        metavar="URL",
        envvar=["SPINE_SOURCE_URL", "SPINE_DATABASE_URL"],
        show_envvar=True,
        help="The database of the legacy tables; the same as --target where it is left out.",
    )(command)


def source_schema_option(command: Command) -> Command:
    """``source_schema: str | None``: None leaves it to the mapping, then to the search_path."""
    return click.option(
        "--source-schema",
        metavar="NAME",
        callback=_not_empty,
        help="The schema of the legacy tables; else the mapping names it, or the role's search_path decides.",
    )(command)


def target_schema_option(command: Command) -> Command:
    """``target_schema: str | None``: None leaves it to the mapping, then to the search_path."""
    return click.option(
        "--target-schema",
        metavar="NAME",
        callback=_not_empty,
        help="The schema of runs and run_events; else the mapping names it, or the role's search_path decides.",
    )(command)


def database_options(command: Command) -> Command:
    """``source``, ``target``, ``source_schema``, ``target_schema``; see ``one_database`` for the first two."""
    return _all(source_option, target_option, source_schema_option, target_schema_option)(command)


def json_option(command: Command) -> Command:
    """``as_json: bool``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")(command)


def yes_option(command: Command) -> Command:
    """``yes: bool``."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def retry_option(command: Command) -> Command:
    """``retry_for: float``, in seconds."""
    return click.option(
        "--retry-for",
        type=click.FloatRange(0),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to outlive a lost server before giving up with exit code 5. The first connection is tried again "
        "only while the server starts up or has no slot free; where none answers, that is told at once.",
    )(command)


def lock_options(command: Command) -> Command:
    """``lock_timeout: int``, in milliseconds, and ``lock_within: float``, in seconds; see ``db.patience.Patience``.

    The former is how long an application is made to wait, so it is bounded: a table that is never free for long is had
    by more attempts, and not by a longer one.
    """
    return _all(
        click.option(
            "--lock-timeout",
            type=int,
            callback=_bounded,
            default=200,
            show_default=True,
            metavar="MS",
            help="The longest that one attempt to lock the tables waits, and whoever queues behind it; at most "
            f"{LONGEST_LOCK}.",
        ),
        click.option(
            "--lock-within",
            type=click.FloatRange(0, min_open=True),
            default=60.0,
            show_default=True,
            metavar="SECONDS",
            help="Give up after attempts of so long, with exit code 4.",
        ),
    )(command)


def mapping_option(command: Command) -> Command:
    """``mapping: str | None``: a shipped mapping's name or a path that ends in .toml; see ``mapping.load.load``."""
    return click.option(
        "--mapping",
        metavar="NAME_OR_FILE",
        callback=_not_empty,
        help="A shipped mapping, such as capture-spine/executions, or a file that ends in .toml.",
    )(command)


def one_database(source: str | None, target: str | None) -> str | None:
    """The one URL that both tables are reached by; None leaves it to libpq.

    Raises ConfigurationError where the two are given and are not the same.
    """
    if source and target and source != target:
        raise ConfigurationError(
            "The source and the target must be tables of one database; give one URL, and the schemas where they differ."
        )
    return target or source or None


def _bounded(_: click.Context, parameter: click.Parameter, value: int) -> int:
    if not 1 <= value <= LONGEST_LOCK:
        raise click.BadParameter(
            f"{value} is not between 1 and {LONGEST_LOCK} milliseconds. The application waits for as long as an "
            f"attempt does; to try for longer, give --lock-within SECONDS",
            param=parameter,
        )
    return value


def _not_empty(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """What an unset shell variable becomes must not mean a default."""
    if value is not None and not value.strip():
        raise click.BadParameter("the name is empty; leave the option out for the default", param=parameter)
    return value
