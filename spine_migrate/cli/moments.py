"""Moments as a user types them: how long ago, or a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_AGE = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
#: A thousand years.
_LONGEST = timedelta(days=365_250)


METAVAR = "AGO|TIME"


def moment(_: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | datetime | None:
    """The callback of an option: ``90d``, ``12h``, ``30m``, ``10s``, ``2w`` as a timedelta, or an ISO 8601 time as a
    datetime, in UTC unless it has a zone of its own.
    """
    if value is None:
        return None
    if age := _AGE.fullmatch(value):
        ago = timedelta(**{_UNITS[age["unit"]]: int(age["number"])})
        if ago > _LONGEST:
            raise click.BadParameter(f"{value!r} is more than a thousand years.", param=parameter)
        return ago
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a duration such as 90d, 12h, 30m nor an ISO time such as 2026-11-20T08:00Z.",
            param=parameter,
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def before(now: datetime, given: timedelta | datetime) -> datetime:
    """The time that is meant."""
    return now - given if isinstance(given, timedelta) else given
