"""Tables as they really are: partitioned, inherited, oddly named, with other types than the mapping's own, or fewer
columns.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.errors import Drift, Refused
from spine_migrate.resources import mappings_dir
from tests.database import Database
from tests.legacy import Legacy, build, uuid

# A name that breaks every way of quoting but the right one.
ODD = 'Ödd "sch%ema" \'s {0} $1;--'


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def rebuilt(legacy: Legacy, ddl: LiteralString) -> None:
    """Put another table in the place of ``executions``."""
    legacy.execute("DROP TABLE execution_events")
    legacy.execute("DROP TABLE executions")
    legacy.execute(ddl)


COLUMNS: LiteralString = """
    execution_id uuid NOT NULL, pipeline_name text, params jsonb DEFAULT '{}', lane text, trigger_source text,
    status text, backend_task_id text, feed_id uuid, retry_count integer DEFAULT 0, max_retries integer,
    parent_execution_id uuid, retry_of_execution_id uuid, idempotency_key text, result jsonb, error text,
    error_type text, created_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz, completed_at timestamptz
"""


@pytest.mark.parametrize("workers", [1, 3])
def test_partitioned_by_hash_of_the_key(legacy: Legacy, workers: int) -> None:
    rebuilt(
        legacy,
        "CREATE TABLE executions (" + COLUMNS + ", PRIMARY KEY (execution_id)) PARTITION BY HASH (execution_id);"
        "CREATE TABLE part_0 PARTITION OF executions FOR VALUES WITH (MODULUS 3, REMAINDER 0);"
        "CREATE TABLE part_1 PARTITION OF executions FOR VALUES WITH (MODULUS 3, REMAINDER 1);"
        "CREATE TABLE part_2 PARTITION OF executions FOR VALUES WITH (MODULUS 3, REMAINDER 2)",
    )
    legacy.many_executions(300)
    legacy.executions(1001, status="zombie")
    legacy.executions(1002, parent_execution_id=uuid(7))
    legacy.executions(1003, 1004, idempotency_key="k")

    assert legacy.move(workers=workers, batch_rows=20, limit=100).moved <= 100
    assert legacy.move(workers=workers, batch_rows=20).state == "done"
    legacy.prove()


def monthly(legacy: Legacy) -> None:
    """By range of time, so that the key alone is covered by no unique index; sub-partitioned, one partition empty."""
    rebuilt(
        legacy,
        "CREATE TABLE executions (" + COLUMNS + ", PRIMARY KEY (execution_id, created_at))"
        " PARTITION BY RANGE (created_at);"
        "CREATE TABLE y2024 PARTITION OF executions FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')"
        " PARTITION BY HASH (execution_id);"
        "CREATE TABLE y2024_0 PARTITION OF y2024 FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE y2024_1 PARTITION OF y2024 FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "CREATE TABLE y2025 PARTITION OF executions FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');"
        "CREATE TABLE rest PARTITION OF executions DEFAULT",
    )


def test_partitioned_by_time(legacy: Legacy) -> None:
    monthly(legacy)
    for number in range(1, 60):
        year = 2024 + number % 3
        legacy.executions(number, created_at=f"{year}-05-01", status="failed" if number % 2 else "completed")

    assert legacy.move(batch_rows=5, workers=2).moved == 59
    legacy.prove()


def test_a_key_that_stands_in_two_partitions_is_refused_before_anything_moves(legacy: Legacy) -> None:
    monthly(legacy)
    legacy.executions(1, created_at="2024-05-01")
    legacy.executions(1, created_at="2025-05-01")

    with pytest.raises(Refused, match=uuid(1)) as refused:
        legacy.move()

    assert refused.value.precondition == "key-not-unique"
    assert legacy.value("SELECT count(*) FROM spine_migrate.migration") == 0


def test_a_partition_that_is_attached_or_taken_away_between_two_runs(legacy: Legacy) -> None:
    monthly(legacy)
    for number in range(1, 40):
        legacy.executions(number, created_at=f"{2024 + number % 2}-05-01")
    legacy.move(limit=10, batch_rows=5)
    legacy.execute("CREATE TABLE y2023 PARTITION OF executions FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')")
    legacy.executions(100, 101, created_at="2023-05-01")
    legacy.execute("DROP TABLE y2025")

    assert legacy.move(batch_rows=5).state == "done"
    legacy.execute("DELETE FROM runs WHERE NOT EXISTS (SELECT FROM executions WHERE execution_id = run_id)")
    legacy.prove()
    assert legacy.value("SELECT count(*) FROM runs WHERE created_at < '2024-01-01'") == 2


def test_a_partition_with_old_rows_that_is_attached_although_the_counts_agree(legacy: Legacy) -> None:
    """Its rows are older than the migration, and as many that were moved are deleted."""
    monthly(legacy)
    for number in range(1, 11):
        legacy.executions(number, created_at="2024-05-01")
    legacy.execute("CREATE TABLE y2023 (LIKE executions INCLUDING ALL)")
    legacy.execute(
        "INSERT INTO y2023 (execution_id, pipeline_name, status, created_at)"
        " SELECT gen_random_uuid(), 'old', 'completed', '2023-05-01' FROM generate_series(1, 3)"
    )
    legacy.move(limit=5, batch_rows=5)
    legacy.execute("ALTER TABLE executions ATTACH PARTITION y2023 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')")
    legacy.execute("DELETE FROM executions WHERE execution_id IN (SELECT run_id FROM runs ORDER BY run_id LIMIT 3)")
    assert legacy.move(batch_rows=5).state == "done"
    assert legacy.value("SELECT count(*) FROM runs WHERE name = 'old'") == 3


def test_inheritance(legacy: Legacy) -> None:
    rebuilt(
        legacy,
        "CREATE TABLE executions (" + COLUMNS + ", PRIMARY KEY (execution_id));"
        "CREATE TABLE archived () INHERITS (executions);",
    )
    legacy.many_executions(50)
    legacy.add("archived", *({"execution_id": uuid(n), "pipeline_name": "old", "status": "failed"} for n in (90, 91)))

    assert legacy.move(batch_rows=9).moved == 52
    legacy.prove()


def test_a_child_with_a_column_of_its_own_is_drift(legacy: Legacy) -> None:
    """The mapping knows nothing of that column, so moving the child's rows would lose it."""
    rebuilt(
        legacy,
        "CREATE TABLE executions (" + COLUMNS + ", PRIMARY KEY (execution_id));"
        "CREATE TABLE archived (archived_by text) INHERITS (executions);",
    )

    with pytest.raises(Drift, match="archived_by"):
        legacy.move()


