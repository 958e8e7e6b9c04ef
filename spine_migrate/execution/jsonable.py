"""Arguments and results of tasks as params and results of runs."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from spine_migrate.execution.storable import copied, reread


def plain(value: Any) -> Any:
    """Plain JSON; what Celery's own JSON has beyond it, dates, times, decimals and uuids, is text.

    Raises ValueError, whose text completes a sentence that starts with the value's name, and has nothing of the value.
    """
    try:
        return copied(value)
    except ValueError:
        return _reread(value)


def _reread(value: Any) -> Any:
    try:
        read = json.loads(json.dumps(value, default=_text, allow_nan=False))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from None
    except ValueError:
        raise ValueError(
            "cannot be written as JSON: it has a number that is infinite or none, or refers to itself"
        ) from None
    return reread(read)


def plain_or_none(value: Any) -> Any:
    """None for what cannot be stored; its caller has it, by way of Celery, whose serializer may be another one."""
    try:
        return plain(value)
    except ValueError:
        return None


def _text(value: Any) -> str:
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    raise TypeError(f"there is no JSON for a {type(value).__qualname__}")
