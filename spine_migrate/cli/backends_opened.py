"""The backends that ``compare-backends`` is told of, opened: by their names, what they execute, and where."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spine_migrate.cli.publisher import imported, named, publisher
from spine_migrate.errors import ConfigurationError

if TYPE_CHECKING:
    from spine_migrate.execution.core import SyncDispatcher
    from spine_migrate.execution.executors.protocol import Executor
    from spine_migrate.execution.registry import HandlerRegistry
    from spine_migrate.execution.spec import WorkSpec
    from spine_migrate.parity.outputs.driving import Backend

DryRun = Callable[[dict[str, Any]], dict[str, Any]]

LEGACY = "legacy"
CELERY = "celery"


@dataclass(frozen=True)
class Asked:
    """``params`` is as it was typed. ``backends`` are names, the baseline first."""

    name: str
    kind: str | None
    params: str
    backends: tuple[str, ...]
    app: str | None
    modules: tuple[str, ...]
    registry: str | None
    legacy: str | None
    legacy_params: str | None
    lane: str
    max_retries: int
    timeout: float
    target: str | None
    target_schema: str | None


@dataclass(frozen=True)
class Work:
    """What is executed everywhere. ``pure`` says that its handler changes nothing, as it is executed here; with
    ``dry_run`` the params are those that its ``dry_run`` has made.
    """

    spec: WorkSpec
    registry: HandlerRegistry
    pure: bool
    dry_run: bool


def work(asked: Asked) -> Work:
    """Loads the application's modules. Raises ConfigurationError."""
    from uuid import uuid4

    from spine_migrate.execution.registry import HandlerRegistry, get_default_registry
    from spine_migrate.execution.spec import WorkSpec

    for module in asked.modules:
        imported(module)
    if asked.app is not None:
        named(asked.app)
    registry = get_default_registry() if asked.registry is None else named(asked.registry, "shop.handlers:registry")
    if not isinstance(registry, HandlerRegistry):
        raise ConfigurationError(f"{asked.registry} is of the type {type(registry).__name__}, no HandlerRegistry.")
    kind = asked.kind or _kind(registry, asked.name)
    params = json_object("--params", asked.params)
    pure, dry_run = _marks(asked, registry, kind)
    spec = WorkSpec(
        kind,
        asked.name,
        params if dry_run is None else dry_run(params),
        lane=asked.lane,
        trigger_source="compare-backends",
        metadata={"compare_backends": str(uuid4())},
        max_retries=asked.max_retries,
        retry_delay_seconds=0,
    )
    return Work(spec, registry, pure=pure or dry_run is not None, dry_run=dry_run is not None)


@contextmanager
def opened(asked: Asked, of: Work) -> Iterator[list[Backend]]:
    """For as long as the block lasts. Raises ConfigurationError, Refused, ServerFault."""
    from spine_migrate.execution.executors.local import LocalExecutor
    from spine_migrate.parity.outputs.driving import Dispatched

    with ExitStack() as stack:
        made: list[Backend] = []
        for name in asked.backends:
            if name == LEGACY and asked.legacy is not None:
                made.append(_old_body(asked.legacy, asked))
                continue
            dispatcher = _dispatcher(name, asked, of, stack)
            todo = _todo(dispatcher.executor, of.spec)
            made.append(Dispatched(name, dispatcher, of.spec, asked.timeout, todo))
            if isinstance(dispatcher.executor, LocalExecutor):
                # One that does not stop is not waited for.
                stack.callback(dispatcher.executor.shutdown, wait=False, cancel_futures=True)
        yield made