def test_odd_names_of_schemas(database: Database) -> None:
    legacy = build(database, source_schema=ODD, target_schema=f"{ODD} target")
    legacy.many_executions(60)
    legacy.executions(100, status="zombie")
    legacy.executions(101, parent_execution_id=uuid(5), retry_of_execution_id=uuid(999))
    legacy.executions(102, 103, idempotency_key="100%")
    legacy.add("execution_events", {"event_id": uuid(1), "execution_id": uuid(1), "event_type": "started"})
    legacy.add("jobs", {"job_type": "mail", "status": "done"})

    for entity in ("executions", "execution_events", "jobs"):
        legacy.move(entity, workers=2, batch_rows=7, limit=20)
        assert legacy.move(entity, workers=2, batch_rows=7).state in ("done", "nothing-to-do")

    legacy.prove("executions", "execution_events", "jobs")


def mapped(tmp_path: Path, **replace: tuple[str, str]) -> Path:
    """A copy of the shipped executions mapping with some text replaced."""
    shutil.copytree(mappings_dir(), tmp_path / "mappings")
    file = tmp_path / "mappings" / "capture-spine" / "executions.toml"
    text = file.read_text()
    for old, new in replace.values():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    return file


def test_odd_names_of_the_table_its_columns_and_its_partitions(legacy: Legacy, tmp_path: Path) -> None:
    file = mapped(
        tmp_path,
        table=('table = "executions"', f"table = '''{ODD}'''"),
        column=("\npipeline_name = {", f'\n"{quoted()}" = {{'),
        copy=('copy = "pipeline_name"', f'copy = "{quoted()}"'),
    )
    with legacy.connect() as connection:
        odd = sql.Identifier(ODD)
        connection.execute(sql.SQL("ALTER TABLE executions RENAME COLUMN pipeline_name TO {}").format(odd))
        connection.execute(sql.SQL("ALTER TABLE executions RENAME TO {}").format(odd))
        connection.execute(
            sql.SQL(
                "INSERT INTO {0} (execution_id, {0}, status) VALUES ({1}, 'a', 'failed'),"
                " ({2}, repeat('b', 101), 'failed'), ({3}, NULL, 'failed')"
            ).format(odd, uuid(1), uuid(2), uuid(3))
        )
        connection.execute(sql.SQL("CREATE TABLE {} () INHERITS ({})").format(sql.Identifier("CHILD % of 'it'"), odd))

    outcome = legacy.move(mapping=str(file))

    assert (outcome.moved, outcome.quarantined) == (1, {"too_long": 1, "null_value": 1})
    assert legacy.rows("SELECT run_id::text, name FROM runs") == [(uuid(1), "a")]
    details = legacy.rows("SELECT detail FROM spine_migrate.quarantine")
    assert all(ODD in detail for (detail,) in details)


