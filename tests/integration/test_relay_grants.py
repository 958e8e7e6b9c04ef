"""What ``spine-migrate grants worker-relay`` prints is enough for each rule, and nothing of it is too much."""

from __future__ import annotations

from datetime import timedelta

from click.testing import CliRunner
from psycopg_pool import ConnectionPool

from spine_migrate.cli import main
from spine_migrate.db import schema
from spine_migrate.execution import RunRecord, RunStatus, WorkSpec
from spine_migrate.execution.executors.protocol import Outcome
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from tests.database import Database, Role
from tests.grants import give


class Postbox:
    """What ``--app`` names here: an executor that takes everything, and knows of one run that it has ended."""

    name = "postbox"

    def submit(self, run: RunRecord) -> str:
        return run.run_id

    def cancel(self, external_ref: str) -> bool:
        raise AssertionError(external_ref)

    def get_status(self, external_ref: str) -> RunStatus | None:
        raise AssertionError(external_ref)

    def outcome(self, run: RunRecord) -> Outcome | None:
        if run.spec.name != ELSEWHERE:
            return None
        return Outcome(RunStatus.COMPLETED, 1, run.created_at + timedelta(seconds=1))


ELSEWHERE = "elsewhere"
postbox = Postbox()


def _fill(database: Database) -> None:
    """One run for each rule, and for each way in which a lost worker's run ends."""
    with ConnectionPool(database.url, min_size=1, max_size=1) as pool:
        ledger = PostgresLedger(pool)

        def stored(retries: int, name: str = "work") -> str:
            return ledger.create(RunRecord(WorkSpec("task", name, max_retries=retries))).run_id

        stored(0)
        unclaimed, cancelled, again, dead = stored(0), stored(0), stored(1), stored(0)
        for run_id in (unclaimed, stored(0, ELSEWHERE)):
            ledger.mark_queued(run_id, run_id, "postbox", claim_within_seconds=0)
        for run_id in (cancelled, again, dead):
            ledger.claim(run_id, "a worker that was killed", lease_seconds=0)
        ledger.cancel(cancelled, "not wanted")


def _works(database: Database, role: Role) -> bool:
    words = ["worker-relay", "--app", f"{__name__}:postbox", "--once", "--retry-lost-after", "600"]
    words += ["--target", database.url_as(role)]
    ended = CliRunner().invoke(main, words)
    if ended.exit_code == 0:
        assert ended.stdout.startswith(
            "published 1, published again 1, cancelled 1, tried again 1, dead lettered 1, failed 0, ended elsewhere 1"
        )
    else:
        assert "lacks a privilege" in ended.stderr, ended.stderr
    return ended.exit_code == 0


def test_each_grant_is_needed_and_all_are_enough(database: Database) -> None:
    database.arrange(schema.upgrade)
    with database.connect(autocommit=True) as owner:
        owner.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    role = database.add_role("role")
    for held in give(database, role, "worker-relay"):
        with database.connect(autocommit=True) as owner:
            owner.execute("TRUNCATE runs CASCADE")
        _fill(database)
        with database.connect(autocommit=True) as owner:
            owner.execute(held.revoke)
        assert not _works(database, role), f"not needed: {held.name}"
        with database.connect(autocommit=True) as owner:
            owner.execute(held.grant)
    with database.connect(autocommit=True) as owner:
        owner.execute("TRUNCATE runs CASCADE")
    _fill(database)
    assert _works(database, role)
