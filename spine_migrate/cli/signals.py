"""Ctrl-C and SIGTERM: the first stops after the batch in flight, the second cancels it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from spine_migrate.observe.saying import Say


def aloud(sentence: str, /, *, event: str = "message", level: str = "info") -> None:  # noqa: ARG001 - see Say
    """On stderr, as text."""
    click.echo(sentence, err=True)


@contextmanager
def stopping(
    say: Say = aloud, *, until: str = "after the current batch"
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """``(stop, cancel)``, set by the first and the second signal while the block runs. ``until``: when it stops."""
    stop, cancel = threading.Event(), threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            cancel.set()
            return
        stop.set()
        say(f"Stopping {until}; press Ctrl-C again to cancel it.", event="stopping")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def answering() -> Iterator[None]:
    """While somebody is asked, Ctrl-C is an answer: KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
