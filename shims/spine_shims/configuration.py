"""What an application says once, before its first call: where runs go. The one piece of global state.

Nothing is opened and no setting of Celery's is read before a task is called; a forked child opens connections of its
own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

from spine_migrate.errors import ConfigurationError
from spine_migrate.execution.core import SyncDispatcher
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.registry import HandlerRegistry, get_default_registry
from spine_migrate.execution.worker import Worker
from spine_shims.caller import CallSite
from spine_shims.modes import Mode, Modes, Side
from spine_shims.warning import Deprecations, removal_date

if TYPE_CHECKING:
    from celery import Celery
    from celery.app.task import Context
    from psycopg_pool import ConnectionPool

    from spine_migrate.execution.dispatcher import Dispatcher
    from spine_shims.fleet import Fleet
    from spine_shims.route import Route
    from spine_shims.telemetry import Telemetry

_log = logging.getLogger(__name__)

FALLBACKS = ("fail", "legacy")
PUBLISHERS = ("relay", "direct")

#: Seconds after which a caller is told that the database is away.
_PATIENCE = 5.0
#: libpq's, where the URL says nothing else: a host that has vanished without a word is given up, and not waited for as
#: long as the kernel does, which is a quarter of an hour.
_VANISHED = {"connect_timeout": "5", "tcp_user_timeout": "10000", "keepalives_idle": "30"}


class Configuration:
    """See ``configure``. ``dispatcher_of`` gives the dispatcher for an application of Celery's."""

    def __init__(
        self,
        dispatcher_of: Callable[[Celery], SyncDispatcher],
        *,
        fallback: str,
        removal: date | None,
        modes: Modes,
        telemetry: Telemetry | None,
        lease_seconds: float,
        workers_first: bool,
        fleet: Fleet | None = None,
    ) -> None:
        if fallback not in FALLBACKS:
            raise ConfigurationError(f"fallback is one of {', '.join(FALLBACKS)}, not {fallback!r}.")
        self.dispatcher = dispatcher_of
        self.fallback = fallback
        self.telemetry = telemetry
        self.fleet = fleet
        self._removal = removal
        self._modes = modes
        self.lease_seconds = lease_seconds
        self._workers_first = workers_first
        self._deprecations = Deprecations()
        self._told: set[str] = set()

    @property
    def falls_back(self) -> bool:
        """Whether the old body does it, untracked, while the database is away."""
        return self.fallback == "legacy"

    def ledger(self, app: Celery) -> Ledger:
        return self.dispatcher(app).ledger

    def registry(self, app: Celery) -> HandlerRegistry:
        return self.dispatcher(app).registry or get_default_registry()

    def worker(self, app: Celery) -> Worker:
        dispatcher = self.dispatcher(app)
        return Worker(dispatcher.ledger, self.registry(app), self.lease_seconds, guard=dispatcher.concurrency)

    def side_of_call(self, task: str, route: Route, task_id: str) -> tuple[Mode, Side]:
        """What becomes of a call that is to be sent."""
        mode, side = self.side_of_message(task, route, task_id)
        if side is Side.DISPATCH and self._workers_first and not self._modes.workers_ready(task):
            if task not in self._told:
                self._told.add(task)
                _log.warning(
                    "The task %s is sent as before: no worker that has its shim was seen lately, or one that has not is"
                    " still there.",
                    task,
                )
            return mode, Side.LEGACY
        return mode, side

    def side_of_delivery(self, task: str, route: Route, request: Context) -> tuple[Mode, Side]:
        """What becomes of a message without a run. While a worker without the shim is there, no run is made of it: its
        next attempt would be a message again, which that worker may get. One that was delivered before may have a run.
        """
        mode, side = self.side_of_message(task, route, request.id)
        again = request.is_eager or (request.delivery_info or {}).get("redelivered")
        if side is Side.DISPATCH and self._workers_first and not again and self._modes.workers_mixed(task):
            return mode, Side.LEGACY
        return mode, side

    def side_of_message(self, task: str, route: Route, task_id: str) -> tuple[Mode, Side]:
        """What becomes of a message, or of a direct call: whoever executes it has the shim."""
        mode = self._modes.mode(task, route.default_mode)
        side = mode.side(task_id)
        if side is Side.SHADOW and not route.comparable:
            if task not in self._told:
                self._told.add(task)
                _log.error(
                    "The task %s stays with its old body: its handler is neither pure nor has it a dry run.", task
                )
            return mode, Side.LEGACY
        return mode, side

    def called(self, task: str, route: Route, caller: CallSite | str | None, mode: Mode, side: Side) -> None:
        """Warn the caller, and count the call. Raises ShimRemoved after the removal."""
        removal = route.removal_day or self._removal
        site = caller if isinstance(caller, CallSite) else None
        self._deprecations.called(task, route.call_instead, removal, site)
        self.count(task, caller, mode, side)

    def count(self, task: str, caller: CallSite | str | None, mode: Mode, side: Side) -> None:
        if self.telemetry is not None:
            self.telemetry.note(task, caller, mode, side)


_configured: Configuration | None = None


