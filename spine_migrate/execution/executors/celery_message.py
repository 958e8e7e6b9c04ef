"""The message of a Celery task as a run keeps it, to be published later, and again, as what it was when it was sent.

It is text inside of JSON: ``jsonb`` sorts keys and writes 1e300 as an integer, and a task is to be given what its
caller gave. The text is Celery's own JSON, which has dates, times, decimals, uuids and bytes beside the usual types.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

#: The header that tells a worker which run a message belongs to.
RUN_HEADER = "spine_run"
#: And the one that tells it for which attempt: the next one may have other arguments.
ATTEMPT_HEADER = "spine_attempt"

#: Options of ``apply_async`` that are part of the message, and what ``create_task_message`` calls them. No countdown
#: and no eta: a run waits in its ledger until it is due.
INSIDE = {
    "chain": "chain",
    "chord": "chord",
    "expires": "expires",
    "group_id": "group_id",
    "group_index": "group_index",
    "ignore_result": "ignore_result",
    "link": "callbacks",
    "link_error": "errbacks",
    "origin": "origin",
    "parent_id": "parent_id",
    "replaced_task_nesting": "replaced_task_nesting",
    "reply_to": "reply_to",
    "retries": "retries",
    "root_id": "root_id",
    "shadow": "shadow",
    "soft_time_limit": "soft_time_limit",
    "stamped_headers": "stamped_headers",
    "time_limit": "time_limit",
    "argsrepr": "argsrepr",
    "kwargsrepr": "kwargsrepr",
}

#: Those that say how it is sent.
OUTSIDE = frozenset({
    "compression", "delivery_mode", "exchange", "exchange_type", "headers", "immediate", "mandatory", "priority",
    "queue", "routing_key", "serializer",
})  # fmt: skip


@dataclass(frozen=True)
class TaskMessage:
    """``options`` are ``apply_async``'s, with texts for queue, exchange and times; links, chain and chord as Celery
    writes signatures into messages.
    """

    task: str
    task_id: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def to_stored(self) -> dict[str, Any]:
        """As ``Delivery.message`` takes it. Raises TypeError or ValueError for what is not JSON."""
        from kombu.utils.json import dumps

        content = dumps([list(self.args), self.kwargs, self.options], allow_nan=False)  # type: ignore[no-untyped-call]  # kombu has no types
        return {"task": self.task, "task_id": self.task_id, "content": content}

    @classmethod
    def of_stored(cls, stored: dict[str, Any]) -> Self:
        from kombu.utils.json import loads

        args, kwargs, options = loads(stored["content"])  # type: ignore[no-untyped-call]  # as above
        return cls(stored["task"], stored["task_id"], tuple(args), kwargs, options)

    def parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The options for ``create_task_message``, and those for ``send_task_message``. Stamps are told by name in
        ``stamped_headers``.
        """
        stamps = {name: self.options[name] for name in self.options.get("stamped_headers") or ()}
        inside = {INSIDE[name]: value for name, value in self.options.items() if name in INSIDE}
        return {**inside, **stamps}, {name: value for name, value in self.options.items() if name in OUTSIDE}
