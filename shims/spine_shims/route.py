"""How the calls of an old task become runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from spine_migrate.errors import ConfigurationError
from spine_migrate.execution.errors import InvalidSpecError
from spine_migrate.execution.jsonable import plain
from spine_migrate.execution.spec import KINDS, PRIORITIES, WorkSpec
from spine_shims.modes import Mode
from spine_shims.warning import removal_date

#: From which broker priority on a run has which one, where 9 is the most urgent.
_URGENCY = ((9, "realtime"), (7, "high"), (4, "normal"), (2, "low"), (0, "slow"))
_FLAT = inspect.Parameter.VAR_KEYWORD


@dataclass(frozen=True)
class Route:
    """``name`` and ``kind`` are the handler's. Functions are called with the arguments of the task, without ``self``.

    ``params`` gives the run's params; without it they are the arguments by their names, defaults included. ``lane`` is
    one name, or lanes by queue; without it a run's lane is its queue. ``priority`` is for calls that give none.
    ``idempotency_key`` gives a text, or None, ``metadata`` further metadata, such as the entity.

    ``replacement`` is what the warning names, ``removal`` the last day on which the task works. ``mode`` counts where
    no source says anything of the task. ``lost_worker_retries`` is how often a run is executed again whose worker was
    lost: without it 3 times where the task acknowledges late, and so has to stand it already, else not at all.

    ``pure`` says that the handler changes nothing, ``dry_run`` gives params with which it does not: only such a handler
    may run in the mode ``shadow``. Raises ConfigurationError.
    """

    name: str
    kind: str = "pipeline"
    params: Callable[..., dict[str, Any]] | None = None
    lane: str | Mapping[str, str] | None = None
    priority: str = "normal"
    idempotency_key: Callable[..., str | None] | None = None
    metadata: Callable[..., dict[str, Any]] | None = None
    replacement: str | None = None
    removal: str | date | None = None
    mode: Mode | str | None = None
    lost_worker_retries: int | None = None
    pure: bool = False
    dry_run: Callable[[dict[str, Any]], dict[str, Any]] | None = field(default=None)

    def __post_init__(self) -> None:
        for what, value, known in (("kind", self.kind, KINDS), ("priority", self.priority, PRIORITIES)):
            if value not in known:
                raise ConfigurationError(f"The {what} of a route is one of {', '.join(known)}, not {value!r}.")
        if isinstance(self.mode, str):
            object.__setattr__(self, "mode", Mode.parse(self.mode))
        object.__setattr__(self, "removal", removal_date(self.removal))
        if isinstance(self.mode, Mode) and str(self.mode) == "shadow" and not self.comparable:
            raise ConfigurationError(
                f"The mode shadow calls the handler {self.name!r} beside the old body; say pure=True, or give dry_run."
            )

    @property
    def comparable(self) -> bool:
        """Whether the handler may run beside the old body."""
        return self.pure or self.dry_run is not None

    @property
    def default_mode(self) -> Mode | None:
        return self.mode if isinstance(self.mode, Mode) else None

    @property
    def removal_day(self) -> date | None:
        return self.removal if isinstance(self.removal, date) else None

    @property
    def call_instead(self) -> str:
        """What the warning says."""
        return self.replacement or f'dispatcher.submit_{self.kind}("{self.name}", ...)'

    def spec(
        self,
        signature: inspect.Signature,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        queue: str | None,
        urgency: int | None,
        **fields: Any,
    ) -> WorkSpec:
        """``urgency`` is the broker's priority, 9 first; ``fields`` go into the spec as they are.

        Raises TypeError where the arguments do not fit the signature, and InvalidSpecError, with the name of an
        argument, for what is not JSON.
        """
        metadata = {} if self.metadata is None else self.metadata(*args, **kwargs)
        return WorkSpec(
            self.kind,
            self.name,
            self.params_of(signature, args, kwargs),
            idempotency_key=None if self.idempotency_key is None else self.idempotency_key(*args, **kwargs),
            lane=self._lane(queue),
            priority=self.priority if urgency is None else _priority(urgency),
            metadata={**metadata, **fields.pop("metadata", {})},
            **fields,
        )

    def params_of(
        self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Raises as ``spec``."""
        if self.params is not None:
            return {name: _plain(name, value) for name, value in self.params(*args, **kwargs).items()}
        bound = signature.bind(*args, **kwargs)
        given = set(bound.arguments)
        bound.apply_defaults()
        found: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind is _FLAT:
                found |= {inner: _plain(inner, of_inner) for inner, of_inner in value.items()}
            elif name in given:
                found[name] = _plain(name, value)
            else:
                _add_default(found, name, value)
        return found

    def _lane(self, queue: str | None) -> str:
        if isinstance(self.lane, str):
            return self.lane
        if self.lane is not None and queue is not None and queue in self.lane:
            return self.lane[queue]
        return (queue or "default")[:50]


def _add_default(params: dict[str, Any], name: str, value: Any) -> None:
    """A default that is not JSON is a sentinel, which the handler would not know."""
    try:
        params[name] = plain(value)
    except ValueError:
        return


def _plain(name: str, value: Any) -> Any:
    try:
        return plain(value)
    except ValueError as error:
        raise InvalidSpecError(name, f"The argument {name} {error}.") from error


def _priority(urgency: int) -> str:
    return next((name for least, name in _URGENCY if urgency >= least), "slow")
