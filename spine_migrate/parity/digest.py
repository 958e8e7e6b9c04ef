"""Rows that differ, found by digests of both sides: bounded memory, no temporary files but for what differs.

1. Rows that the ledger has something to say about (in quarantine, links that are open) are left out and looked at by
   key, unless they are many.
2. Both tables are read at the same time, in portions of blocks (``emit.digest``), each by itself.
3. Where buckets differ, their rows are read once more, in the order of their keys, and merged (``drill``).

What comes out are suspects: the keys of rows that may differ, with all rows of one target key together. Whether they
do, and by which rule, ``emit.parity`` says of them as of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from psycopg import RawCursor, sql
from psycopg.rows import class_row

from spine_migrate import __version__
from spine_migrate.db import catalog
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.digest import Digest, Range, of_note
from spine_migrate.mapping.emit.sides import EVERY
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.parity.checkpoint import Checkpoint, Portion, Reading
from spine_migrate.parity.drill import Row, unlike
from spine_migrate.parity.readers import Readers
from spine_migrate.parity.rows import Keys
from spine_migrate.parity.tables import Tables

# More rows than these are not left out: then reading them twice costs less than taking them along.
_MOST_ASIDE = 50_000
# Blocks of 8 kB in a portion. Each costs some milliseconds of its own; what is left when one worker has nothing more
# to do is at most one of them.
_LARGEST, SMALLEST, _PER_WORKER = 32_768, 2_048, 4


@dataclass(frozen=True)
class Aside:
    """Rows that are left out of the digests, by the keys of either side, and the same in groups of one target key."""

    source: list[str] = field(default_factory=list)
    target: list[str] = field(default_factory=list)
    groups: list[Keys] = field(default_factory=list)


@dataclass
class Seen:
    """What became of all rows: read in digests, or left out and looked at by key."""

    reading: Reading = field(default_factory=Reading)
    aside: Aside = field(default_factory=Aside)


@dataclass(frozen=True)
class Digests:
    """``condition`` is that of a ``Selection``, ``legacy`` is ``$1`` of the legacy side; ``progress(done, of)`` is told
    of blocks. What was read is kept in ``file``, and gone on from.
    """

    tables: Tables
    readers: Readers
    condition: Sql | None
    legacy: Any
    progress: Callable[[int, int], None]
    seen: Seen
    file: Path | None = None

    def suspects(self) -> Iterator[Keys]:
        # Of a part it is not known which of them belong to it; they are found as all others are.
        aside = self._aside() if self.condition is None else Aside()
        sides = {
            source: Digest(
                self.tables.legacy_side,
                source=source,
                scope=self.condition or EVERY,
                without=bool(aside.source if source else aside.target),
            )
            for source in (True, False)
        }
        parameters = {
            True: [self.legacy, *([aside.source] if aside.source else [])],
            False: [self.tables.migration_id, *([aside.target] if aside.target else [])],
        }
        with self.readers.running() as pool:
            reading = self._read(pool, sides, parameters)
            self.seen.reading, self.seen.aside = reading, aside
            bits = reading.source.differing(reading.target)
            drilled = iter(()) if bits is None else self._drill(sides, parameters, bits)
            yield from chain(aside.groups, drilled)

    def _aside(self) -> Aside:
        open_links = [
            key
            for (key,) in execute(
                self.tables.connection,
                sql.SQL("SELECT DISTINCT target_key FROM spine_migrate.link WHERE migration_id = $1 LIMIT $2::bigint"),
                self.tables.migration_id,
                _MOST_ASIDE + 1,
            )
        ]
        if len(open_links) > _MOST_ASIDE:
            return Aside()
        parameters = [self.legacy, _MOST_ASIDE + 1, *([open_links] if open_links else [])]
        statement = of_note(self.tables.legacy_side, links=bool(open_links))
        found = execute(self.tables.source.connection, statement, *parameters).fetchall()
        if len(found) > _MOST_ASIDE:
            return Aside()
        groups: dict[str | None, Keys] = {key: Keys([], [key]) for key in open_links}
        for source_key, target_key in found:
            group = groups.setdefault(target_key, Keys([], [] if target_key is None else [target_key]))
            group.source.append(source_key)
        keys = list(groups.values())
        return Aside([key for one in keys for key in one.source], [key for one in keys for key in one.target], keys)

    def _read(self, pool: ThreadPoolExecutor, sides: dict[bool, Digest], parameters: dict[bool, list[Any]]) -> Reading:
        checkpoint = self.checkpoint()
        reading = (checkpoint.load() if checkpoint else None) or Reading(self._portions())
        reading.snapshots += 1
        without = {source: _fingerprint(keys) for source, (_, *keys) in parameters.items()}
        total = sum(portion.blocks for portion in reading.portions)
        done = sum(reading.portions[place].blocks for place in reading.done)

        def mark(place: int) -> str:
            """Rows that are left out by key belong to it: they are in no digest either."""
            portion = reading.portions[place]
            connection = self.readers.connection(source=portion.source)
            ((versions,),) = execute(connection, sides[portion.source].mark(portion.ranges)).fetchall()
            return f"{versions} {without[portion.source]}"

        def read(place: int) -> tuple[str, bytes, bytes]:
            portion = reading.portions[place]
            cursor = RawCursor(self.readers.connection(source=portion.source))
            statement = sides[portion.source].buckets(portion.ranges)
            cursor.execute(statement, parameters[portion.source], prepare=False, binary=True)
            ((counts, hashes),) = cursor.fetchall()
            return mark(place) if checkpoint is not None else "", counts, hashes

        reading.changed = sum(
            now != reading.done[place] for place, now in self.readers.each(pool, list(reading.done), mark)
        )
        self.progress(done, total)
        for place, (versions, counts, hashes) in self.readers.each(pool, reading.left, read):
            reading.add(place, versions, counts, hashes)
            if checkpoint is not None:
                checkpoint.save(reading)
            done += reading.portions[place].blocks
            self.progress(done, total)
        return reading

    def checkpoint(self) -> Checkpoint | None:
        """What was read counts for the same rules, tables, rows and equality only."""
        if self.file is None:
            return None
        mapping, tables = self.tables.parity.binding.mapping, self.tables
        places = [
            shared.connection.execute(query("parity", "place")).fetchall() for shared in (tables.source, tables.target)
        ]
        identity = {
            "the tool's version": __version__,
            "the mapping": mapping.digest,
            "the migration": str(tables.migration_id),
            "the databases": repr([(system, database) for ((system, database, _),) in places]),
            "the legacy tables' files": self._files(tables.source.connection, tables.source_oid),
            "the target tables' files": self._files(tables.connection, tables.target_oid),
            "the equality": "exact" if tables.parity.exact else "value",
            "the part of the rows": self.condition.as_string(None) if self.condition else "all",
        }
        return Checkpoint(self.file, mapping.name, identity)

    def _files(self, connection: Connection, oid: int) -> str:
        return repr([(str(leaf.name), leaf.filenode) for leaf in catalog.leaves(connection, oid)])

    def _portions(self) -> list[Portion]:
        """Of both sides in turns, so that both servers have something to do."""
        sides = {
            True: catalog.leaves(self.tables.source.connection, self.tables.source_oid),
            False: catalog.leaves(self.tables.connection, self.tables.target_oid),
        }
        blocks = sum(leaf.blocks for leaves in sides.values() for leaf in leaves)
        size = min(max(blocks // (_PER_WORKER * self.readers.workers), SMALLEST), _LARGEST)
        cut = [list(portions(leaves, size, source=source)) for source, leaves in sides.items()]
        even = [(number / len(one), portion) for one in cut for number, portion in enumerate(one)]
        return [portion for _, portion in sorted(even, key=lambda pair: pair[0])]

    def _drill(self, sides: dict[bool, Digest], parameters: dict[bool, list[Any]], bits: bytes) -> Iterator[Keys]:
        def start(*, source: bool) -> Iterator[Row]:
            """Waits for the first row: until then the server reads and sorts, which both sides do at once."""
            cursor = RawCursor(self.readers.open(source=source), row_factory=class_row(Row))
            rows = cursor.stream(sides[source].rows(), [*parameters[source], bits])
            first = next(rows, None)
            return iter(()) if first is None else chain([first], rows)

        with ThreadPoolExecutor(2, thread_name_prefix="parity-drill") as pair:
            streams = [pair.submit(start, source=source) for source in (True, False)]
            old, new = (stream.result() for stream in streams)
        return unlike(old, new)


def _fingerprint(keys: list[list[str]]) -> str:
    return sha256(repr([sorted(some) for some in keys]).encode()).hexdigest()


def portions(leaves: Sequence[catalog.Leaf], size: int, *, source: bool) -> Iterator[Portion]:
    """All blocks of all leaves, in portions of about ``size`` of them; small leaves share one. The last range of a leaf
    has no end.
    """
    ranges: list[Range] = []
    room = size
    for leaf in leaves:
        low = 0
        while True:
            high = low + room if leaf.blocks - low > room else None
            ranges.append(Range(leaf.name, low, high))
            taken = room if high is not None else max(leaf.blocks - low, 1)
            room -= taken
            if room <= 0:
                yield Portion(source, tuple(ranges), size - room)
                ranges, room = [], size
            if high is None:
                break
            low = high
    if ranges:
        yield Portion(source, tuple(ranges), size - room)
