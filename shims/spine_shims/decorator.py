"""``@reroute``: an old task, as a shim, in the place of ``@app.task`` or ``@shared_task``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from celery import Celery, Task, _state
from celery.local import Proxy

from spine_migrate.errors import ConfigurationError
from spine_shims.route import Route
from spine_shims.task import RerouteTask

_OF_ROUTE = {option.name for option in fields(Route)} - {"name"}


def reroute(handler: str, /, *, app: Celery | None = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a function the old body of a task whose calls go to ``handler``.

        @reroute("batch_import", app=app, removal="2026-12-31", name="app.tasks.batch_import_documents", bind=True)
        def batch_import_documents(self, import_id, ...): ...

    ``options`` are those of ``Route``, and those of Celery's ``task``, such as ``name``, ``bind``, ``autoretry_for``. A
    ``priority`` that is text, such as ``high``, is the route's, a number Celery's. Without ``app`` the task is shared,
    as by ``@shared_task``. The base class is ``RerouteTask`` before ``base``, or before that of the app's own tasks.

    ``@app.task(base=RerouteTask, route=Route(...))`` says the same. Raises ConfigurationError.
    """
    of_route, options = split(options)
    route = Route(handler, **of_route)

    def decorate(function: Callable[..., Any]) -> Any:
        check_function(function, "@reroute")
        made = {**options, "route": route}
        return _shared(function, made) if app is None else app.task(**{**made, "base": base_of(app, made)})(function)

    return decorate


def split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of ``Route``, and those of Celery's ``task``."""
    mine = _OF_ROUTE - ({"priority"} if isinstance(options.get("priority"), int) else set())
    return (
        {name: value for name, value in options.items() if name in mine},
        {name: value for name, value in options.items() if name not in mine},
    )


def check_function(given: Any, decorator: str) -> None:
    """Raises ConfigurationError for what is a task already."""
    if issubclass(type(given), (Proxy, Task)):
        raise ConfigurationError(
            f"{decorator} takes the place of @app.task and @shared_task: give it the function alone, and their options."
        )


def base_of(app: Celery, options: dict[str, Any]) -> type[Task]:
    """The application's own base class does what it did, such as opening its context around the body."""
    given: type[Task] = options.get("base") or app.Task
    if issubclass(given, RerouteTask):
        return given
    return type("RerouteTask", (RerouteTask, given), {"abstract": True, "__module__": __name__})


def _shared(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """As ``shared_task``, which takes one base class for all apps."""

    def made(app: Celery) -> Task:
        return app._task_from_fun(function, **{**options, "base": base_of(app, options)})  # noqa: SLF001 - as it does

    _state.connect_on_app_finalize(made)
    for app in _state._get_active_apps():  # noqa: SLF001 - as above
        if app.finalized:
            with app._finalize_mutex:  # noqa: SLF001 - as above
                made(app)

    def of_current_app() -> Task:
        app = _state.get_current_app()
        return app.tasks[options.get("name") or app.gen_task_name(function.__name__, function.__module__)]

    return Proxy(of_current_app)