def configure(
    dispatcher: Dispatcher | SyncDispatcher | str,
    *,
    schema: str | None = None,
    publish: str | None = None,
    wait_for_disk: bool | None = None,
    fallback: str = "fail",
    removal: str | date | None = None,
    modes: Modes | None = None,
    telemetry: Telemetry | None = None,
    lease_seconds: float = 60.0,
    workers_first: bool | None = None,
) -> None:
    """Say where runs go: to a dispatcher, or, by its URL, to a PostgreSQL database, whose tables are in ``schema``.

    By URL, ``publish`` says who publishes: the ``relay`` (the default), so that a call is one INSERT, or the caller,
    ``direct``. With ``wait_for_disk`` False a call does not wait until PostgreSQL has it on disk, and may be lost by a
    crash of the server, as it may be by one of Redis. A dispatcher knows all that itself, as it knows whose handlers
    and whose guard there are.

    ``fallback`` is what a call, and a message that has no run yet, comes to while the database is away: ``fail``, an
    error for the caller, and for the message another try later; or ``legacy``, the old body, untracked. ``removal`` is
    the last day of the tasks whose route has none. ``modes`` and ``telemetry`` are made for a URL; with a dispatcher,
    modes are those of environment and file and nothing is counted, unless they are given. With ``workers_first``, which
    a URL has, a call is dispatched while a worker that has the shim was seen lately, and none that has the task without
    it; else it is sent as before.
    ``lease_seconds`` is how long a dead worker goes unnoticed. Raises ConfigurationError.
    """
    global _configured  # noqa: PLW0603 - the one piece of global state
    fleet: Fleet | None = None
    if isinstance(dispatcher, str):
        dispatcher_of = _at(dispatcher, schema, _publisher(publish), wait_for_disk=wait_for_disk is not False)
        modes, telemetry, fleet = _of_database(dispatcher, schema, modes, telemetry)
        workers_first = True if workers_first is None else workers_first
    else:
        if any(option is not None for option in (publish, schema, wait_for_disk)):
            raise ConfigurationError("publish, schema and wait_for_disk go with a URL; a dispatcher has its own.")
        made = dispatcher if isinstance(dispatcher, SyncDispatcher) else dispatcher.sync

        def dispatcher_of(_: Celery) -> SyncDispatcher:
            return made

    _configured = Configuration(
        dispatcher_of,
        fallback=fallback,
        removal=removal_date(removal),
        modes=Modes() if modes is None else modes,
        telemetry=telemetry,
        lease_seconds=lease_seconds,
        workers_first=bool(workers_first),
        fleet=fleet if workers_first else None,
    )


def configuration() -> Configuration:
    """Raises ConfigurationError where nobody has said anything yet."""
    if _configured is None:
        raise ConfigurationError(
            "The shims do not know where runs go; call spine_shims.configure(dispatcher or URL) where the application"
            " makes its Celery app."
        )
    return _configured


def is_configured() -> bool:
    return _configured is not None


def reset() -> None:
    """As if nothing had been said; for tests."""
    global _configured  # noqa: PLW0603 - as above
    _configured = None


def _publisher(publish: str | None) -> bool:
    """Whether the caller publishes."""
    if publish not in (None, *PUBLISHERS):
        raise ConfigurationError(f"publish is one of {', '.join(PUBLISHERS)}, not {publish!r}.")
    return publish == "direct"


def _at(
    url: str,
    schema: str | None,
    publish: bool,  # noqa: FBT001 - of publish=
    *,
    wait_for_disk: bool,
) -> Callable[[Celery], SyncDispatcher]:
    """A dispatcher for each application that asks, made when it first does, over one pool."""
    by_app: dict[Celery, SyncDispatcher] = {}
    pools: list[ConnectionPool] = []

    def dispatcher_of(app: Celery) -> SyncDispatcher:
        found = by_app.get(app)
        if found is None:
            from spine_migrate.execution.executors.celery import CeleryExecutor
            from spine_migrate.execution.ledgers.postgres import PostgresLedger

            if not pools:
                pools.append(_pool(url))
            ledger = PostgresLedger(pools[0], schema, wait_for_disk=wait_for_disk)
            made = SyncDispatcher(CeleryExecutor(app), ledger, publish=publish, mark_later=True)
            # No lock, which a fork could leave held: of two that are made at once, one is not used.
            found = by_app.setdefault(app, made)
        return found

    return dispatcher_of


def _pool(url: str) -> ConnectionPool:
    """Raises ConfigurationError."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict
    from psycopg_pool import ConnectionPool

    from spine_migrate.execution.pools import check_alive

    try:
        given = conninfo_to_dict(url)
    except ProgrammingError:
        # What libpq says of it repeats parts of it.
        raise ConfigurationError("The URL that spine_shims.configure() was given is none that libpq knows.") from None
    # Which by itself would look for a server that is back after ever longer pauses, of minutes in the end.
    return ConnectionPool(
        url,
        # As the ledger has its connections; else it would switch to and fro for each call.
        kwargs={**{name: value for name, value in _VANISHED.items() if name not in given}, "autocommit": True},
        min_size=1,
        max_size=4,
        timeout=_PATIENCE,
        reconnect_timeout=_PATIENCE,
        check=check_alive,
        open=True,
    )


def _of_database(
    url: str, schema: str | None, modes: Modes | None, telemetry: Telemetry | None
) -> tuple[Modes, Telemetry, Fleet]:
    """With one session for all of them."""
    from spine_shims.fleet import Fleet
    from spine_shims.tables import Tables
    from spine_shims.telemetry import Telemetry

    tables = Tables.at(url, schema)
    return modes or Modes(tables), telemetry or Telemetry(tables), Fleet(tables)
