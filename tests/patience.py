"""What is given up soon, since somebody else goes on with it: not in a test where nobody does, on a busy machine."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from spine_migrate.execution.executors.celery import CeleryExecutor
from spine_migrate.execution.ledgers import carrying


def have_patience(patch: pytest.MonkeyPatch) -> None:
    """With a broker, a pool, and a run that its worker is just marking."""
    given: dict[str, Any] = CeleryExecutor.__init__.__kwdefaults__ or {}
    patch.setitem(given, "publish_timeout_seconds", 30.0)
    # By its name: the package has a function of the same.
    patch.setattr(importlib.import_module("spine_shims.configuration"), "_PATIENCE", 30.0)
    patch.setattr(carrying, "_PAUSES", (0.01, 0.05, *[0.25] * 100))
