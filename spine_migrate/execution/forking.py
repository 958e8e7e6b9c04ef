"""What the child of a fork has of its parent: locks as they were, and not the threads that held them."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    def start_anew(self) -> None:
        """In the child, before anything else is done there."""


_all: weakref.WeakSet[Inherited] = weakref.WeakSet()


def start_in_children(one: Inherited) -> None:
    """Have ``start_anew`` called in every child that is forked while ``one`` is there."""
    _all.add(one)


def _start_all_anew() -> None:
    for one in list(_all):
        one.start_anew()


os.register_at_fork(after_in_child=_start_all_anew)
