"""Workers of the version without shims, beside the others: who has a task and not its shim.

Such a worker executes what is dispatched, since it is the old task's message, and claims no run. So a worker that has
shims looks, before it announces them and for as long as it lives, whether every node that has the same tasks has their
shims as well. It asks by Celery's own remote control (``inspect registered``, with an attribute of the task), which
old workers answer too. Of many workers one looks often, the others less so.

Who is not seen: a node that does not answer remote control in time, because that is switched off
(``worker_enable_remote_control``) or because its pool is ``solo`` and busy.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError, OperationalError

from spine_migrate.execution.errors import BackendError
from spine_shims.forking import renew_in_children

if TYPE_CHECKING:
    from celery import Celery

    from spine_shims.tables import Tables

_log = logging.getLogger(__name__)

#: The attribute of a task that tells of its shim: ``RerouteTask.spine_shim``.
MARK = "spine_shim"
#: Seconds between two looks of the one that looks often, and how many of them the others leave out.
LOOK_SECONDS = 30.0
_OTHERS = 3
#: Seconds that nodes have to answer: later on, where what was seen before goes on counting for a few looks, and at
#: first, where one that answers late would not be known at all.
_PATIENCE = 1.0
_FIRST_PATIENCE = 3.0
#: Looks in which a worker does not see itself before it takes remote control for switched off.
_BLIND = 5


@dataclass(frozen=True)
class Look:
    """``nodes`` have a shim, or more; ``without`` are tasks, each with a node that has it without its shim."""

    nodes: frozenset[str]
    without: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, answers: Collection[dict[str, Any]], tasks: Collection[str]) -> Look:
        """From what nodes said of their tasks, one line each: ``name``, or ``name [spine_shim=yes]``. Two nodes of one
        name are two answers.
        """
        shimmed, bare = set(), set()
        for answer in answers:
            for node, lines in answer.items():
                for task in {line for line in lines if isinstance(line, str)} if isinstance(lines, list) else ():
                    name, marked, _ = task.partition(f" [{MARK}=")
                    if name in tasks and marked:
                        shimmed.add(node)
                    elif name in tasks:
                        bare.add((name, node))
        return cls(frozenset(shimmed), tuple(sorted(bare)))


def look(app: Celery, tasks: Collection[str], patience: float = _PATIENCE) -> Look:
    """Raises BackendError where the broker cannot be reached."""
    with app.connection_for_write() as connection:
        errors = (KombuError, OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
        try:
            answers = app.control.broadcast(
                "registered", {"taskinfoitems": [MARK]}, connection=connection, reply=True, timeout=patience
            )
        except errors as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise BackendError(f"The workers cannot be asked: {words}.") from error
    return Look.of(answers or (), tasks)


class Fleet:
    """``tables`` is where what was seen is told to everybody."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._told: tuple[tuple[str, str], ...] | str = ()

    def watch(self, app: Celery, node: str, tasks: Collection[str], announce: Callable[[], None]) -> None:
        """Look again and again, in a thread, as the worker ``node``, which has the shims of ``tasks``; ``announce`` it
        once the first look has been told, so that nobody hears of the new workers before the old ones.
        """
        if not app.conf.worker_enable_remote_control:
            _log.warning("Workers without shims cannot be seen: worker_enable_remote_control is off.")
            announce()
            return
        renew_in_children()
        work = threading.Thread(
            target=self._watch, args=(app, node, tasks, announce), name="spine-shim-fleet", daemon=True
        )
        work.start()

    def _watch(self, app: Celery, node: str, tasks: Collection[str], announce: Callable[[], None]) -> None:
        pause, blind, announced = threading.Event(), 0, False
        while True:
            seen = self._look(app, tasks, _PATIENCE if announced else _FIRST_PATIENCE)
            blind = blind + 1 if seen is not None and node not in seen.nodes else 0
            if blind == _BLIND:
                _log.warning("Workers without shims may not be seen: this one does not see itself by remote control.")
            if not announced and seen is not None and (node in seen.nodes or blind >= _BLIND):
                announced = True
                announce()
            if seen is None or not announced:
                pause.wait(_PATIENCE)
            else:
                pause.wait(LOOK_SECONDS * (1 if node == min(seen.nodes, default=node) else _OTHERS))

    def _look(self, app: Celery, tasks: Collection[str], patience: float) -> Look | None:
        """None where nobody could be asked, or told."""
        try:
            seen = look(app, tasks, patience)
            if seen.without:
                self._tables.seen_without(seen.without)
        except BackendError as error:
            self._tell(error.sentence, "Old workers are not looked for now: %s", error.sentence)
            return None
        except Exception as error:  # noqa: BLE001 - kombu's own, where a connection is lost; nobody else would look again
            kind = type(error).__qualname__
            self._tell(kind, "Old workers are not looked for now: looking raised %s.", kind)
            return None
        nodes = sorted({node for _, node in seen.without})
        if nodes:
            self._tell(seen.without, "Nothing is dispatched to workers without shims; there are %s.", ", ".join(nodes))
        else:
            self._told = ()
        return seen

    def _tell(self, what: tuple[tuple[str, str], ...] | str, words: str, *values: str) -> None:
        """Once, for as long as it is so."""
        if what != self._told:
            self._told = what
            _log.warning(words, *values)
