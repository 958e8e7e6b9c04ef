"""What every transform is: one class with its SQL form, its Python form, its inverse and its line of documentation.

A transform maps a value to a value. NULL stays NULL on the way there and back, so the forms below never see it; the one
exception, ``Default``, says so. The two semantics are held together by property tests on a real server.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from psycopg import sql

Sql = sql.Composable


@dataclass(frozen=True)
class Refusal:
    """Why a value cannot pass, as SQL: ``condition`` is true for such a value, ``detail`` a text for people."""

    reason: str
    condition: Sql
    detail: Sql


class Transform(ABC):
    """One step of a field's pipeline.

    ``given`` and ``gives`` are the logical types (see ``mapping.types``) of what goes in and what comes out.
    ``lossless`` means that ``inverse(forward(x)) == x`` for every accepted x; where it is False the field needs
    ``keep`` or ``lossy``. ``invertible`` is False where nothing sensible comes back at all. ``strict``: NULL stays
    NULL; ``total``: a value never becomes NULL.
    """

    given: str
    gives: str
    lossless: bool = True
    invertible: bool = True
    strict: ClassVar[bool] = True
    total: ClassVar[bool] = True

    @abstractmethod
    def sql(self, value: Sql) -> Sql: ...

    @abstractmethod
    def python(self, value: Any) -> Any: ...

    @abstractmethod
    def inverse_sql(self, value: Sql) -> Sql:
        """NULL for a value that nothing leads to. It never fails, since it is asked of rows that others wrote, too."""

    @abstractmethod
    def inverse_python(self, value: Any) -> Any: ...

    @abstractmethod
    def doc(self) -> str:
        """A phrase for the field table, for example ``plus 1``."""

    def refusals(self, value: Sql) -> list[Refusal]:  # noqa: ARG002 - most transforms take any value
        """SQL conditions under which ``value`` (not NULL) cannot be transformed; NULL counts as false."""
        return []

    def refuse(self, value: Any) -> str | None:  # noqa: ARG002 - as above
        """Python form of ``refusals``: the reason code, or None."""
        return None

    def loses(self, value: Sql) -> Sql | None:  # noqa: ARG002 - only where there is one
        """A cheaper condition that is true where ``inverse(forward(value))`` is not ``value``, NULL included."""
        return None


def apply(steps: tuple[Transform, ...], value: Any) -> Any:
    """The Python form of a whole pipeline. Shape: one source value in, one target value out."""
    for step in steps:
        if value is not None or not step.strict:
            value = step.python(value)
    return value


def unapply(steps: tuple[Transform, ...], value: Any) -> Any:
    """The Python form of a pipeline's inverse; None where a step cannot be inverted."""
    for step in reversed(steps):
        if not step.invertible:
            return None
        if value is not None:
            value = step.inverse_python(value)
    return value


def refused(steps: tuple[Transform, ...], value: Any) -> str | None:
    """The reason code of the first step that does not take the value, or None."""
    for step in steps:
        if value is not None and (reason := step.refuse(value)) is not None:
            return reason
        if value is not None or not step.strict:
            value = step.python(value)
    return None
