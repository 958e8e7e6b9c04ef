"""Doing something to many rows at once, and to fewer where the server refuses one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import blames_row

Sift = Callable[[Sequence[str], psycopg.Error], set[str]]
# Rows at fault that one transaction looks for; each takes some statements, and whoever waits for the transaction waits
# for them.
MOST_REFUSED = 100


@dataclass(frozen=True)
class Halved:
    """``total``: the sum of what the act gave. ``refused`` rows were tried alone; ``untried`` ones only beside others
    that may be at fault.
    """

    total: int = 0
    refused: dict[str, psycopg.Error] = field(default_factory=dict)
    untried: list[str] = field(default_factory=list)


@dataclass
class Halving:
    """Within one transaction; ``left`` is how many rows at fault it still looks for, None for all there are. For each
    of them it takes as many statements as the rows can be halved, at most.
    """

    connection: Connection
    left: int | None = field(default_factory=lambda: MOST_REFUSED)

    @property
    def tired(self) -> bool:
        return self.left is not None and self.left <= 0

    def each(self, keys: Sequence[str], act: Callable[[Sequence[str]], int], sift: Sift | None = None) -> Halved:
        """``act`` on all keys, or on halves of them where the server refuses a row, down to the row at fault. ``sift``
        may tell at once which of them are at fault; they are passed over then. What is not halved any more is still
        tried as it is.
        """
        total = 0
        refused: dict[str, psycopg.Error] = {}
        untried: list[str] = []
        parts = [list(keys)] if keys else []
        while parts:
            part = parts.pop()
            try:
                with self.connection.transaction():
                    total += act(part)
            except psycopg.Error as error:
                if not blames_row(error):
                    raise
                if len(part) == 1:
                    refused[part[0]] = error
                    self._count()
                    continue
                if self.tired:
                    untried += part
                    continue
                out = sift(part, error) if sift is not None else set()
                if out:
                    self._count()
                    parts += [[key for key in part if key not in out]] if len(out) < len(part) else []
                    continue
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        return Halved(total, refused, untried)

    def _count(self) -> None:
        if self.left is not None:
            self.left -= 1
