"""The picture of a comparison as the geometry of a drawing: rows upwards, what is wrong with them downwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spine_migrate.parity.evidence import Picture, Slice

WIDTH, HEIGHT = 960.0, 190.0
BASE = 120.0
"""Where the rows stand; what is wrong hangs below."""
_GAP = 1.5
# One row among a million is still to be seen.
_LEAST = 3.0


@dataclass(frozen=True)
class Bar:
    """A rectangle in the units of the drawing; ``kind`` is rows, quarantined or wrong."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Column:
    """One slice: its bars, and what it says when it is pointed at; ``x`` and ``width`` without the gap."""

    x: float
    width: float
    title: str
    bars: list[Bar]


def columns(picture: Picture) -> Iterator[Column]:
    width = WIDTH / max(1, len(picture.slices))
    most, worst = most_rows(picture), most_wrong(picture)
    for number, one in enumerate(picture.slices):
        yield Column(number * width, width, title(one), list(_bars(one, number * width, width, most, worst)))


def _bars(one: Slice, x: float, width: float, most: int, worst: int) -> Iterator[Bar]:
    gap = min(_GAP, width / 4)
    for kind, rows in (("rows", one.rows), ("quarantined", one.quarantined)):
        if rows:
            height = max(_LEAST, BASE * min(1.0, rows / most))
            yield Bar(kind, x, BASE - height, width - gap, height)
    if one.wrong:
        height = max(_LEAST, (HEIGHT - BASE - _GAP) * one.wrong / worst)
        yield Bar("wrong", x, BASE + _GAP, width - gap, height)


def most_rows(picture: Picture) -> int:
    return max((one.rows for one in picture.slices), default=0) or 1


def most_wrong(picture: Picture) -> int:
    return max((one.wrong for one in picture.slices), default=0)


def title(one: Slice) -> str:
    numbers = {
        "rows": one.rows,
        "differing": one.differing,
        "missing": one.missing,
        "extra": one.extra,
        "in quarantine and on the target": one.doubled,
        "in quarantine": one.quarantined,
    }
    parts = [f"{number:,} {name}" for name, number in numbers.items() if number or name == "rows"]
    return f"{f'from {one.start}' if one.start else 'before'}: {', '.join(parts)}"
