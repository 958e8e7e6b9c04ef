"""Who calls, as the telemetry names it.

A call that is sent as before comes by twice: where it is made, and as a message where it is executed. The second look
stays, since a process can be killed before it has told what it has counted, and says of whom the first one was. A retry
is no call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spine_shims.caller import CallSite, call_site
from spine_shims.message import COUNTED_HEADER
from spine_shims.producing import beat_entry

if TYPE_CHECKING:
    from celery.app.task import Context

    from spine_shims.executing import Execution


def caller(by: Execution | None) -> CallSite | str | None:
    """``by`` is the execution that the call comes from."""
    entry = beat_entry()
    if entry is not None:
        return f"beat: {entry}"
    if by is not None and by.ended:
        return f"after {by.task.name}"
    return call_site()


def sender(request: Context) -> str:
    """The machine; of the process only its number is known, and there are many."""
    machine = (request.origin or "").rpartition("@")[2] or "unknown"
    counted = ", counted there" if getattr(request, COUNTED_HEADER, None) else ""
    return f"message from {machine}{counted}"


def counted(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """The headers of a message whose call is counted here."""
    return {**(headers or {}), COUNTED_HEADER: True}
