"""Time zone: a timestamp without zone is read as local time in a named zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from psycopg import sql

from spine_migrate.mapping.transforms.base import Sql, Transform

INFINITE = ("infinity", "-infinity")


class Zone(Transform):
    """``AT TIME ZONE``. Python has no infinite datetime, so the strings ``infinity`` and ``-infinity`` stand for them.

    A local time that exists twice, or not at all, is resolved as PostgreSQL does (src/backend/utils/adt/datetime.c,
    DetermineTimeZoneOffset): by the smaller of the two offsets. Such a time does not come back unchanged, so only zones
    without transitions are lossless.
    """

    given = "timestamp"
    gives = "timestamptz"

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self.info = ZoneInfo(zone)
        self.lossless = zone == "UTC" or zone.startswith("Etc/")

    def sql(self, value: Sql) -> Sql:
        return sql.SQL("({} AT TIME ZONE {})").format(value, sql.Literal(self.zone))

    def python(self, value: Any) -> Any:
        if value in INFINITE:
            return value
        local: datetime = value.replace(tzinfo=self.info)
        offset = min(local.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1))
        return (value - offset).replace(tzinfo=UTC)

    def inverse_sql(self, value: Sql) -> Sql:
        return self.sql(value)

    def inverse_python(self, value: Any) -> Any:
        return value if value in INFINITE else value.astimezone(self.info).replace(tzinfo=None, fold=0)

    def doc(self) -> str:
        return f"local time in {self.zone}"
