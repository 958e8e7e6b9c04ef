"""Locks that a child of a pool would find held for ever.

kombu guards each property of a class that it computes once by a lock of that class, for all of its instances. A process
that forks while another thread of its has such a lock leaves it to a child that has no such thread: there the property
is waited for for ever, with a task in hand. Celery's main process has no such thread of its own; the one that looks for
old workers (see fleet.py) is ours, and opens connections as often as it looks.
"""

from __future__ import annotations

import gc
import os
from threading import RLock
from typing import Any

from kombu.utils.objects import cached_property

_known: list[Any] = []


def renew_in_children() -> None:
    """Give the properties that are there now new locks in every child from now on."""
    if not _known:
        os.register_at_fork(after_in_child=_renew)
    # Found once, since to look for them takes longer than to fork; what there is to be found has been imported by now.
    _known[:] = [found for found in gc.get_objects() if isinstance(found, cached_property)]


def _renew() -> None:
    for each in _known:
        each.lock = RLock()
