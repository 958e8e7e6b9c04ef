"""Purging: what is old and final goes with all that belongs to it, what is still needed stays and is counted."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import pytest

from spine_migrate.backfill import undo
from spine_migrate.db import schema
from spine_migrate.db.connect import connect
from spine_migrate.execution.retention import Bound, Purge, Purged
from spine_migrate.execution.runs import ACTIVE, FINAL, RunStatus
from tests.command import start
from tests.database import Database
from tests.legacy import build, uuid
from tests.runs import NOW, add_run, cli, dispatching, key, numbers, told

_BEFORE = NOW - timedelta(days=90)
_BOUND = Bound(_BEFORE)


@pytest.fixture
def runs(database: Database) -> Database:
    database.arrange(schema.upgrade)
    return database


def purge(database: Database, bound: Bound = _BOUND, *, batch_size: int = 1000) -> Purged:
    with connect(database.url) as connection:
        work = Purge(connection, bound, batch_size=batch_size)
        counted = work.count(connection)
        while work.step(connection):
            pass
    assert counted.runs == work.purged.runs
    assert counted.kept.total() == work.purged.kept.total() - work.purged.kept["in_use"]
    return work.purged


@pytest.mark.parametrize("batch_size", [1, 2, 1000])
def test_old_final_runs_go_with_events_and_handoffs(runs: Database, batch_size: int) -> None:
    for number, status in enumerate(sorted(FINAL), start=1):
        add_run(runs, number, status=status)
        add_run(runs, number + 10, status=status, days=80)
    for number, status in enumerate(sorted(ACTIVE), start=21):
        add_run(runs, number, status=status)
    done = purge(runs, batch_size=batch_size)
    assert numbers(runs) == {11, 12, 13, 14, 21, 22, 23}
    assert done.runs == dict.fromkeys(FINAL, 1)
    assert (done.events, done.handoffs, done.kept) == (8, 4, Counter())
    assert purge(runs).runs == Counter()


def test_the_end_counts_and_where_it_is_not_known_the_beginning(runs: Database) -> None:
    add_run(runs, 1, completed_at=NOW)
    add_run(runs, 2, completed_at=None)
    add_run(runs, 3, created_at=None)
    add_run(runs, 4, created_at="-infinity", completed_at=None)
    add_run(runs, 5, created_at="infinity", completed_at=None)
    add_run(runs, 6, created_at="-infinity")
    add_run(runs, 7, days=1, parent_run_id=key(6))
    for batch_size in (1, 1000):
        purge(runs, batch_size=batch_size)
        assert numbers(runs) == {1, 3, 5, 6, 7}


def test_only_some_statuses(runs: Database) -> None:
    for number, status in enumerate(sorted(FINAL), start=1):
        add_run(runs, number, status=status)
    purge(runs, Bound(_BEFORE, frozenset({RunStatus.COMPLETED, RunStatus.CANCELLED})))
    with runs.connect() as connection:
        assert connection.execute("SELECT DISTINCT status FROM runs ORDER BY 1").fetchall() == [
            ("dead_lettered",), ("failed",)
        ]  # fmt: skip
    with pytest.raises(ValueError, match="running"):
        Bound(_BEFORE, frozenset({RunStatus.RUNNING}))


@dataclass(frozen=True)
class Made:
    number: int
    days: int
    status: str
    parent: int | None
    retried: int | None


def _random_runs(chance: random.Random) -> list[Made]:
    """Any run may name any that was made before it, younger or older, itself active or final."""
    statuses = ["completed"] * 6 + ["failed", "dead_lettered", "running", "pending"]
    made: list[Made] = []
    for number in range(1, chance.randint(2, 25)):
        named: list[int | None] = [None] * 4 + [chance.randint(1, number) for _ in range(3)]
        made.append(
            Made(
                number,
                chance.choice([91, 92, 95, 100, 100, 100, 10]),
                chance.choice(statuses),
                chance.choice(named),
                chance.choice([one for one in named if one != number]),
            )
        )
    return made


def _expected(made: Sequence[Made]) -> set[int]:
    """Which runs stay, the plain way."""
    stay = {one.number for one in made if one.status in ACTIVE or one.days <= 90}
    while True:
        named = {number for one in made if one.number in stay for number in (one.parent, one.retried)} - {None}
        if named <= stay:
            return stay
        stay |= {number for number in named if number is not None}


def test_what_stays_is_what_a_run_that_stays_leads_to(runs: Database) -> None:
    for seed in range(12):
        with runs.connect() as connection:
            connection.execute("TRUNCATE runs CASCADE")
        chance = random.Random(seed)
        made = _random_runs(chance)
        for one in made:
            add_run(
                runs,
                one.number,
                days=one.days,
                status=one.status,
                parent_run_id=one.parent and key(one.parent),
                retry_of_run_id=one.retried and key(one.retried),
            )
        done = purge(runs, batch_size=chance.choice([1, 2, 5, 1000]))
        stay = _expected(made)
        assert numbers(runs) == stay, f"seed {seed}"
        old = [one for one in made if one.number in stay and one.status in FINAL and one.days > 90]
        assert done.kept.total() == len(old), f"seed {seed}"
        assert set(done.kept) <= {"parent", "retried"}


def test_a_parent_that_is_younger_than_its_child_goes_in_a_second_pass(runs: Database) -> None:
    add_run(runs, 1, days=100)
    add_run(runs, 2, days=200, parent_run_id=key(1))
    done = purge(runs, batch_size=1)
    assert (numbers(runs), done.runs.total(), done.kept.total()) == (set(), 2, 0)


def test_what_a_table_of_the_application_names_stays(runs: Database) -> None:
    for number in (4, 3, 2, 1):
        add_run(runs, number, parent_run_id=key(4) if number == 1 else None)
    with runs.connect() as connection:
        connection.execute('CREATE TABLE "50%s report" (id int, "the %run" uuid REFERENCES runs)')
        connection.execute('INSERT INTO "50%s report" VALUES (1, %s)'.replace("50%s", "50%%s"), (key(1),))
        connection.execute("CREATE TABLE note (run_id uuid REFERENCES runs ON DELETE CASCADE)")
        connection.execute("INSERT INTO note VALUES (%s)", (key(2),))
    done = purge(runs)
    assert numbers(runs) == {1, 4}
    assert done.kept == {"referenced": 1, "parent": 1}
    with runs.connect() as connection:
        assert connection.execute("SELECT count(*) FROM note").fetchone() == (0,)


def test_nobody_is_waited_for(runs: Database) -> None:
    """A run or a handoff that is locked is left for the next purge."""
    for number in range(1, 5):
        add_run(runs, number)
    with runs.connect() as one, runs.connect() as another:
        one.execute("SELECT FROM runs WHERE run_id = %s FOR UPDATE", (key(1),))
        another.execute("SELECT FROM run_handoff WHERE run_id = %s FOR UPDATE", (key(2),))
        with connect(runs.url) as connection:
            work = Purge(connection, _BOUND)
            while work.step(connection):
                pass
    assert (numbers(runs), work.purged.kept) == ({1, 2}, {"in_use": 2})
    purge(runs)
    assert numbers(runs) == set()


def test_a_dead_letter_that_is_brought_back_meanwhile_stays(runs: Database) -> None:
    """The reprocessing has begun when the purge looks, and is committed after it: neither waits for the other."""
    add_run(runs, 1, status="dead_lettered")
    add_run(runs, 2)
    with runs.connect() as connection:
        connection.execute(
            "SELECT FROM run_handoff h JOIN runs r USING (run_id) WHERE run_id = %s FOR UPDATE", (key(1),)
        )
        connection.execute("UPDATE runs SET status = 'pending' WHERE run_id = %s", (key(1),))
        with connect(runs.url) as purging:
            work = Purge(purging, _BOUND)
            while work.step(purging):
                pass
    assert (numbers(runs), work.purged.kept["in_use"]) == ({1}, 1)
    with dispatching(runs.url) as dispatcher:
        run = dispatcher.get_run(str(key(1)))
    assert run is not None
    assert run.status is RunStatus.PENDING


def test_a_batch_is_one_transaction_and_the_next_purge_goes_on(runs: Database) -> None:
    for number in range(1, 7):
        add_run(runs, number)
    with connect(runs.url) as connection:
        work = Purge(connection, _BOUND, batch_size=2)
        assert work.step(connection)
        with runs.connect_admin(autocommit=True) as admin:
            admin.execute(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
                "CREATE TRIGGER fail BEFORE DELETE ON runs FOR EACH STATEMENT EXECUTE FUNCTION fail()"
            )
        before = numbers(runs)
        with pytest.raises(psycopg.errors.RaiseException):
            work.step(connection)
        with runs.connect() as reader:
            assert reader.execute("SELECT count(*) FROM run_events").fetchone() == (8,)
            assert reader.execute("SELECT count(*) FROM run_handoff").fetchone() == (4,)
        assert numbers(runs) == before
        assert (work.purged.runs.total(), work.purged.batches) == (2, 1)
    with runs.connect_admin(autocommit=True) as admin:
        admin.execute("DROP TRIGGER fail ON runs")
    assert purge(runs, batch_size=2).runs.total() == 4


def test_a_killed_purge_leaves_whole_runs_and_the_same_command_goes_on(runs: Database) -> None:
    with runs.connect() as connection:
        connection.execute(
            "INSERT INTO runs (kind, name, status, created_at)"
            " SELECT 'task', 'x', 'completed', now() - interval '1 year' FROM generate_series(1, 1500)"
        )
        connection.execute("INSERT INTO run_events (run_id, event_type) SELECT run_id, 'created' FROM runs")
        connection.execute(
            "INSERT INTO run_handoff (run_id, lane, waiting, due_at, retry_delay_seconds, retries_left)"
            " SELECT run_id, 'default', false, now(), 60, 0 FROM runs"
        )
    # So that it is not over before a busy machine comes to kill it.
    with runs.connect() as connection:
        connection.execute(
            "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql"
            " AS $$BEGIN PERFORM pg_sleep(0.03); RETURN NULL; END$$"
        )
        connection.execute(
            "CREATE TRIGGER pause AFTER DELETE ON runs FOR EACH STATEMENT EXECUTE FUNCTION public.pause()"
        )
    command = start(runs.url, "runs", "purge", "--older-than", "90d", "--batch-size", "1", "--yes")
    while len(numbers(runs)) == 1500:
        assert command.poll() is None
    command.kill()
    command.communicate()
    with runs.connect() as connection:
        connection.execute("DROP TRIGGER pause ON runs")
    left = len(numbers(runs))
    assert 0 < left < 1500
    with runs.connect() as connection:
        for table in ("run_events", "run_handoff"):
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or ()  # noqa: S608 - both above
            assert count >= left - 1
    # The server may still be at the batch that the tool did not wait for.
    assert told(cli(runs, "runs", "purge", "--older-than", "90d", "--yes", "--json"))["runs"]["completed"] >= left - 1
    assert numbers(runs) == set()


def test_runs_that_a_migration_moved_go_only_on_request_and_undo_still_ends(database: Database) -> None:
    legacy = build(database)
    old = NOW - timedelta(days=200)
    legacy.executions(1, status="completed", created_at=old, completed_at=old)
    legacy.executions(2, status="completed", created_at=old, completed_at=old, parent_execution_id=uuid(1))
    legacy.executions(3, status="completed", created_at=NOW, completed_at=NOW)
    legacy.move("executions")
    add_run(database, 77)
    with dispatching(database.url) as dispatcher:
        # Refused, but the runtime knows the run from then on; it is history all the same.
        assert not dispatcher.cancel(uuid(1))
    words = ("runs", "purge", "--older-than", "90d", "--yes", "--json")
    assert told(cli(database, *words))["runs"] == {"completed": 1}
    assert 77 not in numbers(database)
    assert len(numbers(database)) == 3
    legacy.execute("UPDATE spine_migrate.migration SET step = 'backfill'")
    refused = cli(database, *words, "--migrated")
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert "capture-spine/executions is in step backfill" in refused.stderr
    legacy.execute("UPDATE spine_migrate.migration SET step = 'done'")
    assert told(cli(database, *words, "--migrated"))["runs"] == {"completed": 2}
    assert len(numbers(database)) == 1
    (undone,) = undo.undo(
        database.url, options=undo.Options(retry_seconds=0), stop=threading.Event(), report=lambda _: None
    )
    assert (undone.state, undone.rows) == ("undone", 1)
    assert numbers(database) == set()


def test_a_dry_run_counts_and_changes_nothing(runs: Database) -> None:
    add_run(runs, 1)
    add_run(runs, 2, status="failed")
    add_run(runs, 3, days=1, parent_run_id=key(2))
    words = ("runs", "purge", "--older-than", "90d")
    planned = told(cli(runs, *words, "--dry-run", "--json"))
    assert (planned["state"], planned["runs"], planned["kept"]) == ("planned", {"completed": 1}, {"parent": 1})
    assert numbers(runs) == {1, 2, 3}
    text = cli(runs, *words, "--dry-run")
    assert "would be deleted: 1" in text.stdout
    assert "a run that stays has it as its parent" in text.stdout
    declined = cli(runs, *words, given="n\n")
    assert (declined.exit_code, declined.stdout, numbers(runs)) == (4, "", {1, 2, 3})
    agreed = cli(runs, *words, "--json", given="y\n")
    assert told(agreed)["runs"] == {"completed": 1}
    assert "Delete 1 runs?" in agreed.stderr
    assert numbers(runs) == {2, 3}


def test_who_purged_what_is_on_record(runs: Database) -> None:
    add_run(runs, 1)
    cli(runs, "runs", "purge", "--older-than", "90d", "--yes")
    with runs.connect() as connection:
        ((action, detail),) = connection.execute("SELECT action, detail FROM spine_migrate.audit").fetchall()
    assert action == "runs purged"
    assert (detail["state"], detail["runs"], detail["events"]) == ("purged", {"completed": 1}, 2)


@pytest.mark.parametrize(
    ("older_than", "sentence"), [("ninety", "neither a duration"), ("2999-01-01", "a time to come")]
)
def test_usage(runs: Database, older_than: str, sentence: str) -> None:
    refused = cli(runs, "runs", "purge", "--older-than", older_than, "--yes")
    assert refused.exit_code == 2
    assert sentence in refused.stderr


def test_a_large_table_without_indexes_is_refused(runs: Database) -> None:
    with runs.connect() as connection:
        connection.execute(
            "INSERT INTO runs (kind, name, status, error) SELECT 'task', 'x', 'failed', repeat('x', 1500)"
            " FROM generate_series(1, 1000)"
        )
    words = ("runs", "purge", "--older-than", "90d", "--yes")
    refused = cli(runs, *words)
    assert refused.exit_code == 3
    assert "created_at, parent_run_id, retry_of_run_id; run spine-migrate runs index create" in refused.stderr
    needed = ("created_at", "parent_run_id", "retry_of_run_id")
    assert cli(runs, "runs", "index", "create", *needed).exit_code == 0
    assert cli(runs, *words).exit_code == 0
    with runs.connect() as connection:
        connection.execute("CREATE TABLE report (note text, run uuid REFERENCES runs)")
        connection.execute("INSERT INTO report SELECT repeat('x', 1500), run_id FROM runs")
    refused = cli(runs, *words)
    assert refused.exit_code == 3
    assert 'CREATE INDEX CONCURRENTLY ON "public"."report" ("run")' in refused.stderr
