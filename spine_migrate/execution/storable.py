"""What a ledger can hold: text without NUL, and JSON that ``jsonb`` takes (PostgreSQL manual, 8.14).

Every ledger is given values that went through here, so that the one in memory holds what PostgreSQL would.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from spine_migrate.execution.errors import HandlerFailed

#: Characters that ``error_type`` of ``runs`` holds.
_ERROR_TYPE_LENGTH = 100
#: What json.dumps would make anew every time.
_WRITER = json.JSONEncoder(allow_nan=False)
#: Characters of an error's text that are kept; some carry the document that they could not read.
_ERROR_LENGTH = 10_000


def as_json(value: Any) -> Any:
    """The value as it comes back from a ledger: tuples are lists, keys are text.

    Raises ValueError, whose text completes a sentence that starts with the value's name.
    """
    try:
        written = _WRITER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
    stored = json.loads(written, parse_float=_number)
    # What cannot be stored is escaped in ``written``, and so is text that only looks like it.
    if "\\u0000" in written or "\\ud" in written:
        for found in _texts(stored):
            check_text(found)
    return stored


def _number(text: str) -> int | float:
    """As jsonb writes it, which is without a fraction where there is none."""
    exponent = Decimal(text).as_tuple().exponent
    return int(Decimal(text)) if isinstance(exponent, int) and exponent >= 0 else float(text)


def check_text(value: str) -> None:
    """Raises ValueError, likewise, for text that PostgreSQL cannot store."""
    if "\0" in value:
        raise ValueError("has a NUL character, which PostgreSQL cannot store")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("has half of a surrogate pair, which is no character") from error


def is_text(value: str) -> bool:
    """Whether PostgreSQL can store it."""
    try:
        check_text(value)
    except ValueError:
        return False
    return True


def as_text(value: str) -> str:
    """The same text, with what PostgreSQL cannot store written as an escape."""
    return value.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def describe(error: BaseException) -> tuple[str, str]:
    """Text and type of an error as ``runs`` holds them."""
    kind = error.error_type if isinstance(error, HandlerFailed) else type(error).__qualname__
    try:
        text = str(error) or kind
    except Exception as broken:  # noqa: BLE001 a handler's own class may not even have a text
        text = f"{kind}, whose text cannot be had ({type(broken).__name__})"
    return as_text(text[:_ERROR_LENGTH]), as_text(kind[:_ERROR_TYPE_LENGTH])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
