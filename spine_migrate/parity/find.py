"""How the rows that may differ are found: all at once by a join, or as suspects by digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.part import of_targets
from spine_migrate.parity.digest import Digests, Seen
from spine_migrate.parity.drill import chunks
from spine_migrate.parity.evidence import Method
from spine_migrate.parity.part import Selection
from spine_migrate.parity.readers import Readers
from spine_migrate.parity.rows import Beside, Keys, Part
from spine_migrate.parity.tables import Tables

# Suspects that one statement looks at.
_CHUNK = 10_000


@dataclass(frozen=True)
class Finder:
    """``legacy`` is ``$1`` of the legacy side; ``progress(done, of)`` is told of blocks, where a method counts them.
    ``seen`` is filled once all suspects have been taken.
    """

    tables: Tables
    selection: Selection
    legacy: Any
    workers: int
    progress: Callable[[int, int], None]
    file: Path | None = None
    seen: Seen = field(default_factory=Seen)

    def parts(self, method: Method) -> Iterator[Part]:
        """What is to be looked at, so that no row that differs is left out."""
        if method.name == "join":
            yield self.selection.part()
            return
        beside = Beside(self.tables.parity)
        for chunk in self.suspects():
            yield beside.part(chunk, 3)

    def suspects(self) -> Iterator[Keys]:
        """The keys of rows that may differ, by digests."""
        return map(self._completed, chunks(self._digests().suspects(), _CHUNK))

    def _digests(self) -> Digests:
        readers = Readers(self.tables.source, self.tables.target, self.workers)
        condition = self.selection.condition
        return Digests(self.tables, readers, condition, self.legacy, self.progress, self.seen, self.file)

    def close(self) -> None:
        """All that was found has been told: there is nothing to go on with."""
        if (checkpoint := self._digests().checkpoint()) is not None:
            checkpoint.clear()

    def _completed(self, chunk: Keys) -> Keys:
        """With the legacy rows that a loose condition has left out; the target's are found by their keys."""
        if not self.selection.loose:
            return chunk
        found = execute(self.tables.source.connection, of_targets(self.tables.legacy_side), self.legacy, chunk.target)
        return Keys(list({*chunk.source, *(key for (key,) in found)}), chunk.target)