def quoted() -> str:
    return ODD.replace("\\", "\\\\").replace('"', '\\"')


def test_missing_optional_columns_are_told_and_read_as_null(legacy: Legacy) -> None:
    legacy.many_executions(5)
    dropped = ("retry_of_execution_id", "feed_id", "result", "started_at", "retry_count", "lane", "idempotency_key")
    with legacy.connect() as connection:
        for name in dropped:
            connection.execute(sql.SQL("ALTER TABLE executions DROP COLUMN {}").format(sql.Identifier(name)))

    outcome = legacy.move()

    assert set(outcome.missing_columns) == set(dropped)
    assert legacy.rows("SELECT DISTINCT lane, attempt, result, retry_of_run_id, metadata -> 'feed_id' FROM runs") == [
        (None, 1, None, None, None)
    ]
    assert outcome.moved == 5


def test_dropped_columns_leave_no_hole(legacy: Legacy) -> None:
    legacy.execute("ALTER TABLE executions ADD COLUMN gone int, ADD COLUMN later text")
    legacy.execute("ALTER TABLE executions DROP COLUMN gone, DROP COLUMN later")
    legacy.execute("ALTER TABLE runs ADD COLUMN gone int; ALTER TABLE runs DROP COLUMN gone")
    legacy.many_executions(5)
    legacy.executions(9, status="zombie")

    assert legacy.move().moved == 5
    legacy.prove()


@pytest.mark.parametrize(
    "alter",
    [
        (
            "CREATE TYPE \"St'ate %\" AS ENUM ('pending', 'queued', 'running', 'completed', 'failed', 'zombie');"
            'ALTER TABLE executions ALTER status DROP DEFAULT, ALTER status TYPE "St\'ate %" USING status::"St\'ate %"'
        ),
        "ALTER TABLE executions ALTER status TYPE varchar(9), ALTER pipeline_name TYPE varchar(200)",
        "ALTER TABLE executions ALTER status TYPE char(9), ALTER retry_count TYPE smallint",
    ],
    ids=["enum", "varchar", "char"],
)
def test_other_types_of_the_source(legacy: Legacy, alter: LiteralString) -> None:
    legacy.execute("DROP INDEX ix_executions_one_active_per_feed")
    legacy.execute(alter)
    legacy.many_executions(10)
    legacy.executions(20, 21, status="zombie")
    legacy.executions(22, status="failed", pipeline_name="n" * 101)

    outcome = legacy.move(batch_rows=3)

    assert (outcome.moved, outcome.quarantined) == (10, {"unknown_value": 2, "too_long": 1})
    assert legacy.rows("SELECT DISTINCT status FROM runs") == [("completed",)]


