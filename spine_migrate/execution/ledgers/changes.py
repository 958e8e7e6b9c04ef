"""The values of the ledger's named changes, as ``Session.one`` takes them."""

from __future__ import annotations

from typing import Any

from spine_migrate.execution.ledgers.refusals import storable_error
from spine_migrate.execution.ledgers.statements import json_column
from spine_migrate.execution.runs import SOURCES, RunStatus
from spine_migrate.execution.sessions import Row


def finishing(
    run_id: str,
    status: RunStatus,
    *,
    fence: int | None = None,
    attempt: int | None = None,
    result: Any = None,
    error: str | None = None,
    error_type: str | None = None,
) -> Row:
    failed = status is not RunStatus.COMPLETED
    error, error_type = (None, None) if error is None else storable_error(error, error_type)
    return {
        "run_id": run_id,
        "status": str(status),
        "sources": [str(source) for source in SOURCES[status]],
        "fence": fence,
        "attempt": attempt,
        "result": json_column(result),
        "error": error,
        "error_type": error_type,
        "data": json_column({"error": error, "error_type": error_type} if failed else {}),
    }


def trying_again(
    run_id: str,
    error: str,
    error_type: str | None,
    *,
    in_seconds: float,
    fence: int | None,
    publish_in_seconds: float = 0.0,
    message: dict[str, Any] | None = None,
) -> Row:
    """``error`` and ``error_type`` as ``storable_error`` gives them."""
    return {
        "run_id": run_id,
        "fence": fence,
        "error": error,
        "error_type": error_type,
        "in_seconds": in_seconds,
        "publish_in": publish_in_seconds,
        "message": json_column(message),
    }
