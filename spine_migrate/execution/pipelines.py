"""What is known of a pipeline beside its handler (seed 003), kept in the metadata of a ``HandlerRegistry``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from spine_migrate.execution.errors import InvalidSpecError, PipelineNotFoundError
from spine_migrate.execution.registry import HandlerRegistry, get_default_registry
from spine_migrate.execution.spec import WorkSpec, pipeline_spec

Registered = TypeVar("Registered", bound=Callable[..., Any])

_KIND = "pipeline"


@dataclass(frozen=True)
class PipelineSpec:
    """``schedule`` is a cron expression, for whatever starts pipelines by the clock; nothing here does. ``timeout`` is
    in seconds and becomes the run's when one is dispatched. ``stages`` are names, in their order.
    """

    name: str
    description: str = ""
    schedule: str | None = None
    timeout: float | None = None
    stages: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout < float("inf"):
            raise InvalidSpecError("timeout", f"The timeout of a pipeline is seconds above 0, not {self.timeout!r}.")

    def register(
        self, handler: Registered, registry: HandlerRegistry | None = None, *, replace: bool = False
    ) -> Registered:
        """Also as a decorator: ``@PipelineSpec("ingest_otc", timeout=3600).register``. Raises ValueError where another
        handler has the name.
        """
        (registry or get_default_registry()).register(
            _KIND,
            self.name,
            handler,
            replace=replace,
            description=self.description,
            schedule=self.schedule,
            timeout=self.timeout,
            stages=tuple(self.stages),
        )
        return handler

    def work(self, params: dict[str, Any] | None = None, **fields: Any) -> WorkSpec:
        """A request to run it; fields as of ``WorkSpec``."""
        return pipeline_spec(self.name, params, **fields)


class Pipelines(Mapping[str, PipelineSpec]):
    """The pipelines of a registry by name, as they are now; without one those of the default registry."""

    def __init__(self, registry: HandlerRegistry | None = None) -> None:
        self._own = registry

    def __getitem__(self, name: str) -> PipelineSpec:
        try:
            known = self._registry.get_metadata(_KIND, name)
        except PipelineNotFoundError:
            raise KeyError(name) from None
        return PipelineSpec(
            name,
            description=known.get("description") or "",
            schedule=known.get("schedule"),
            timeout=known.get("timeout"),
            stages=tuple(known.get("stages") or ()),
        )

    def __iter__(self) -> Iterator[str]:
        return (name for _, name in self._registry.list_handlers(_KIND))

    def __len__(self) -> int:
        return len(self._registry.list_handlers(_KIND))

    @property
    def _registry(self) -> HandlerRegistry:
        return get_default_registry() if self._own is None else self._own


PIPELINES = Pipelines()
