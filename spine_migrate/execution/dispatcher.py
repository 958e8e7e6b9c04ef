"""The dispatcher as applications use it, with awaitable methods (spine-core 0.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from spine_migrate.execution.core import SyncDispatcher
from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.executors.protocol import Executor
from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.ledgers.protocol import AT_ONCE, Delivery, Ledger
from spine_migrate.execution.registry import HandlerRegistry
from spine_migrate.execution.runs import RunRecord, RunStatus, RunSummary
from spine_migrate.execution.spec import WorkSpec


class Dispatcher:
    """Each method runs the one of the same name of ``sync`` in a thread, so that a loop is never blocked. Code without
    a loop, a Celery task for example, calls ``dispatcher.sync.submit(...)``.

    It keeps nothing that a fork would break: threads are the loop's own.
    """

    def __init__(
        self,
        executor: Executor,
        ledger: Ledger | None = None,
        registry: HandlerRegistry | None = None,
        concurrency: ConcurrencyGuard | None = None,
        **options: Any,
    ) -> None:
        """``options`` as in ``SyncDispatcher``."""
        self.sync = SyncDispatcher(executor, ledger, registry, concurrency, **options)

    async def submit(self, spec: WorkSpec | str, params: dict[str, Any] | None = None, **options: Any) -> str:
        return await asyncio.to_thread(self.sync.submit, spec, params, **options)

    async def submit_many(self, specs: Iterable[WorkSpec], **options: Any) -> list[str]:
        return await asyncio.to_thread(self.sync.submit_many, specs, **options)

    async def submit_run(self, run: RunRecord, delivery: Delivery = AT_ONCE) -> RunRecord:
        return await asyncio.to_thread(self.sync.submit_run, run, delivery)

    async def submit_task(self, name: str, params: dict[str, Any] | None = None, **fields: Any) -> str:
        return await asyncio.to_thread(self.sync.submit_task, name, params, **fields)

    async def submit_pipeline(self, name: str, params: dict[str, Any] | None = None, **fields: Any) -> str:
        return await asyncio.to_thread(self.sync.submit_pipeline, name, params, **fields)

    async def submit_workflow(self, name: str, params: dict[str, Any] | None = None, **fields: Any) -> str:
        return await asyncio.to_thread(self.sync.submit_workflow, name, params, **fields)

    async def submit_step(self, name: str, params: dict[str, Any] | None = None, **fields: Any) -> str:
        return await asyncio.to_thread(self.sync.submit_step, name, params, **fields)

    async def get_run(self, run_id: str) -> RunRecord | None:
        return await asyncio.to_thread(self.sync.get_run, run_id)

    async def get_runs(self, run_ids: Sequence[str]) -> list[RunRecord]:
        return await asyncio.to_thread(self.sync.get_runs, run_ids)

    async def list_runs(  # noqa: PLR0917 as in spine-core
        self,
        kind: str | None = None,
        status: RunStatus | str | None = None,
        name: str | None = None,
        parent_run_id: str | None = None,
        limit: int = 100,
        offset: int = 0,
        *,
        lane: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[RunSummary]:
        return await asyncio.to_thread(
            self.sync.list_runs,
            kind,
            status,
            name,
            parent_run_id,
            limit,
            offset,
            lane=lane,
            tag=tag,
            since=since,
            until=until,
        )

    async def get_events(self, run_id: str) -> list[RunEvent]:
        return await asyncio.to_thread(self.sync.get_events, run_id)

    async def get_children(self, run_id: str, limit: int = 100, offset: int = 0) -> list[RunSummary]:
        return await asyncio.to_thread(self.sync.get_children, run_id, limit, offset)

    async def cancel(self, run_id: str, reason: str = "asked for") -> bool:
        return await asyncio.to_thread(self.sync.cancel, run_id, reason)

    async def retry(self, run_id: str) -> str:
        return await asyncio.to_thread(self.sync.retry, run_id)

    async def reprocess(self, run_id: str) -> RunRecord:
        return await asyncio.to_thread(self.sync.reprocess, run_id)

    async def mark_started(self, run_id: str, external_ref: str | None = None) -> None:
        await asyncio.to_thread(self.sync.mark_started, run_id, external_ref)

    async def mark_completed(self, run_id: str, result: Any = None) -> None:
        await asyncio.to_thread(self.sync.mark_completed, run_id, result)

    async def mark_failed(self, run_id: str, error: str, error_type: str | None = None) -> None:
        await asyncio.to_thread(self.sync.mark_failed, run_id, error, error_type)

    async def record_progress(self, run_id: str, progress: float, message: str | None = None) -> None:
        await asyncio.to_thread(self.sync.record_progress, run_id, progress, message)

    async def record_heartbeat(self, run_id: str) -> None:
        await asyncio.to_thread(self.sync.record_heartbeat, run_id)
