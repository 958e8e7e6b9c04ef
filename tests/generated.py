"""Generated legacy rows beside an installed target: made once in a session, copied for each test that begins so."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from spine_migrate.db import schema
from spine_migrate.demo.generate import generate
from tests.database import Database


@dataclass(frozen=True)
class Rows:
    """``events`` are those of each execution, on average."""

    executions: int
    seed: int
    jobs: int = 0
    events: float = 4
    awkward: float = 1.0


def generated(
    database: Database, *, executions: int, seed: int, jobs: int = 0, events: float = 4, awkward: float = 1.0
) -> None:
    """As after ``spine-migrate db upgrade`` at an application that has run for a while."""
    database.arrange(install, Rows(executions, seed, jobs, events, awkward))


def install(url: str, rows: Rows) -> None:
    with psycopg.connect(url) as connection:
        generate(
            connection,
            executions=rows.executions,
            events_per_execution=rows.events,
            jobs=rows.jobs,
            seed=rows.seed,
            awkward=rows.awkward,
        )
    schema.upgrade(url)
