"""From buckets that differ to the keys of the rows that do: two ordered streams, merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import groupby

from spine_migrate.parity.rows import Keys


@dataclass(frozen=True)
class Row:
    """``place`` and ``hash`` as ``Digest.rows`` gives them. ``source_key`` is None for a row of the target."""

    place: int
    target_key: str | None
    source_key: str | None
    hash: int

    @property
    def order(self) -> tuple[int, bytes]:
        """As the server orders by place and by the key under the collation "C"."""
        return self.place, (self.target_key or "").encode()


def unlike(old: Iterator[Row], new: Iterator[Row]) -> Iterator[Keys]:
    """The rows of one target key each, where the two sides do not have the same of it. In constant memory."""
    for _, found in groupby(merge(old, new, key=lambda row: row.order), key=lambda row: row.order):
        rows = list(found)
        legacy = [row for row in rows if row.source_key is not None]
        ours = [row for row in rows if row.source_key is None]
        key = rows[0].target_key
        if key is None or Counter(row.hash for row in legacy) != Counter(row.hash for row in ours):
            yield Keys([str(row.source_key) for row in legacy], [] if key is None else [key])


def chunks(groups: Iterable[Keys], size: int) -> Iterator[Keys]:
    """Groups put together to about ``size`` rows."""
    chunk = Keys([], [])
    for group in groups:
        chunk.source.extend(group.source)
        chunk.target.extend(group.target)
        if len(chunk.source) + len(chunk.target) >= size:
            yield chunk
            chunk = Keys([], [])
    if chunk.source or chunk.target:
        yield chunk
