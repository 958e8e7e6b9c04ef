"""How an observer says something to the person at the terminal, or to the log."""

from __future__ import annotations

from typing import Protocol


class Say(Protocol):
    def __call__(self, sentence: str, /, *, event: str = "message", level: str = "info") -> None:
        """``event`` and ``level`` (info, warning, error) are for a log in JSON."""
