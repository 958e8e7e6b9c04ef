"""An application with the runs router, and what stands behind it, for the tests of the HTTP API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin
from uuid import uuid4

from fastapi import FastAPI
from fastapi.testclient import TestClient

from spine_migrate.execution import BackendError, Dispatcher, HandlerRegistry, RunRecord, RunStatus, SyncDispatcher
from spine_migrate.execution.fastapi import create_runs_router
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.worker import Worker

#: Where the application has put the router.
PREFIX = "/api/v1"


class Postbox:
    """An executor that keeps what it is given; ``down`` makes it fail."""

    name = "postbox"

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.down = False

    def submit(self, run: RunRecord) -> str:
        if self.down:
            raise BackendError("amqp://worker:s3cret@broker.internal:5672 refuses connections.")
        self.sent.append(run.run_id)
        return f"message-{run.run_id}"

    def cancel(self, external_ref: str) -> bool:
        if self.down:
            raise BackendError("amqp://worker:s3cret@broker.internal:5672 refuses connections.")
        return external_ref.removeprefix("message-") in self.sent

    def get_status(self, external_ref: str) -> RunStatus | None:
        return RunStatus.QUEUED if external_ref.removeprefix("message-") in self.sent else None


@dataclass(frozen=True)
class Api:
    """``lane`` is this test's own: a database has the runs of others, too."""

    app: FastAPI
    client: TestClient
    core: SyncDispatcher
    postbox: Postbox
    registry: HandlerRegistry
    lane: str

    def call(self, method: str, path: str, status: int, **options: Any) -> Any:
        """The body of an answer that has ``status``, which the OpenAPI document must tell of; ``path`` is relative to
        the router.
        """
        answer = self.client.request(method, f"{PREFIX}{path}", **options)
        assert answer.status_code == status, answer.text
        assert str(status) in self.told(method, answer.url.path), f"{method} {path} may not answer {status}."
        return answer.json()

    def told(self, method: str, path: str) -> set[str]:
        """The statuses that are documented for an operation."""
        (operation,) = [
            item[method.lower()]
            for template, item in self.app.openapi()["paths"].items()
            if re.fullmatch(re.sub(r"{\w+}", "(?:[0-9a-f-]{36}|42)", template), path) and method.lower() in item
        ]
        return set(operation["responses"])

    def submit(self, path: str = "/runs/tasks", status: int = 201, **fields: Any) -> Any:
        return self.call("POST", path, status, json={"name": "work", "lane": self.lane, **fields})

    def located(self, answer: Any) -> str:
        """The path that a ``Location`` leads to, as a browser finds it."""
        return str(urljoin(str(answer.url), answer.headers["Location"])).partition(PREFIX)[2]

    def for_another_test(self) -> Api:
        """The same application: to make one takes longer than most tests."""
        self.postbox.sent.clear()
        self.postbox.down = False
        return replace(self, registry=HandlerRegistry(), lane=_lane())

    def work(self, run_id: str) -> RunRecord | None:
        """Execute a run as a worker does."""
        return Worker(self.core.ledger, self.registry).execute(run_id)


@contextmanager
def serving(ledger: Ledger | None = None, *, awaitable: bool = True, **options: Any) -> Iterator[Api]:
    """``awaitable``: the router has the dispatcher whose methods are coroutines."""
    postbox, registry = Postbox(), HandlerRegistry()
    dispatcher = Dispatcher(postbox, ledger, registry, **options)
    app = FastAPI()
    app.include_router(create_runs_router(dispatcher if awaitable else dispatcher.sync), prefix=PREFIX)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Api(app, client, dispatcher.sync, postbox, registry, _lane())


def _lane() -> str:
    return f"lane-{uuid4().hex[:8]}"
