"""Digests as numbers: 65,536 lanes of 64 bits in one integer, so that adding and comparing is one operation."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from spine_migrate.mapping.emit.digest import BUCKETS

_LANES = struct.Struct(f">{BUCKETS}Q")
SIZE = _LANES.size
"""Bytes of a number with all lanes."""


def lanes(number: int) -> tuple[int, ...]:
    """The first bucket stands in the highest bits."""
    return _LANES.unpack(number.to_bytes(SIZE, "big"))


@dataclass
class Buckets:
    """One side so far. No lane of ``counts`` overflows, so a sum of whole integers is the sum of each lane."""

    counts: int = 0
    hashes: int = 0

    def add(self, counts: bytes, hashes: bytes) -> None:
        """Another portion, as ``Digest.buckets`` gives it."""
        self.counts += int.from_bytes(counts, "big")
        self.hashes ^= int.from_bytes(hashes, "big")

    @property
    def rows(self) -> int:
        return sum(lanes(self.counts))

    def differing(self, other: Buckets) -> bytes | None:
        """The buckets that are not the same on both sides, as a bit string for get_bit(); None where all are."""
        unlike = (self.counts ^ other.counts) | (self.hashes ^ other.hashes)
        if not unlike:
            return None
        bits = bytearray(BUCKETS // 8)
        for number, lane in enumerate(lanes(unlike)):
            if lane:
                bits[number // 8] |= 1 << (number % 8)
        return bytes(bits)
