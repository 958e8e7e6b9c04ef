"""What bodies and producers of tests/chaos/shims_app.py write down, which nobody can import without its settings."""

from __future__ import annotations

from typing import LiteralString

#: ``attempt`` is the run's, NULL where the body was executed untracked; ``ended`` NULL where it did not end.
#: ``accepted`` are the calls that raised nothing, each with the id of what comes last.
TABLES: LiteralString = """
    CREATE TABLE body (
        id BIGINT GENERATED ALWAYS AS IDENTITY, task TEXT NOT NULL, task_id TEXT NOT NULL, attempt INT,
        retries INT NOT NULL, pid INT NOT NULL, began TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), ended TIMESTAMPTZ
    );
    CREATE TABLE accepted (kind TEXT NOT NULL, task_id TEXT NOT NULL);
"""