def json_object(option: str, text: str) -> dict[str, Any]:
    """``text`` is JSON, or ``@FILE``. Raises ConfigurationError."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"The file of {option} cannot be read: {error}.") from error
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"What {option} gives is no JSON ({error}).") from error
    if not isinstance(given, dict):
        raise ConfigurationError(f"What {option} gives is a {type(given).__name__}; it must be a JSON object.")
    return given


def _marks(asked: Asked, registry: HandlerRegistry, kind: str) -> tuple[bool, DryRun | None]:
    """Whether the handler is said to change nothing, and what makes params with which it does not. It is registered
    so, or the shim that is named as the old body says so, as for the mode shadow.
    """
    known = registry.get_metadata(kind, asked.name) if registry.has(kind, asked.name) else {}
    pure, dry_run = known.get("pure") is True, known.get("dry_run")
    route = None if asked.legacy is None else getattr(named(asked.legacy), "route", None)
    if route is not None and (route.kind, route.name) == (kind, asked.name):
        pure, dry_run = pure or route.pure is True, dry_run or route.dry_run
    return pure, dry_run if callable(dry_run) else None


def _kind(registry: HandlerRegistry, name: str) -> str:
    kinds = [kind for kind, known in registry.list_handlers() if known == name]
    if len(kinds) > 1:
        raise ConfigurationError(f"{name!r} is registered as {' and as '.join(kinds)}; say which one with --kind.")
    return kinds[0] if kinds else "pipeline"


def _dispatcher(name: str, asked: Asked, of: Work, stack: ExitStack) -> SyncDispatcher:
    """Shipped ones are made here, with handlers and ledger of their own; others are the application's."""
    from spine_migrate.execution.dispatching import get_backend
    from spine_migrate.execution.errors import PipelineNotFoundError
    from spine_migrate.parity.outputs import in_process

    if name in in_process.IN_PROCESS:
        try:
            of.registry.get(of.spec.kind, of.spec.name)
        except PipelineNotFoundError as error:
            raise ConfigurationError(f"{error.sentence} Name the module that registers it with --import.") from error
        return in_process.dispatcher(name, of.registry)
    if name == CELERY and asked.app is not None:
        return _on_postgres(publisher(asked.app), asked, stack)
    try:
        return get_backend(name)
    except ConfigurationError as error:
        todo = " Or name the application with --app." if name == CELERY else ""
        raise ConfigurationError(f"{error.sentence}{todo}") from error


def _on_postgres(executor: Executor, asked: Asked, stack: ExitStack) -> SyncDispatcher:
    from psycopg_pool import ConnectionPool

    from spine_migrate.cli.runs_opened import found_runs
    from spine_migrate.db.connect import connect, conninfo
    from spine_migrate.execution.core import SyncDispatcher
    from spine_migrate.execution.ledgers.postgres import PostgresLedger

    # By itself, so that a wrong URL is told at once and in a sentence; the pool would only time out.
    with connect(asked.target) as connection:
        schema = found_runs(connection, asked.target_schema).name.schema
    # One looks how far the run is while another one publishes it.
    pool = stack.enter_context(ConnectionPool(conninfo(asked.target), min_size=1, max_size=2, timeout=10))
    if callable(close := getattr(executor, "close", None)):
        stack.callback(close)
    return SyncDispatcher(executor, PostgresLedger(pool, schema), publish=False)


def _todo(executor: Executor, spec: WorkSpec) -> str:
    """For people whose run no worker has taken."""
    from spine_migrate.execution.runs import RunRecord

    route: Callable[[RunRecord], tuple[str, int]] | None = getattr(executor, "route", None)
    if route is None:
        return ""
    queue, _ = route(RunRecord(spec))
    return f"Start a worker that listens to the queue {queue!r}, or give a longer --timeout."


def _old_body(place: str, asked: Asked) -> Backend:
    from spine_migrate.parity.outputs.in_process import OldBody

    found = named(place, "shop.tasks:ingest")
    # A Celery task is called as its workers do it, but for the request; that of a shim is the body it was given.
    body = found.run if callable(getattr(found, "run", None)) and hasattr(found, "apply_async") else found
    if not callable(body):
        raise ConfigurationError(f"{place} is of the type {type(found).__name__}, no function and no task.")
    option, text = (
        ("--params", asked.params) if asked.legacy_params is None else ("--legacy-params", asked.legacy_params)
    )
    arguments = json_object(option, text)
    try:
        inspect.signature(body).bind(**arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"The old body {place} cannot be called with {option} ({error}); give its own arguments by name"
            f" with --legacy-params."
        ) from error
    return OldBody(place, body, arguments, asked.timeout)


def names(backends: Sequence[str], legacy: str | None) -> tuple[str, ...]:
    """The baseline first, which is an old body unless it was given a place. Raises ConfigurationError."""
    chosen = tuple(name.strip().lower() for name in backends)
    if legacy is not None and LEGACY not in chosen:
        chosen = (LEGACY, *chosen)
    if LEGACY in chosen and legacy is None:
        raise ConfigurationError("The backend legacy needs the old body; name it with --legacy MODULE:NAME.")
    if len(set(chosen)) != len(chosen):
        raise ConfigurationError("A backend is named twice; --repeat executes each several times.")
    if len(chosen) < 2:  # noqa: PLR2004 it takes two to compare
        raise ConfigurationError("There is nothing to compare; name two backends, such as memory and local.")
    return chosen