@pytest.mark.parametrize("batch_rows", [None, 2])
def test_json_that_jsonb_cannot_hold(legacy: Legacy, batch_rows: int | None) -> None:
    legacy.execute("ALTER TABLE executions ALTER params DROP DEFAULT, ALTER params TYPE json, ALTER result TYPE json")
    legacy.many_executions(20)
    legacy.executions(31, params='{"a": "\\u0000"}')
    legacy.executions(32, params='{"a": "\\\\u0000", "b": 1.50, "b": 2}')
    legacy.executions(33, result='["\\ud800"]')
    legacy.executions(34, result='["\\ude00\\ud83d"]')
    legacy.executions(35, result='["\\ud83d\\ude00"]')
    legacy.many_executions(20, first=50)

    outcome = legacy.move(batch_rows=batch_rows)

    held = {key: (reason, sqlstate) for key, reason, _, sqlstate, _ in legacy.quarantine()}
    assert held.pop(uuid(31)) == ("bad_value", None)
    assert held == {uuid(n): ("server_refused", "22P02") for n in (33, 34)}
    assert outcome.moved == 42
    assert legacy.value("SELECT params ->> 'a' FROM runs WHERE run_id = %s", uuid(32)) == "\\u0000"
    # The row is kept as it was, character for character: also what jsonb cannot hold.
    kept = legacy.value("SELECT source_row::text FROM spine_migrate.quarantine WHERE source_key = %s", uuid(33))
    assert "\\ud800" in kept


def test_lone_surrogates_among_collisions(legacy: Legacy) -> None:
    """The row's value fails wherever it is looked at: when it is inserted, and when compared with the target's."""
    legacy.execute("ALTER TABLE executions ALTER params DROP DEFAULT, ALTER params TYPE json")
    legacy.executions(1, 2, idempotency_key="k")
    legacy.executions(3, params='{"a": "\\ud800"}')
    legacy.executions(4, params='{"a": "\\ud800"}')
    legacy.many_executions(10, first=10)
    legacy.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'pipeline', 'ingest')", uuid(4))

    outcome = legacy.move()

    assert (outcome.state, outcome.moved) == ("done", 11)
    assert outcome.quarantined == {"unique_conflict": 1, "server_refused": 2}


def test_a_generated_column_of_the_source_is_a_column_like_any_other(legacy: Legacy) -> None:
    legacy.execute(
        "ALTER TABLE executions DROP COLUMN lane,"
        " ADD COLUMN lane text GENERATED ALWAYS AS (left(pipeline_name, 2)) STORED"
    )
    legacy.many_executions(5)

    legacy.move()

    assert legacy.rows("SELECT DISTINCT lane FROM runs") == [("in",)]
    legacy.prove()


def test_a_column_that_the_mapping_does_not_know_is_drift(legacy: Legacy) -> None:
    legacy.execute("ALTER TABLE executions ADD COLUMN surprise text")

    with pytest.raises(Drift, match="surprise"):
        legacy.move()

    assert legacy.value("SELECT count(*) FROM spine_migrate.migration") == 0


def test_a_view_is_no_table(legacy: Legacy) -> None:
    legacy.execute("ALTER TABLE executions RENAME TO base; CREATE VIEW executions AS TABLE base")

    with pytest.raises(Refused) as refused:
        legacy.move()

    assert refused.value.precondition == "not-a-table"


def test_timestamps_inside_and_outside_json_do_not_depend_on_settings(legacy: Legacy, database: Database) -> None:
    """The role's own zone and date style must not show in what is written."""
    legacy.many_executions(3)
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} SET timezone = 'Asia/Kolkata'").format(sql.Identifier(database.name)))
        admin.execute(sql.SQL("ALTER DATABASE {} SET datestyle = 'German'").format(sql.Identifier(database.name)))
    legacy.add("jobs", {"job_type": "mail", "status": "done", "created_at": "2020-02-29 12:00:00"})

    legacy.move()
    legacy.move("jobs")

    with legacy.connect() as connection:
        connection.execute("SET timezone = 'UTC'; SET datestyle = 'ISO'")
        assert connection.execute("SELECT created_at::text FROM runs WHERE kind = 'task'").fetchall() == [
            ("2020-02-29 12:00:00+00",)
        ]
    legacy.prove("executions", "jobs")
