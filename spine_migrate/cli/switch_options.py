"""The options that ``cutover``, ``rollback`` and ``retire`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from spine_migrate.cli.options import json_option, lock_options, retry_option, target_option, yes_option

Command = TypeVar("Command", bound=Callable[..., Any])

accept_option = click.option(
    "--accept",
    multiple=True,
    metavar="OBJECT",
    help="Go on although this object breaks, named as --dry-run names it; more than once for several.",
)


def switch_options(command: Command) -> Command:
    """``mapping``, ``lock_timeout`` (ms), ``lock_within`` (s), ``wait``, and those of every command that asks."""
    options = (
        click.option(
            "--mapping",
            multiple=True,
            metavar="NAME_OR_FILE",
            help="This migration, with those that refer to it or that it refers to; more than once for several. All "
            "of the ledger where it is left out.",
        ),
        lock_options,
        click.option("--wait", is_flag=True, help="Wait for a run of the same migration instead of refusing."),
        retry_option,
        yes_option,
        json_option,
        target_option,
    )
    for option in reversed(options):
        command = option(command)
    return command
