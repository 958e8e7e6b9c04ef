"""What the runtime raises, each with the category and whether trying again can help (seeds 000 and 002).

``category`` groups errors for alerts; ``retryable`` is what the retry rule of a run looks at when a handler raises one.
"""

from __future__ import annotations

from typing import ClassVar

from spine_migrate.errors import SpineMigrateError


class OrchestrationError(SpineMigrateError):
    """Base of the runtime's errors."""

    category: ClassVar[str] = "ORCHESTRATION"
    retryable: ClassVar[bool] = False


class InvalidSpecError(OrchestrationError):
    """A work spec cannot become a run: a field is of no use to the ledger; ``field`` names it."""

    category = "VALIDATION"

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class ConcurrencyError(OrchestrationError):
    """Another run of the same entity is active, or a lock is held; ``run_id`` is the other's, where it is known."""

    category = "CONCURRENCY"
    retryable = True

    def __init__(self, sentence: str, *, run_id: str | None = None) -> None:
        super().__init__(sentence)
        self.run_id = run_id


class TransitionError(OrchestrationError):
    """A run cannot go from the status it has to the one asked for; it was left as it is, and the attempt recorded."""

    category = "STATE"

    def __init__(self, run_id: str, status: str, wanted: str, why: str) -> None:
        super().__init__(f"Run {run_id} is {status} and cannot become {wanted}: {why}.")
        self.run_id = run_id
        self.status = status
        self.wanted = wanted


class BackendError(OrchestrationError):
    """The executor or its broker failed."""

    category = "BACKEND"
    retryable = True


class PipelineNotFoundError(OrchestrationError):
    """No handler is registered under a kind and name."""

    category = "NOT_FOUND"

    def __init__(self, kind: str, name: str, known: list[str]) -> None:
        there = f"registered are {', '.join(known)}" if known else "none is registered"
        super().__init__(f"There is no {kind} named {name!r}; {there}.")
        self.kind = kind
        self.name = name


class ExecutionNotFoundError(OrchestrationError):
    """No run has this id."""

    category = "NOT_FOUND"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"There is no run {run_id}.")
        self.run_id = run_id


class BackpressureError(OrchestrationError):
    """A lane has as many waiting runs as it may have; nothing was stored."""

    category = "BACKPRESSURE"
    retryable = True

    def __init__(self, lane: str, waiting: int, bound: int, more: int = 1) -> None:
        """``more`` is how many were submitted."""
        wanted = "" if more == 1 else f" and {more} more are submitted"
        super().__init__(
            f"The lane {lane!r} has {waiting} runs waiting{wanted}, its bound is {bound}; submit again later."
        )
        self.lane = lane
        self.waiting = waiting
        self.bound = bound


class RunTimeout(OrchestrationError):
    """A handler took longer than its run allows."""

    category = "TIMEOUT"
    retryable = True


class ResultNotStorable(OrchestrationError):
    """A handler gave something that is not JSON."""

    category = "VALIDATION"


class LeaseLost(OrchestrationError):
    """A handler stopped because nobody could tell any more whether its run was still its own."""

    category = "BACKEND"
    retryable = True


class LockLost(ConcurrencyError):
    """A handler worked on its entity for longer than it had the lock on it."""


class RunCancelled(Exception):
    """Raised by a handler that stops because ``context.cancelled`` is set."""


class HandlerFailed(Exception):
    """A handler ended badly where its exception could not be brought from; ``error_type`` is the exception's name."""

    def __init__(self, text: str, error_type: str, *, retryable: bool = True) -> None:
        super().__init__(text)
        self.error_type = error_type
        self.retryable = retryable
