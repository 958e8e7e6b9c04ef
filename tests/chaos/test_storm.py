"""A slice of the storm, and the seeds that once found something; `make storm` is the long one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.chaos.conftest import FULL, tell
from tests.chaos.storm.run import SLICE, size, storm
from tests.chaos.storm.stage import SETTINGS
from tests.conftest import StartServer

_FOUND = tomllib.loads((Path(__file__).parent / "storm" / "seeds.toml").read_text(encoding="utf-8"))["storm"]
# Each takes as long as the others; the slice is for the newest.
_SEEDS = [one["seed"] for one in (_FOUND if FULL else _FOUND[-1:])]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", _SEEDS)
def test_storm(start_server: StartServer, tmp_path: Path, seed: int) -> None:
    tell(f"make storm SEED={seed} MINUTES={4 if FULL else 1}")
    server = start_server(settings=SETTINGS)
    tell(storm(server, seed, size(4.0) if FULL else SLICE, tmp_path, tell))
