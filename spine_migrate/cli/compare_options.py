"""How ``spine-migrate compare`` compares, and which part: its options beside those of the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def how_options(command: Command) -> Command:
    """``exact: bool``."""
    return click.option(
        "--exact", is_flag=True, help="Compare binary images instead of values: 1.0 in JSON is not 1.00."
    )(command)
