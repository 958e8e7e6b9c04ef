"""Taking away and building, where the target is not what the revisions have made, and where something comes between."""

from __future__ import annotations

import threading
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.backfill.pace import Progress
from spine_migrate.db import connect
from spine_migrate.errors import Interrupted, Refused
from tests.database import Database
from tests.legacy import Legacy, build, uuid

_FEED = "f0000000-0000-4000-8000-000000000001"
_OBJECTS: LiteralString = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
     WHERE 'runs'::regclass IN (conrelid, confrelid) AND contype IN ('p', 'u', 'f')
    UNION ALL
    SELECT indrelid::regclass::text, indexrelid::regclass::text,
           split_part(pg_get_indexdef(indexrelid), ' WHERE ', 1), indisvalid
      FROM pg_index WHERE indrelid = 'runs'::regclass
       AND indexrelid NOT IN (SELECT conindid FROM pg_constraint WHERE conrelid = 'runs'::regclass)
     ORDER BY 1, 2"""
_WITHOUT_FOREIGN_KEYS: LiteralString = """
    DO $$ DECLARE one record; BEGIN
        FOR one IN SELECT conrelid::regclass AS of, conname FROM pg_constraint
                    WHERE contype = 'f' AND confrelid = 'runs'::regclass LOOP
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.of, one.conname);
        END LOOP; END $$"""


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def begun(legacy: Legacy) -> None:
    """Three executions, two of them moved, the indexes away."""
    legacy.executions(1, 2, 3)
    assert legacy.move(offline=True, limit=2, batch_rows=2).state == "limit"


def test_links_are_cut_although_the_last_object_had_to_be_mended(legacy: Legacy) -> None:
    """Without foreign keys nothing else finds links that lead nowhere, to a row that just lost its place too."""
    legacy.execute(_WITHOUT_FOREIGN_KEYS)
    legacy.execute("CREATE UNIQUE INDEX zz_one_of_each ON runs (external_ref)")
    legacy.executions(1, backend_task_id="same")
    legacy.executions(2, backend_task_id="same")
    legacy.executions(3, parent_execution_id=uuid(2), retry_of_execution_id=uuid(999))
    before = legacy.rows(_OBJECTS)
    assert before[-1][1] == "zz_one_of_each"

    outcome = legacy.move(offline=True, workers=1, batch_rows=1)

    assert (outcome.links.waiting, outcome.links.broken) == (1, 1)
    assert outcome.quarantined == {"unique_conflict": 1}
    assert legacy.rows(_OBJECTS) == before
    legacy.prove()


def test_every_kind_of_foreign_key_comes_back_as_it_was(legacy: Legacy) -> None:
    """Two link columns of which one is not validated, several columns, actions, deferred ones, names that need care."""
    for statement in (
        "ALTER TABLE runs DROP CONSTRAINT runs_parent_run_id_fkey",
        """ALTER TABLE runs ADD CONSTRAINT later FOREIGN KEY (parent_run_id) REFERENCES runs ON DELETE SET NULL
           DEFERRABLE INITIALLY DEFERRED NOT VALID""",
        "ALTER TABLE runs ADD UNIQUE (run_id, lane)",
        """ALTER TABLE runs ADD "pa;r""en't % x" uuid""",
        """ALTER TABLE runs ADD CONSTRAINT "it's; %s ""one" FOREIGN KEY ("pa;r""en't % x") REFERENCES runs
           ON DELETE CASCADE ON UPDATE SET DEFAULT DEFERRABLE""",
        """CREATE TABLE "of; %s ours" (run_id uuid, lane text,
           FOREIGN KEY (run_id, lane) REFERENCES runs (run_id, lane) MATCH FULL ON DELETE CASCADE)""",
        """CREATE TABLE parts (run_id uuid REFERENCES runs ON DELETE CASCADE) PARTITION BY HASH (run_id)""",
        """CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0)""",
    ):
        legacy.execute(statement)
    legacy.executions(1, parent_execution_id=uuid(2))
    legacy.executions(2, status="zombie")
    legacy.executions(3, parent_execution_id=uuid(1), retry_of_execution_id=uuid(999))
    before = legacy.rows(_OBJECTS)

    outcome = legacy.move(offline=True, batch_rows=1)

    assert (outcome.links.waiting, outcome.links.broken) == (1, 1)
    assert legacy.rows(_OBJECTS) == before
    legacy.execute("""ALTER TABLE runs DROP "pa;r""en't % x" """)
    legacy.prove()


def test_a_partitioned_source_with_a_key_that_comes_twice(database: Database) -> None:
    """Indexes of partitions do not see each other; the source's key proves nothing across them."""
    legacy = build(database)
    legacy.execute("DROP TABLE execution_events, executions CASCADE")
    legacy.execute(
        """CREATE TABLE executions (execution_id uuid NOT NULL, pipeline_name text, params jsonb, status text,
               feed_id uuid, parent_execution_id uuid, created_at timestamptz NOT NULL DEFAULT now())
           PARTITION BY LIST (status)"""
    )
    legacy.execute("CREATE TABLE executions_running PARTITION OF executions FOR VALUES IN ('running')")
    legacy.execute("CREATE TABLE executions_other PARTITION OF executions DEFAULT")
    legacy.executions(1, parent_execution_id=uuid(3))
    legacy.executions(2, status="running", feed_id=_FEED)
    legacy.executions(3, status="running", feed_id=_FEED)
    legacy.executions(4, parent_execution_id=uuid(2))

    outcome = legacy.move(offline=True, batch_rows=1, workers=2)

    assert (outcome.state, outcome.moved, outcome.quarantined) == ("done", 3, {"unique_conflict": 1})
    assert (outcome.links.waiting, outcome.links.broken) == (1, 0)


