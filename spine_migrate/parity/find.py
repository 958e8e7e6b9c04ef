"""How the rows that may differ are found: all at once by a join, or as suspects by digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spine_migrate.mapping.emit.chosen import everything
from spine_migrate.parity import rows
from spine_migrate.parity.digest import Digests
from spine_migrate.parity.drill import chunks
from spine_migrate.parity.evidence import Method
from spine_migrate.parity.options import Finding, Options
from spine_migrate.parity.readers import Readers
from spine_migrate.parity.tables import Tables

# Suspects that one statement looks at.
_CHUNK = 10_000


@dataclass(frozen=True)
class Finder:
    """``progress(done, of)`` is told of blocks, where the method counts them."""

    tables: Tables
    options: Options
    progress: Callable[[int, int], None]

    def method(self) -> Method:
        if self.options.method is Finding.BUCKETS:
            return Method("buckets", "it was asked for")
        return Method(
            "join", "it was asked for" if self.options.method is Finding.JOIN else "both tables are on one server"
        )

    def parts(self, method: Method) -> Iterator[rows.Part]:
        """What is to be looked at, so that no row that differs is left out."""
        if method.name == "join":
            yield rows.Part(everything(self.tables.parity))
            return
        readers = Readers(self.tables.source, self.tables.target, self.options.workers)
        digests = Digests(self.tables, readers, self.progress)
        yield from rows.suspects(self.tables.parity, chunks(digests.suspects(), _CHUNK))
