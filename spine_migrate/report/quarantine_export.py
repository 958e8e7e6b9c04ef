"""Entries of the quarantine as lines of JSON or CSV, one at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from typing import IO

from spine_migrate.backfill.quarantine import EXPORTED

Write = Callable[[dict[str, str | None]], None]

_NUMBERS = ("quarantine_id", "migration_id", "attempts")
_ROWS = ("source_row", "colliding_row")


def jsonl_writer(stream: IO[str]) -> Write:
    """Both rows go in as they are kept: reading them would lose what a Python value cannot hold."""

    def write(row: dict[str, str | None]) -> None:
        parts = (
            f"{json.dumps(name)}: {value if value and name in (*_NUMBERS, *_ROWS) else json.dumps(value)}"
            for name, value in row.items()
        )
        stream.write(f"{{{', '.join(parts)}}}\n")

    return write


def csv_writer(stream: IO[str]) -> Write:
    """With a header; NULL is an empty field, the rows are JSON text."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(EXPORTED)
    return lambda row: writer.writerow(row.values())