def test_a_table_without_any_index_but_that_of_its_key(legacy: Legacy) -> None:
    legacy.execute(_WITHOUT_FOREIGN_KEYS)
    legacy.execute("ALTER TABLE run_events DROP CONSTRAINT run_events_pkey")
    legacy.execute("DROP INDEX ix_run_events_run_id")
    legacy.executions(1)
    legacy.move()
    legacy.add("execution_events", {"event_id": uuid(5), "execution_id": uuid(1), "event_type": "started"})
    with pytest.raises(Refused, match="No valid unique index covers"):
        legacy.move("execution_events", offline=True)
    legacy.execute("CREATE UNIQUE INDEX one_event ON run_events (event_id)")

    outcome = legacy.move("execution_events", offline=True)

    assert (outcome.state, outcome.moved) == ("done", 1)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("COMMENT ON CONSTRAINT run_events_run_id_fkey ON run_events IS 'mind this'", "run_events_run_id_fkey"),
        ("ALTER INDEX runs_pkey SET (fillfactor = 50)", "would lose what is set on runs_pkey"),
        (
            "CREATE VIEW latest AS SELECT run_id, name, max(attempt) FROM runs GROUP BY run_id",
            "view public.latest depends",
        ),
        ("CREATE PUBLICATION changes FOR TABLE runs", "changes publishes"),
    ],
    ids=["comment", "storage", "view", "publication"],
)
def test_what_cannot_come_back_is_refused(database: Database, statement: LiteralString, words: str) -> None:
    legacy = build(database)
    legacy.executions(1)
    before = legacy.rows(_OBJECTS)
    with database.connect_admin(autocommit=True) as admin:
        allowed = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
        admin.execute(allowed.format(sql.Identifier(database.name), sql.Identifier(database.owner.name)))
    legacy.execute(statement)

    with pytest.raises(Refused, match=words):
        legacy.move(offline=True)

    assert legacy.rows(_OBJECTS) == before
    assert legacy.rows("SELECT * FROM spine_migrate.migration") == []
    assert legacy.move().state == "done"


