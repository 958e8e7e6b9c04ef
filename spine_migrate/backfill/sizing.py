"""How many rows the next batch takes: as many as fit a time target, or a fixed number."""

from __future__ import annotations

FIRST, SMALLEST, LARGEST = 5_000, 100, 100_000
TARGET_SECONDS = 1.0
SMOOTHING = 0.4
GROW, GROW_EARLY = 1.2, 2.0


class Sizer:
    """Exponential moving average of the rate, as in GitLab's batched migrations: a step up is at most a fifth, except
    while batches take less than a quarter of the target, when it doubles. Steps down are not limited.

    ``target_seconds`` is what a batch is to take. Each time that the server was busy the size is halved, and from then
    on it grows by small steps only.

    After a failure the size is halved, down to one row, to find the row that is at fault; each success doubles it again
    until it is back where it was.
    """

    def __init__(self, fixed: int | None, target_seconds: float = TARGET_SECONDS) -> None:
        self.fixed = fixed
        self.target_seconds = target_seconds
        self._size = float(fixed or FIRST)
        self._early = GROW_EARLY
        self._rate: float | None = None
        self._narrowed: int | None = None

    @property
    def rows(self) -> int:
        return self._narrowed if self._narrowed is not None else int(self._size)

    @property
    def narrowed(self) -> bool:
        return self._narrowed is not None

    def succeeded(self, rows: int, seconds: float) -> None:
        if self._narrowed is not None:
            self._narrowed = self._narrowed * 2 if self._narrowed * 2 < self._size else None
            return
        if self.fixed is not None or rows == 0:
            return
        rate = rows / max(seconds, 1e-6)
        self._rate = rate if self._rate is None else SMOOTHING * rate + (1 - SMOOTHING) * self._rate
        most = self._size * (self._early if seconds < self.target_seconds / 4 else GROW)
        self._size = max(SMALLEST, min(self._rate * self.target_seconds, most, LARGEST))

    def change(self, fixed: int | None, target_seconds: float) -> None:
        """Other wishes from here on. Who gives up a fixed size starts from it."""
        self.target_seconds = target_seconds
        if fixed != self.fixed:
            self.fixed = fixed
            self._size = float(fixed or self._size)
            self._narrowed = None

    def ease(self) -> None:
        """Halve, since the server was busy. A size that somebody has fixed stays."""
        self._early = GROW
        if self.fixed is None:
            self._size = max(SMALLEST, self._size / 2)

    def failed(self) -> None:
        """Halve. The caller stops at one row."""
        self._narrowed = max(1, self.rows // 2)
