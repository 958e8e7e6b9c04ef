"""An executor without a queue, for development: a run is over when it has been submitted."""

from __future__ import annotations

from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.registry import HandlerRegistry, get_default_registry
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.worker import Worker

_CLAIM_WITHIN = 60.0


class SimpleExecutor:
    """Executes each run in the thread that submits it, and is the one executor that waits for its end. What fails and
    is to be tried again waits for a relay, as everywhere; ``max_retries=0`` leaves nothing to wait for.

    Without a ledger it has a ``MemoryLedger`` of its own, which a dispatcher without one uses, too.
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        registry: HandlerRegistry | None = None,
        *,
        guard: ConcurrencyGuard | None = None,
        name: str = "simple",
    ) -> None:
        self.name = name
        self.ledger: Ledger = MemoryLedger() if ledger is None else ledger
        self._registry = registry
        self.guard = guard

    def submit(self, run: RunRecord) -> str:
        self.ledger.mark_queued(run.run_id, run.run_id, self.name, claim_within_seconds=_CLAIM_WITHIN)
        registry = get_default_registry() if self._registry is None else self._registry
        Worker(self.ledger, registry, guard=self.guard).execute(run.run_id)
        return run.run_id

    def cancel(self, external_ref: str) -> bool:
        """Nothing waits here; a run that is executed just now is told by its ledger, when the lease is renewed."""
        run = self.ledger.get(external_ref)
        return run is not None and run.status is RunStatus.RUNNING

    def get_status(self, external_ref: str) -> RunStatus | None:
        run = self.ledger.get(external_ref)
        return None if run is None else run.status