def test_rows_of_others_in_the_way_of_an_index_are_refused_by_name(legacy: Legacy) -> None:
    begun(legacy)
    legacy.execute("INSERT INTO runs (kind, name, idempotency_key) VALUES ('task', 'a', 'once'), ('task', 'b', 'once')")

    with pytest.raises(Refused, match=r"uq_idempotency cannot be built again: .* others wrote rows"):
        legacy.move()

    legacy.execute("DELETE FROM runs WHERE name = 'b'")
    assert legacy.move().state == "done"
    legacy.prove()


def test_a_row_that_was_in_quarantine_passes_later_and_loses_its_place(legacy: Legacy) -> None:
    """It was refused, then changed and met again, and stands in the way of an index."""
    legacy.executions(1, status="zombie", idempotency_key="once")
    legacy.executions(2, idempotency_key="twice")
    legacy.executions(3)
    assert legacy.move(offline=True, limit=2, batch_rows=2).state == "limit"
    legacy.execute("ALTER TABLE executions DROP CONSTRAINT IF EXISTS executions_idempotency_key_key")
    legacy.execute("UPDATE executions SET status = 'completed', idempotency_key = 'twice' WHERE status = 'zombie'")

    outcome = legacy.move()

    assert (outcome.state, outcome.moved, outcome.quarantined) == ("done", 2, {"unique_conflict": 1})
    assert legacy.rows("SELECT source_key, reason, attempts FROM spine_migrate.quarantine") == [
        (uuid(1), "unique_conflict", 2)
    ]
    legacy.prove()


def test_a_vacuum_is_no_writer(legacy: Legacy) -> None:
    """Autovacuum comes to a table that was just filled, and holds the lock of ANALYZE and VACUUM."""
    legacy.executions(1)
    with psycopg.connect(legacy.url) as vacuum:
        vacuum.execute("LOCK TABLE executions IN SHARE UPDATE EXCLUSIVE MODE")
        assert legacy.move(offline=True).state == "done"


def test_a_stop_ends_the_building_after_the_object_at_hand(legacy: Legacy) -> None:
    legacy.executions(1, 2)
    before = legacy.rows(_OBJECTS)
    stop = threading.Event()

    def report(progress: Progress) -> None:
        if progress.stage.startswith("building uq_"):
            stop.set()

    outcome = legacy.move(offline=True, stop=stop, report=report)

    assert outcome.state == "interrupted"
    built = legacy.rows("SELECT object FROM spine_migrate.deferred_ddl WHERE built_at IS NOT NULL ORDER BY ordinal")
    assert built == [("runs_pkey",), ("uq_idempotency",)]
    assert legacy.move().state == "done"
    assert legacy.rows(_OBJECTS) == before


def test_a_cancel_ends_the_building_at_once(legacy: Legacy) -> None:
    """The second Ctrl-C, while an index waits or takes its hours."""
    legacy.executions(1, 2)
    stop, cancel = threading.Event(), threading.Event()
    reader = psycopg.connect(legacy.url)

    def report(progress: Progress) -> None:
        if progress.stage.startswith("building"):
            reader.execute("SELECT FROM runs")
            stop.set()
            cancel.set()

    with reader, pytest.raises(Interrupted):
        legacy.move(offline=True, stop=stop, cancel=cancel, report=report)
    assert legacy.move().state == "done"


def test_a_stop_while_a_lock_is_waited_for_is_a_stop(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a fault of the server, although the wait ends in one."""
    monkeypatch.setitem(connect.SETTINGS, "lock_timeout", "50ms")
    legacy.executions(1)
    stop = threading.Event()
    stop.set()
    with psycopg.connect(legacy.url) as other:
        other.execute("LOCK TABLE spine_migrate.migration IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Interrupted):
            legacy.move(stop=stop)
    assert legacy.move().state == "done"
