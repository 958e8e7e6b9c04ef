"""Shims that ship: old tasks of known applications. Their names, handlers and documented parameters are known here; the
old bodies are the application's, which hands each of them over where it stands:

    from spine_shims.capture_spine.backup import run_backup_for_user

    @run_backup_for_user.legacy_body(app=celery_app, bind=True)   # in the place of @celery_app.task(bind=True)
    def run_backup_for_user(self, user_id, backup_type="full"): ...

Then the signature and the options are the body's. Without it, the documented parameters can be given by place or by
name and all others by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from celery import Celery, Task, _state
from celery.local import Proxy

from spine_migrate.errors import ConfigurationError
from spine_migrate.execution.errors import InvalidSpecError
from spine_shims.decorator import base_of, check_function, split
from spine_shims.route import Route
from spine_shims.task import RerouteTask

_PLACED = inspect.Parameter.POSITIONAL_OR_KEYWORD


@dataclass(eq=False)
class Definition:
    """``parameters`` are those that are documented, ``open_ended`` where others are left to the application.
    ``constants`` are params beside the arguments. ``body``, ``options`` and ``app`` are the application's, once given.
    """

    name: str
    handler: str
    parameters: tuple[str, ...]
    open_ended: bool
    constants: Mapping[str, Any]
    replacement: str
    body: Callable[..., Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    app: Celery | None = None

    def make(self, app: Celery) -> Task:
        """The task of an app, made anew. Raises ConfigurationError where the app has another one of this name."""
        found = app._tasks.get(self.name)  # noqa: SLF001 - app.tasks would finalize the app, which may be at that
        if found is not None:
            if not isinstance(found, RerouteTask):
                raise ConfigurationError(
                    f"The app {app.main or 'without a name'} has a task {self.name} of its own: put {self._decorator}"
                    " in the place of its @app.task."
                )
            del app._tasks[self.name]  # noqa: SLF001 - as above
        of_route, options = split(self.options)
        route = Route(self.handler, **{"params": self.params, "replacement": self.replacement, **of_route})
        made = {**options, "name": self.name, "route": route}
        function = self.body or self._missing()
        return app._task_from_fun(function, **{**made, "base": base_of(app, made)})  # noqa: SLF001 - as shared_task

    def params(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raises InvalidSpecError for an argument of which nobody here knows the name."""
        signature = self._of_body() if self.body is not None else self._documented(unnamed=False)
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            if self.body is not None or len(args) <= len(self.parameters):
                raise
            raise InvalidSpecError(
                "args",
                f"The task {self.name} was called with {len(args)} arguments by place, and only"
                f" {len(self.parameters)} are documented: give the others by name, or import the module with"
                f" {self._decorator}, whose signature counts then.",
            ) from None
        return {**self.constants, **Route(self.handler).params_of(signature, args, kwargs)}

    def _of_body(self) -> inspect.Signature:
        signature = inspect.signature(self.body or self._missing())
        parameters = list(signature.parameters.values())
        return signature.replace(parameters=parameters[1:] if self.options.get("bind") else parameters)

    def _documented(self, *, unnamed: bool) -> inspect.Signature:
        """``unnamed`` lets pass, in Celery's check of a call, what only the worker's body can judge."""
        parameters = [inspect.Parameter(name, _PLACED) for name in self.parameters]
        if self.open_ended:
            if unnamed:
                parameters.append(inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL))
            parameters.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
        return inspect.Signature(parameters)

    def _missing(self) -> Callable[..., Any]:
        """What stands in for the body until there is one."""

        def missing(*_: Any, **__: Any) -> None:
            raise ConfigurationError(
                f"The task {self.name} has no legacy body in this process, and is to be executed by it: its mode is"
                f" legacy, or no handler is registered as the pipeline {self.handler!r}. Put {self._decorator} on the"
                " old function, in a module that the workers import."
            )

        missing.__name__ = missing.__qualname__ = self.name.rpartition(".")[2]
        missing.__signature__ = self._documented(unnamed=True)  # type: ignore[attr-defined]  # Celery looks at it
        return missing

    @property
    def _decorator(self) -> str:
        return f"@{self.name.rpartition('.')[2]}.legacy_body"


class ShippedTask(Proxy):  # type: ignore[misc]  # Celery has no types
    """The task, of the body's app or else of the current one; and the place to hand the old body over."""

    def __init__(self, definition: Definition) -> None:
        super().__init__(self._task)
        object.__setattr__(self, "_definition", definition)
        _state.connect_on_app_finalize(definition.make)
        self._remake()

    def legacy_body(
        self, function: Callable[..., Any] | None = None, /, *, app: Celery | None = None, **options: Any
    ) -> Any:
        """Decorator: the old body, with the options that ``@reroute`` takes. Gives the shim, which may have the name of
        the function. Without ``app`` it goes on being that of whatever app is current, as ``@shared_task`` has it.

        Raises ConfigurationError.
        """
        if function is None:
            return lambda given: self.legacy_body(given, app=app, **options)
        definition: Definition = self._definition
        check_function(function, definition._decorator)  # noqa: SLF001 - of this module
        self._forget()
        definition.name = options.pop("name", definition.name)
        definition.body, definition.options, definition.app = function, options, app
        self._remake()
        return self

    def registered_as(self, name: str) -> None:
        """Another name than the documented one, in a process that has no body; else ``legacy_body(name=)`` says it."""
        self._forget()
        self._definition.name = name
        self._remake()

    def _task(self) -> Task:
        return (self._definition.app or _state.get_current_app()).tasks[self._definition.name]

    def _forget(self) -> None:
        for app in _finalized():
            app._tasks.pop(self._definition.name, None)  # noqa: SLF001 - as in make

    def _remake(self) -> None:
        for app in _finalized():
            with app._finalize_mutex:  # noqa: SLF001 - as shared_task
                self._definition.make(app)


def _finalized() -> list[Celery]:
    return [app for app in _state._get_active_apps() if app.finalized]  # noqa: SLF001 - as shared_task


def shipped(
    name: str,
    handler: str,
    *parameters: str,
    open_ended: bool = True,
    constants: Mapping[str, Any] = MappingProxyType({}),
    replacement: str | None = None,
) -> ShippedTask:
    """A shim under the old registered ``name``, whose calls go to the pipeline ``handler``."""
    instead = replacement or f'dispatcher.submit("{handler}", {{...}})'
    return ShippedTask(Definition(name, handler, parameters, open_ended, constants, instead))
