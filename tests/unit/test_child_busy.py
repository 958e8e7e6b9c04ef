"""A process of the local executor knows that it is busy, however soon the next handler comes."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from spine_migrate.execution.executors import child
from spine_migrate.execution.executors.child import _Inbox, _Outbox, _serve
from spine_migrate.execution.runs import RunRecord
from spine_migrate.execution.spec import task_spec
from tests.waiting import until

_SEEN: list[bool] = []
_INBOXES: list[Any] = []


def look(_: dict[str, Any]) -> None:
    _SEEN.append(_INBOXES[0].busy)


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
    _SEEN.clear()
    _INBOXES.clear()


def test_the_next_handler_comes_before_the_last_one_is_put_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inbox(_Inbox):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            _INBOXES.append(self)

    class Slow(_Outbox):
        def send(self, kind: str, value: Any) -> None:
            super().send(kind, value)
            if len(_SEEN) == 1:
                until(lambda: not _INBOXES[0].work.empty(), "The next handler does not come")

    monkeypatch.setattr(child, "_Inbox", Inbox)
    monkeypatch.setattr(child, "_Outbox", Slow)
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    work = pickle.dumps((look, RunRecord(task_spec("work")), 1, None))

    def own() -> None:
        for _ in range(2):
            ours.send_bytes(work)
            ours.recv()
        ours.close()

    owner = threading.Thread(target=own)
    owner.start()
    _serve(theirs, 60.0)
    owner.join()
    assert _SEEN == [True, True]
