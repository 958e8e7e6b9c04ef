"""A legacy table or a target in parts."""

from __future__ import annotations

from typing import LiteralString

from tests.legacy import Legacy


def partition_executions(legacy: Legacy) -> None:
    """Executions as an empty table partitioned by its key; what points to it goes."""
    statements: tuple[LiteralString, ...] = (
        "ALTER TABLE execution_events DROP CONSTRAINT IF EXISTS execution_events_execution_id_fkey",
        (
            "CREATE TABLE parts (LIKE executions INCLUDING DEFAULTS, PRIMARY KEY (execution_id))"
            " PARTITION BY RANGE (execution_id)"
        ),
        (
            "CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (MINVALUE)"
            " TO ('00000000-0000-4000-8000-000000000100')"
        ),
        (
            "CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM ('00000000-0000-4000-8000-000000000100')"
            " TO ('10000000-0000-4000-8000-000000000000')"
        ),
        "DROP TABLE executions CASCADE",
        "ALTER TABLE parts RENAME TO executions",
    )
    for statement in statements:
        legacy.execute(statement)


HASHED: tuple[LiteralString, ...] = (
    "CREATE TABLE runs_even PARTITION OF runs FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
    "CREATE TABLE runs_odd PARTITION OF runs FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
)


def partition_runs(
    legacy: Legacy,
    by: LiteralString = "HASH (run_id)",
    parts: tuple[LiteralString, ...] = HASHED,
    key: LiteralString = "PRIMARY KEY (run_id)",
) -> None:
    """The target as an empty table in parts, as an application might have it, and what points to it where the key
    allows that.
    """
    statements: tuple[LiteralString, ...] = (
        "ALTER TABLE run_events DROP CONSTRAINT run_events_run_id_fkey",
        "ALTER TABLE run_handoff DROP CONSTRAINT run_handoff_run_id_fkey",
        "ALTER TABLE runs RENAME TO whole",
        f"CREATE TABLE runs (LIKE whole INCLUDING DEFAULTS, {key}) PARTITION BY {by}",
        *parts,
        "DROP TABLE whole",
    )
    pointing: tuple[LiteralString, ...] = (
        "ALTER TABLE runs ADD FOREIGN KEY (parent_run_id) REFERENCES runs",
        "ALTER TABLE runs ADD FOREIGN KEY (retry_of_run_id) REFERENCES runs",
        "ALTER TABLE run_events ADD FOREIGN KEY (run_id) REFERENCES runs",
        "ALTER TABLE run_handoff ADD FOREIGN KEY (run_id) REFERENCES runs ON DELETE CASCADE",
    )
    for statement in (*statements, *(pointing if key == "PRIMARY KEY (run_id)" else ())):
        legacy.execute(statement)
