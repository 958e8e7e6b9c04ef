"""What a ledger can hold: text without NUL, and JSON that ``jsonb`` takes (PostgreSQL manual, 8.14).

Every ledger is given values that went through here, so that the one in memory holds what PostgreSQL would.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from spine_migrate.execution.errors import HandlerFailed

#: Characters that ``error_type`` of ``runs`` holds.
_ERROR_TYPE_LENGTH = 100
#: What json.dumps would make anew every time.
written = json.JSONEncoder(allow_nan=False).encode
_NUMBERS, _LISTS = frozenset({int, float}), frozenset({list, tuple})
#: Numbers below it are written without an exponent, and come back as they are.
_PLAIN = 1e15
#: Levels of a JSON value. Python's own reader gives up where the stack is deep already, so that what can be written
#: cannot always be read.
DEPTH = 100
_TOO_DEEP = f"is nested more than {DEPTH} levels deep"
#: Characters of an error's text that are kept; some carry the document that they could not read.
_ERROR_LENGTH = 10_000


def as_json(value: Any) -> Any:
    """The value as it comes back from a ledger: tuples are lists, keys are text.

    Raises ValueError, whose text completes a sentence that starts with the value's name.
    """
    try:
        return copied(value)
    except ValueError:
        return reread(value)


def copied(value: Any, levels: int = 20) -> Any:
    """As ``as_json``, several times as fast, for a value that needs not be written to know how it comes back: of JSON's
    own types, at most so many ``levels`` deep. Raises ValueError for any other, which may be in order all the same.
    """
    kind = type(value)
    if kind is str:
        if not value.isascii() or "\0" in value:
            check_text(value)
        return value
    if value is None or kind is bool or (kind in _NUMBERS and -_PLAIN < value < _PLAIN):
        return value
    if levels and kind is dict:
        made = {}
        for key, item in value.items():
            if type(key) is not str:
                raise ValueError("has a key that is no text")
            made[copied(key)] = copied(item, levels - 1)
        return made
    if levels and kind in _LISTS:
        return [copied(item, levels - 1) for item in value]
    raise ValueError("is to be written as JSON to know")


def reread(value: Any) -> Any:
    """As ``as_json``, of any value, by writing and reading it."""
    try:
        text = written(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
    try:
        stored = json.loads(text, parse_float=_number)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _is_too_deep(stored):
        raise ValueError(_TOO_DEEP)
    # What cannot be stored is escaped in ``text``, and so is text that only looks like it.
    if "\\u0000" in text or "\\ud" in text:
        for found in _texts(stored):
            check_text(found)
    return stored


def _is_too_deep(stored: object) -> bool:
    level: list[object] = [stored]
    for _ in range(DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


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
