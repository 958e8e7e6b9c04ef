"""What every benchmark is given: where, how large, how often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rounds import Side, Taken, alternate
from benchmarks.server import running, server_cpu
from spine_migrate.db.embedded import EmbeddedServer


@dataclass(frozen=True)
class Setup:
    """``folder`` holds one server per profile, with the databases of earlier runs; ``rows`` are executions."""

    folder: Path
    profile: str
    rows: int
    rounds: int

    @contextmanager
    def server(self, *, port: int | None = None) -> Iterator[EmbeddedServer]:
        with running(self.folder / self.profile, self.profile, port=port) as server:
            yield server

    def alternate(self, sides: dict[str, Side]) -> Taken:
        """Without a round to warm up: it would take as long as the others, and medians do without."""
        return alternate(sides, self.rounds, warm_up=False, meter=lambda: server_cpu(self.folder / self.profile))
