"""A file that a comparison by digests goes on from: which portions were read, and what they came to.

What was read is of the snapshot that it was read in. A comparison that goes on from a file takes a new snapshot for the
rest, so its digests are of several; what they leave as suspects is looked at in the last one alone, so nothing is
reported that is not so. A row that was written where had been read already, or came there, is in no digest as it now
is: a difference in it is hidden. So each portion has a mark of the row versions in it, and where one is not what it was
the digests prove no equality.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spine_migrate.db.catalog import Name
from spine_migrate.errors import ConfigurationError, Refused
from spine_migrate.mapping.emit.digest import Range
from spine_migrate.parity.buckets import SIZE, Buckets

_FORMAT = 2


@dataclass(frozen=True)
class Portion:
    """Blocks of one side that one statement reads."""

    source: bool
    ranges: tuple[Range, ...]
    blocks: int


@dataclass
class Reading:
    """How far both sides have been read. ``done`` are places in ``portions``, each with a mark of what was there where
    a file is kept, else ""; ``snapshots`` is how many it took so far. ``changed`` portions are in this snapshot no
    longer what they were when they were read.
    """

    portions: list[Portion] = field(default_factory=list)
    done: dict[int, str] = field(default_factory=dict)
    source: Buckets = field(default_factory=Buckets)
    target: Buckets = field(default_factory=Buckets)
    snapshots: int = 0
    changed: int = 0

    def add(self, place: int, mark: str, counts: bytes, hashes: bytes) -> None:
        self.done[place] = mark
        (self.source if self.portions[place].source else self.target).add(counts, hashes)

    @property
    def left(self) -> list[int]:
        return [place for place in range(len(self.portions)) if place not in self.done]


@dataclass(frozen=True)
class Checkpoint:
    """One mapping's part of ``file``. ``identity`` is all that must be as it was for what was read to count."""

    file: Path
    mapping: str
    identity: dict[str, str]

    def load(self) -> Reading | None:
        """None where the file, or the mapping's part of it, is not there.

        Raises ConfigurationError for a file that is no checkpoint, Refused (``checkpoint``) for one of another
        comparison.
        """
        saved = self._document()["comparisons"].get(self.mapping)
        if saved is None:
            return None
        unlike = [name for name, value in self.identity.items() if saved["identity"].get(name) != value]
        if unlike:
            raise Refused(
                "checkpoint",
                f"The checkpoint {self.file} is of another comparison of {self.mapping}: {' and '.join(unlike)} "
                f"changed since; delete it, or compare as it was begun.",
            )
        return Reading(
            [_portion(one) for one in saved["portions"]],
            dict(saved["done"]),
            _buckets(saved["source"]),
            _buckets(saved["target"]),
            saved["snapshots"],
        )

    def save(self, reading: Reading) -> None:
        saved = {
            "identity": self.identity,
            "portions": [_of_portion(one) for one in reading.portions],
            "done": sorted(reading.done.items()),
            "source": _of_buckets(reading.source),
            "target": _of_buckets(reading.target),
            "snapshots": reading.snapshots,
        }
        document = self._document()
        document["comparisons"][self.mapping] = saved
        self._write(document)

    def clear(self) -> None:
        """The comparison is done; the next one begins anew."""
        document = self._document()
        document["comparisons"].pop(self.mapping, None)
        if document["comparisons"]:
            self._write(document)
        else:
            self.file.unlink(missing_ok=True)

    def _document(self) -> dict[str, Any]:
        try:
            document = json.loads(self.file.read_text(encoding="ascii"))
        except FileNotFoundError:
            return {"spine_migrate_checkpoint": _FORMAT, "comparisons": {}}
        except ValueError:
            document = None
        if not isinstance(document, dict) or document.get("spine_migrate_checkpoint") != _FORMAT:
            raise ConfigurationError(f"{self.file} is no checkpoint of this version; name another file, or delete it.")
        return document

    def _write(self, document: dict[str, Any]) -> None:
        """Whole or not at all, whenever the tool is killed."""
        beside = self.file.with_name(f"{self.file.name}.new")
        with beside.open("w", encoding="ascii") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.file)


def _of_portion(portion: Portion) -> list[Any]:
    ranges = [[one.table.schema, one.table.table, one.low, one.high] for one in portion.ranges]
    return [portion.source, ranges, portion.blocks]


def _portion(saved: list[Any]) -> Portion:
    source, ranges, blocks = saved
    return Portion(source, tuple(Range(Name(schema, table), low, high) for schema, table, low, high in ranges), blocks)


def _of_buckets(buckets: Buckets) -> list[str]:
    return [b64encode(number.to_bytes(SIZE, "big")).decode("ascii") for number in (buckets.counts, buckets.hashes)]


def _buckets(saved: list[str]) -> Buckets:
    counts, hashes = (int.from_bytes(b64decode(text), "big") for text in saved)
    return Buckets(counts, hashes)
