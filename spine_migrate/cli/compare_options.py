"""How ``spine-migrate compare`` compares, and which part: its options beside those of the report."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from spine_migrate.parity.options import Options

Command = TypeVar("Command", bound=Callable[..., Any])

METHODS = ("auto", "join", "buckets")


class Share(click.ParamType[float]):
    """``1%``; arrives as 0.01."""

    name = "P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            number, sign = float(value.removesuffix("%")), value.endswith("%")
        except ValueError:
            number, sign = 0.0, False
        if not sign or not 0 < number <= 100:  # noqa: PLR2004 - per cent
            self.fail(f"{value!r} is not a share such as 1%, above 0% and at most 100%", param, ctx)
        return number / 100


class Moment(click.ParamType[datetime]):
    """A date, or a time of ISO 8601; without a zone it is UTC."""

    name = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-11-01 or 2026-11-01T08:00:00+01:00", param, ctx)
        return when if when.tzinfo else when.replace(tzinfo=UTC)


def how_options(command: Command) -> Command:
    """What ``options`` takes."""
    for option in reversed(
        (
            click.option("--mapping", "more", multiple=True, metavar="NAME_OR_FILE", help="The same as NAME."),
            click.option(
                "--method",
                type=click.Choice(METHODS),
                default="auto",
                show_default=True,
                help="How rows that differ are found; auto takes buckets where a join would not fit into memory.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(1, 64),
                default=2,
                show_default=True,
                help="Sessions that read buckets at the same time.",
            ),
            click.option(
                "--settle",
                type=click.FloatRange(0, 3600),
                default=2.0,
                show_default=True,
                metavar="SECONDS",
                help="How long a difference between two servers must have stood before it is told.",
            ),
            click.option(
                "--checkpoint",
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="Keep the digests of buckets here; the same command goes on from there.",
            ),
            click.option("--exact", is_flag=True, help="Binary images, not values: in JSON 1.0 is not 1.00."),
            click.option(
                "--events/--no-events",
                default=True,
                show_default=True,
                help="Compare the history of every run, and hold it against the laws of histories.",
            ),
            click.option("--sample", type=Share(), help="Compare this share of the keys, always the same ones."),
            click.option("--since", type=Moment(), help="Compare rows of this time and later."),
            click.option("--key", "keys", multiple=True, metavar="K", help="Compare this legacy key; repeatable."),
        )
    ):
        command = option(command)
    return command


def options(
    *,
    method: str,
    workers: int,
    settle: float,
    checkpoint: Path | None,
    exact: bool,
    events: bool,
    sample: float | None,
    since: datetime | None,
    keys: tuple[str, ...],
    max_differences: int,
    picture: bool,
) -> Options:
    """Raises UsageError for what does not go together."""
    from spine_migrate.parity.evidence import Equality, Scope
    from spine_migrate.parity.options import Finding, Options

    if keys and (sample is not None or since is not None):
        raise click.UsageError("--key names rows one by one; --sample and --since do not go with it.")
    if checkpoint is not None and (method == "join" or keys):
        raise click.UsageError("A checkpoint keeps digests; --method join and --key have none.")
    return Options(
        method=Finding(method),
        equality=Equality.EXACT if exact else Equality.VALUE,
        events=events,
        scope=Scope(sample=sample, since=since, keys=keys or None),
        max_differences=max_differences,
        picture=picture,
        workers=workers,
        settle_seconds=settle,
        checkpoint=checkpoint,
    )
