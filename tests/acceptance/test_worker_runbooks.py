"""What the runbooks of workers, stuck runs and broker outages tell an operator to type does what they say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import RunRecord, RunStatus, WorkSpec
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from tests.command import environment
from tests.database import Database
from tests.redis_server import RedisServer

_RUNBOOKS = Path(__file__).parents[2] / "runbooks"


def blocks(name: str, language: str) -> list[str]:
    text = (_RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    return [str(found) for found in re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


@dataclass(frozen=True)
class Desk:
    """A folder with the application of workers.md, where an operator types."""

    folder: Path
    environment: dict[str, str]
    ledger: PostgresLedger

    def types(self, lines: str, **names: str) -> subprocess.CompletedProcess[str]:
        """All of it in one shell. What was left in the background is killed with it."""
        with (self.folder / "told").open("wb") as told, (self.folder / "said").open("wb") as said:
            shell = subprocess.Popen(
                ["/bin/bash", "-c", lines],
                cwd=self.folder,
                env={**self.environment, **names},
                stdout=told,
                stderr=said,
                start_new_session=True,
            )
            try:
                shell.wait(timeout=100)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()
        outputs = [(self.folder / name).read_text(encoding="utf-8") for name in ("told", "said")]
        return subprocess.CompletedProcess(lines, shell.returncode, *outputs)

    def submit(self) -> str:
        return self.ledger.create(RunRecord(WorkSpec("task", "greet", {"name": "Ada"}, max_retries=0))).run_id

    def status(self, run_id: str) -> RunStatus:
        run = self.ledger.get(run_id)
        assert run is not None
        return run.status


@pytest.fixture
def desk(tmp_path: Path, database: Database, redis_server: RedisServer) -> Iterator[Desk]:
    database.arrange(schema.upgrade)
    (application,) = blocks("workers", "python")
    # A busy disk may hold a broker up for longer than two seconds that writes to it each time.
    patient = application.replace('{"reports": "reports"}', '{"reports": "reports"}, publish_timeout_seconds=10')
    (tmp_path / "shop.py").write_text(patient, encoding="utf-8")
    with ConnectionPool(database.url, min_size=1, max_size=2) as pool:
        yield Desk(tmp_path, environment(database.url, BROKER_URL=redis_server.url), PostgresLedger(pool))


def test_workers_and_a_relay_execute_what_is_submitted(desk: Desk) -> None:
    start, check = blocks("workers", "sh")
    all_done = (
        'for one in $MANY; do until spine-migrate runs show "$one" | grep --quiet completed; do sleep 0.1; done; done'
    )
    several = "MANY=$(echo $MANY | cut --delimiter=' ' --fields=1,100)"
    done = desk.types(f"set -e\n{start}\n{check}\n{several}\n{all_done}\necho $RUN")
    assert done.returncode == 0, done.stderr
    assert len(desk.ledger.list_runs(limit=1000)) == 101
    run = desk.ledger.get(done.stdout.split()[-1])
    assert run is not None
    assert (run.status, run.result) == (RunStatus.COMPLETED, {"greeting": "Hello, Ada."})


def test_stuck_runs_are_found_and_settled(desk: Desk) -> None:
    find, settle, decide, check = blocks("stuck-runs", "sh")
    queued, lost, dead = (desk.submit() for _ in range(3))
    desk.ledger.mark_queued(queued, queued, "celery", claim_within_seconds=900)
    desk.ledger.claim(lost, "a worker that was killed", lease_seconds=0)
    desk.ledger.fail(dead, "no", "ValueError", dead=True)

    done = desk.types(f"set -e\n{find}\n{settle}\n{decide}\n{check}", QUEUED=queued, DEAD=dead)

    assert done.returncode == 0, done.stderr
    assert "dead lettered 1" in done.stdout
    assert [desk.status(run_id) for run_id in (queued, lost, dead)] == [
        RunStatus.CANCELLED,
        RunStatus.DEAD_LETTERED,
        RunStatus.PENDING,
    ]


def test_after_an_outage_everything_is_published(desk: Desk, redis_server: RedisServer) -> None:
    """What could not be published during it, and what the broker has lost."""
    see, publish, check = blocks("broker-outage", "sh")
    lost, waiting = desk.submit(), desk.submit()
    desk.ledger.mark_queued(lost, lost, "celery", claim_within_seconds=300)

    redis_server.kill()
    during = desk.types(see)
    assert "The broker cannot be reached" in during.stderr
    assert waiting in during.stdout
    assert desk.status(waiting) is RunStatus.PENDING
    redis_server.start()
    after = desk.types(f"set -e\n{publish}\n{check}")

    assert after.returncode == 0, after.stderr
    assert "published 1, published again 1," in after.stdout
    assert desk.status(waiting) is RunStatus.QUEUED
