"""Handlers by kind and name: what a run's name means in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from spine_migrate.execution.errors import PipelineNotFoundError

Handler = Callable[..., Any]
Registered = TypeVar("Registered", bound=Handler)


@dataclass(frozen=True)
class Entry:
    handler: Handler
    metadata: dict[str, Any] = field(default_factory=dict)


class HandlerRegistry:
    """Thread-safe. A handler takes the run's params, and its context where it has a second parameter; it may be a
    coroutine function.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}
        self._lock = threading.Lock()

    def register(self, kind: str, name: str, handler: Handler, *, replace: bool = False, **metadata: Any) -> None:
        """Raises ValueError where the name is taken by another handler and ``replace`` is not set."""
        with self._lock:
            found = self._entries.get((kind, name))
            if found is not None and found.handler is not handler and not replace:
                raise ValueError(f"The {kind} {name!r} is registered already; give replace=True to replace it.")
            self._entries[kind, name] = Entry(handler, metadata)

    def get(self, kind: str, name: str) -> Handler:
        """Raises PipelineNotFoundError."""
        return self._entry(kind, name).handler

    def has(self, kind: str, name: str) -> bool:
        return (kind, name) in self._entries

    def get_metadata(self, kind: str, name: str) -> dict[str, Any]:
        """Raises PipelineNotFoundError."""
        return dict(self._entry(kind, name).metadata)

    def list_handlers(self, kind: str | None = None) -> list[tuple[str, str]]:
        """(kind, name), sorted."""
        with self._lock:
            return sorted(key for key in self._entries if kind in (None, key[0]))

    def list_with_metadata(self, kind: str | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """(kind, name, metadata), sorted."""
        with self._lock:
            found = [(*key, dict(entry.metadata)) for key, entry in self._entries.items() if kind in (None, key[0])]
        return sorted(found, key=lambda listed: listed[:2])

    def unregister(self, kind: str, name: str) -> bool:
        """Whether it was registered."""
        with self._lock:
            return self._entries.pop((kind, name), None) is not None

    def _entry(self, kind: str, name: str) -> Entry:
        with self._lock:
            found = self._entries.get((kind, name))
            if found is None:
                known = sorted(other for of_kind, other in self._entries if of_kind == kind)
                raise PipelineNotFoundError(kind, name, known)
        return found


_default = HandlerRegistry()


def get_default_registry() -> HandlerRegistry:
    return _default


def reset_default_registry() -> None:
    """Forget every handler of the default registry; for tests."""
    global _default  # noqa: PLW0603
    _default = HandlerRegistry()


def register_task(name: str, **metadata: Any) -> Callable[[Registered], Registered]:
    """Decorator: register a function in the default registry."""
    return _register("task", name, metadata)


def register_pipeline(name: str, **metadata: Any) -> Callable[[Registered], Registered]:
    """Decorator: register a function in the default registry."""
    return _register("pipeline", name, metadata)


def register_workflow(name: str, **metadata: Any) -> Callable[[Registered], Registered]:
    """Decorator: register a function in the default registry."""
    return _register("workflow", name, metadata)


def register_step(name: str, **metadata: Any) -> Callable[[Registered], Registered]:
    """Decorator: register a function in the default registry."""
    return _register("step", name, metadata)


def _register(kind: str, name: str, metadata: dict[str, Any]) -> Callable[[Registered], Registered]:
    def decorate(handler: Registered) -> Registered:
        get_default_registry().register(kind, name, handler, **metadata)
        return handler

    return decorate
