"""``python -m tests.chaos.submitter COUNT``: submits so many runs, each in a process of its own that is killed once its
run is committed and before it is published.
"""

from __future__ import annotations

import os
import signal
import sys

from psycopg_pool import ConnectionPool

from spine_migrate.execution import RunRecord, RunStatus, SyncDispatcher, publishing
from spine_migrate.execution.ledgers.postgres import PostgresLedger

#: Seconds that the relay leaves a run to its submitter; the half minute that it is would make the test wait as long.
_GRACE = 0.5


class Killed:
    """An executor whose process does not live to publish."""

    name = "killed"

    def submit(self, run: RunRecord) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return run.run_id

    def cancel(self, external_ref: str) -> bool:
        raise AssertionError(external_ref)

    def get_status(self, external_ref: str) -> RunStatus | None:
        raise AssertionError(external_ref)


def submit() -> None:
    with ConnectionPool(os.environ["SPINE_DATABASE_URL"], min_size=1, max_size=1) as pool:
        SyncDispatcher(Killed(), PostgresLedger(pool)).submit_task("quick", tags={"submitter": "killed"})


def main(count: int) -> int:
    publishing.PUBLISH_GRACE = _GRACE
    for _ in range(count):
        child = os.fork()
        if child == 0:
            submit()
            os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
