"""What ``cutover``, ``rollback`` and ``retire`` open before they look at anything, in one way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spine_migrate.cli.observing import Observed

if TYPE_CHECKING:
    from spine_migrate.carry.known import Known
    from spine_migrate.db.connect import Connection
    from spine_migrate.mapping.model import Mapping
    from spine_migrate.notices import Observer
    from spine_migrate.observe.saying import Say

    Find = Callable[[Connection, Sequence[Mapping]], Sequence[Known]]

# Seconds between two looks at the wish to cancel.


@dataclass(frozen=True)
class Switching:
    """``members``: the migrations of ``mappings``, or all, with those that go along; their locks are held. ``stop``:
    the wish to end where nothing is half done; ``cancel``: to end at once.
    """

    connection: Connection
    members: Sequence[Known]
    mappings: Sequence[Mapping]
    observer: Observer
    say: Say
    stop: threading.Event
    cancel: threading.Event


@contextmanager
def opened(
    target: str | None,
    names: Sequence[str],
    seen: Observed,
    *,
    wait: bool,
    retry_for: float,
    find: Find | None = None,
) -> Iterator[Switching]:
    """``names``: what --mapping was given. ``find``: the migrations of these mappings, for another rule than that of
    ``cutover.group.group``. Ctrl-C, SIGTERM: the first sets ``stop``, the second cancels the statement
    in flight, too, which then raises Interrupted.
    """
    from spine_migrate.carry.known import held
    from spine_migrate.cli.signals import stopping
    from spine_migrate.cutover.group import group
    from spine_migrate.db.cancelling import cancelling
    from spine_migrate.mapping.load import load

    mappings = [load(name) for name in names]
    with (
        stopping(seen.say, until="at the next point where nothing is half done") as (stop, cancel),
        held(
            target,
            lambda connection: (find or group)(connection, mappings),
            stop=stop,
            cancel=cancel,
            retry_seconds=retry_for,
            wait=wait,
        ) as (connection, members, _),
        cancelling(cancel, lambda: [connection]),
    ):
        yield Switching(connection, members, mappings, seen.observer, seen.say, stop, cancel)
