"""How a handler is called: with what it asks for, and to its end where it is a coroutine function."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from inspect import Parameter
from typing import Any
from weakref import WeakKeyDictionary

from spine_migrate.execution.context import TaskContext
from spine_migrate.execution.errors import HandlerFailed
from spine_migrate.execution.registry import Handler

#: What a parameter is called that is meant for the context, even if it has a default.
_CONTEXT = ("context", "ctx")
_PLACED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def call(handler: Handler, context: TaskContext) -> Any:
    """Run a handler in this thread, a coroutine function in a loop of its own."""
    by_place, by_name = _arguments(handler, context)
    result = handler(*by_place, **by_name)
    return _awaited(result) if inspect.isawaitable(result) else result


def _arguments(handler: Handler, context: TaskContext) -> tuple[list[Any], dict[str, Any]]:
    """The params, and the context for a handler whose second parameter has no default, or is named or annotated as a
    context. ``*args`` alone does not ask for it: most often that is a decorator around a handler of one parameter.
    """
    parameters = _parameters(handler)
    if parameters is None:
        return [context.params], {}
    second = [parameter for parameter in parameters if parameter.kind in _PLACED][1:2]
    if second and _is_meant(second[0]):
        return [context.params, context], {}
    named = [parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY]
    return [context.params], {name: context for name in named if name in _CONTEXT}


#: Reading a signature takes longer than many a handler.
_known: WeakKeyDictionary[Any, list[Parameter] | None] = WeakKeyDictionary()


def _parameters(handler: Handler) -> list[Parameter] | None:
    with suppress(KeyError, TypeError):  # no handler that can be kept apart is without a hash or a weak reference
        return _known[handler]
    try:
        found: list[Parameter] | None = list(inspect.signature(handler).parameters.values())
    except ValueError:  # a builtin that has no signature
        found = None
    with suppress(TypeError):
        _known[handler] = found
    return found


def _is_meant(parameter: Parameter) -> bool:
    annotation = parameter.annotation
    described = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return parameter.default is Parameter.empty or parameter.name in _CONTEXT or TaskContext.__name__ in described


def _awaited(result: Awaitable[Any]) -> Any:
    """In a thread of its own where this one has a running loop already, as a caller of ``SyncDispatcher`` may."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(result)
    with ThreadPoolExecutor(1, "spine-loop") as aside:
        return aside.submit(contextvars.copy_context().run, _run, result).result()


def _run(result: Awaitable[Any]) -> Any:
    try:
        return asyncio.run(_until_done(result))
    except asyncio.CancelledError as error:
        raise HandlerFailed("The handler cancelled the task that it runs in.", "CancelledError") from error


async def _until_done(result: Awaitable[Any]) -> Any:
    return await result
