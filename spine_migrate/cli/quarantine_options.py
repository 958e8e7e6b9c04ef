"""The options by which commands about the quarantine are narrowed down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from spine_migrate.cli.options import target_option

Command = TypeVar("Command", bound=Callable[..., Any])


def migrations_options(command: Command) -> Command:
    """``mapping: tuple[str, ...]`` and ``migration: int | None``."""
    options = (
        click.option(
            "--mapping",
            multiple=True,
            metavar="NAME_OR_FILE",
            help="Only this mapping, by name or by its .toml file; more than once for several.",
        ),
        click.option("--migration", type=click.IntRange(1), metavar="NUMBER", help="Only this migration; see status."),
        target_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def reasons_option(command: Command) -> Command:
    """``reason: tuple[str, ...]``."""
    return click.option(
        "--reason",
        multiple=True,
        metavar="CODE",
        help="Only this reason, as list shows it; more than once for several.",
    )(command)
