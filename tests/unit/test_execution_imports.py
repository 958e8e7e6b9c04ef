"""An application's worker starts fast: the runtime loads no driver, no broker and nothing of the migration's side."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

HEAVY = {"psycopg", "psycopg_pool", "sqlalchemy", "alembic", "click", "rich", "celery", "kombu", "redis", "tenacity"}
#: A line of -X importtime: its times, and the module's name, indented by depth.
_LINE = re.compile(r"^import time: +\d+ \| +\d+ \| +(?P<name>\S+)$", re.MULTILINE)


def imported_by(module: str) -> set[str]:
    """Every module that a fresh interpreter imports for this one."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"], check=True, capture_output=True, text=True
    )
    return set(_LINE.findall(ended.stderr))


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    "module",
    [
        "spine_migrate.execution",
        "spine_migrate.execution.worker",
        "spine_migrate.execution.relay",
        "spine_migrate.execution.ledgers.memory",
        "spine_migrate.execution.guards.memory",
    ],
)
def test_the_runtime_loads_the_standard_library_alone(module: str) -> None:
    found = imported_by(module)
    assert module in found
    ours = {name for name in found if name.startswith("spine_migrate.")}
    assert {name for name in ours if not name.startswith("spine_migrate.execution")} == {"spine_migrate.errors"}
    assert packages(found) & HEAVY == set()
    # What .pth files load is there before any import of ours; copy looks for org.python, which only Jython has.
    there_before = packages(imported_by("sys"))
    assert packages(found) - there_before <= {"spine_migrate", "org", *sys.stdlib_module_names}


def test_the_ledger_in_postgres_loads_its_driver_and_nothing_else() -> None:
    loaded = packages(imported_by("spine_migrate.execution.ledgers.postgres"))
    assert loaded & HEAVY == {"psycopg", "psycopg_pool"}
