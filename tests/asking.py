"""One statement at a time, over a connection that is kept: tests that look again and again, and bodies that write down
each execution of theirs, would spend most of their time on connecting.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import psycopg

#: What was not used for the longest time goes.
_kept: OrderedDict[str, psycopg.Connection[Any]] = OrderedDict()
_MOST = 4
_at_work = threading.Lock()


def ask(url: str, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Its rows, if it gives any; it is committed."""
    with _at_work:
        cursor = _connection(url).execute(statement, values)
        return [] if cursor.description is None else cursor.fetchall()


def _connection(url: str) -> psycopg.Connection[Any]:
    if (found := _kept.pop(url, None)) is not None:
        # The server may have been stopped, or the session been ended, since.
        with suppress(psycopg.OperationalError):
            found.execute("")
            _kept[url] = found
            return found
        found.close()
    _kept[url] = psycopg.connect(url, autocommit=True, prepare_threshold=None)
    if len(_kept) > _MOST:
        _kept.popitem(last=False)[1].close()
    return _kept[url]


@atexit.register
def _close() -> None:
    while _kept:
        _kept.popitem()[1].close()


def _forked() -> None:
    """What came along is the parent's, and is not closed here."""
    global _at_work, _kept
    _inherited.append(_kept)
    _at_work, _kept = threading.Lock(), OrderedDict()


_inherited: list[object] = []
os.register_at_fork(after_in_child=_forked)
