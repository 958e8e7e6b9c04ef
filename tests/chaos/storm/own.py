"""What a writer knows of its own rows: what is committed, and what the transaction under way makes of it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.storm.record import Change, Row

# Own rows that are still written to; older ones rest, and are looked for all the same.
_POOL = 300
ENDED = ("completed", "failed", "cancelled")


class Mislaid(Exception):
    """An own row is not as it was committed."""


@dataclass(frozen=True)
class Given:
    """What a writer begins with: rows of the history that are its own, with how many events they have; and what all
    writers share.
    """

    own: dict[str, tuple[str | None, str | None, int]]
    shared: Sequence[str]
    feeds: Sequence[str]


@dataclass
class Known:
    """What is committed. ``active``: the running row of each own feed; ``odd``: a row with a status that is unknown."""

    change: Change = field(default_factory=Change)
    pool: list[str] = field(default_factory=list)
    active: dict[str, str] = field(default_factory=dict)
    odd: str | None = None


class Own:
    """What one transaction does is collected in ``draft``; ``commit`` makes it known."""

    def __init__(self, chance: random.Random, given: Given) -> None:
        self.chance = chance
        self.given = given
        self.known = Known(
            Change(
                {key: (status, error) for key, (status, error, _) in given.own.items()},
                {key: events for key, (_, _, events) in given.own.items()},
            ),
            list(given.own),
        )
        self.feeds = [self.key() for _ in range(3)]
        self.begin()

    def begin(self) -> None:
        self.draft = Change()
        self.active = dict(self.known.active)
        self.odd_row = self.known.odd
        self.longest: dict[str, float] = {}

    def commit(self) -> None:
        self.known.change.take(self.draft)
        self.known.active, self.known.odd = self.active, self.odd_row
        alive = [key for key, row in self.draft.rows.items() if row is not None and row[0] is not None]
        gone = self.draft.rows.keys()
        self.known.pool = [*(key for key in self.known.pool if key not in gone), *alive][-_POOL:]

    def own(self) -> str | None:
        """A row of this writer's that there is, as far as this transaction has come."""
        keys = self.chance.sample(self.known.pool, min(3, len(self.known.pool)))
        return next((key for key in keys if self.draft.rows.get(key, ("", "")) is not None), None)

    def row(self, key: str) -> Row:
        row = self.draft.rows[key] if key in self.draft.rows else self.known.change.rows[key]
        assert row is not None
        return row

    def status(self, key: str) -> str | None:
        return self.row(key)[0]

    def ended(self, key: str) -> str:
        """A status that an own row may get: the running row of a feed ends by ``flip``."""
        return "running" if key in self.active.values() else self.chance.choice(ENDED)

    def events(self, key: str) -> int:
        return self.draft.events.get(key, self.known.change.events.get(key, 0))

    def key(self) -> str:
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))

    def text(self) -> str:
        return f"{self.chance.getrandbits(64):x}"
