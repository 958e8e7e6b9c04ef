"""The options by which a run is held back while the server is busy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from spine_migrate.carry.settings import SETTINGS, Settings
from spine_migrate.errors import ConfigurationError

Command = TypeVar("Command", bound=Callable[..., Any])

_LIMITS = ("max_lag_bytes", "max_lock_waits", "max_active_sessions", "max_wal_rate")


class Value(click.ParamType[Any]):
    """The value of one of ``SETTINGS``, as the command ``set`` takes it; arrives as a number, or None for the word."""

    def __init__(self, setting: str) -> None:
        self._setting = SETTINGS[setting]
        self.name = "auto|N" if self._setting.none == "auto" else "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._setting.parse(value)
        except ConfigurationError as error:
            self.fail(error.sentence, param, ctx)


def throttling_options(command: Command) -> Command:
    """``target_seconds: float``, and those of ``holding_options``."""
    return click.option(
        "--target-seconds",
        type=Value("target-seconds"),
        default="1.0",
        show_default=True,
        metavar="SECONDS",
        help="How long a batch of --batch-size auto is to take.",
    )(holding_options(command))


def limits(given: Mapping[str, Any]) -> Settings:
    """From the values of ``holding_options``, among others perhaps."""
    return Settings(**{name: given[name] for name in _LIMITS})


def max_hold_option(what: str) -> Callable[[Command], Command]:
    """``max_hold: float``. ``what`` begins the help."""
    return click.option(
        "--max-hold",
        type=click.FloatRange(0),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help=f"{what} whose oldest change is as old are applied whatever the limits say; a pause still holds them.",
    )


def holding_options(command: Command) -> Command:
    """``max_lag_bytes``, ``max_lock_waits``, ``max_active_sessions``, ``max_wal_rate``, each ``int | None``, and
    ``pause_file: str | None``.
    """
    options = (
        click.option(
            "--max-lag-bytes",
            type=Value("max-lag-bytes"),
            metavar="SIZE",
            help="Wait while a replica or slot is further behind, for example 64MB.",
        ),
        click.option(
            "--max-lock-waits",
            type=Value("max-lock-waits"),
            metavar="N",
            help="Wait while more sessions wait for locks on the two tables.",
        ),
        click.option(
            "--max-active-sessions",
            type=Value("max-active-sessions"),
            metavar="N",
            help="Wait while more sessions of the server are executing something, our own left out.",
        ),
        click.option(
            "--max-wal-rate",
            type=Value("max-wal-rate"),
            metavar="SIZE",
            help="Wait while the server writes more WAL a second, over ten seconds.",
        ),
        click.option(
            "--pause-file", type=click.Path(), metavar="PATH", help="Wait while this file is there, on this machine."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
