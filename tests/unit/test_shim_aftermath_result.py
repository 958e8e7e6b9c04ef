"""What a worker's main process asks of the result backend when a child is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery, states

from spine_shims.aftermath import _success


def _task(**settings: Any) -> Any:
    return cast("Any", SimpleNamespace(backend=Celery(set_as_current=False, **settings).backend))


def test_without_a_result_backend_nothing_is_known_and_nothing_said(caplog: pytest.LogCaptureFixture) -> None:
    assert _success(_task(), "a") is None
    assert caplog.records == []


def test_what_is_stored_is_found() -> None:
    task = _task(backend="cache+memory://")
    assert _success(task, "a") is None
    task.backend.store_result("a", 5, states.SUCCESS)
    found = _success(task, "a")
    assert found is not None
    assert found["result"] == 5
    task.backend.store_result("b", ValueError("x"), states.FAILURE)
    assert _success(task, "b") is None
