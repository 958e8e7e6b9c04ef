"""Chaos tests run a short slice in ``make test`` and in full where SPINE_CHAOS_FULL is set, as ``make chaos`` does.

Each test draws its moments from a seed that it prints; SPINE_CHAOS_SEED gives another one.
"""

from __future__ import annotations

import os
import random
import sys

import pytest

FULL = bool(os.environ.get("SPINE_CHAOS_FULL"))


def tell(line: str) -> None:
    """Shown with ``pytest -s``, and by pytest itself where a test fails."""
    sys.stdout.write(f"{line}\n")


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed = int(os.environ.get("SPINE_CHAOS_SEED", "20261120"))
    tell(f"{request.node.name}: SPINE_CHAOS_SEED={seed}")
    return random.Random(seed)
