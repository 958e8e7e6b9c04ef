"""What Celery's main process knows of a request, and its pool does not: the process was killed."""

from __future__ import annotations

from typing import Any

from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from spine_shims.aftermath import dead, failed
from spine_shims.task import RerouteTask


class ShimRequest(Request):  # type: ignore[misc]  # Celery has no types
    """Celery's hook for that: a task names its class of requests."""

    def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001 - as in Celery
        super().on_timeout(soft, timeout)
        if not soft and self._is_shim:
            failed(self.task, self.request_dict, TimeLimitExceeded(timeout))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002 - as in Celery
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if not isinstance(error, WorkerLostError) or not self._is_shim:
            return super().on_failure(exc_info, send_failed_event, return_ok)
        if self.task.lost_worker_retries > 0:
            # It has not failed yet. Where it was claimed, the message is refused as long as the lease lasts, and the
            # relay has it executed again; a process that died before claims nothing.
            return self.reject(requeue=True)
        ended = super().on_failure(exc_info, send_failed_event, return_ok)
        dead(self.task, self.request_dict, error)
        return ended

    @property
    def _is_shim(self) -> bool:
        return isinstance(self.task, RerouteTask) and self.task.route is not None
