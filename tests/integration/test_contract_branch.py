"""The branch spine_contract in an application's own deploy: it refuses by name until retire was allowed, then drops."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from spine_migrate.demo.generate import create_legacy
from tests.command import run
from tests.cutting import Pair
from tests.database import Database
from tests.integration.test_schema_application import DRIVERS, Application
from tests.legacy import Legacy, uuid
from tests.waiting import WAITING

_NOW = ("--after-days", "0")


def _begun(tmp_path: Path, database: Database, driver: str = "psycopg") -> Application:
    """Its legacy tables, and the target from its own environment, which knows nothing of the contract branch yet."""
    with database.connect() as connection:
        create_legacy(connection)
    application = Application(tmp_path, database, driver=driver)
    application.alembic("upgrade", "heads")
    return application


@pytest.fixture
def application(tmp_path: Path, database: Database) -> Application:
    return _begun(tmp_path, database)


@pytest.fixture
def legacy(application: Application) -> Legacy:
    legacy = Legacy(application.database.url)
    legacy.many_executions(5)
    return legacy


def _gone(legacy: Legacy) -> bool:
    return bool(legacy.value("SELECT to_regclass('executions') IS NULL AND to_regclass('executions_legacy') IS NULL"))


def _refused(application: Application) -> str:
    done = application.attempt("upgrade", "spine_contract@head")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    assert "spine_contract_0001" not in application.heads()
    return " ".join(done.stdout.split())


def test_expand_is_safe_at_any_time_and_contract_waits_for_retire(
    application: Application, legacy: Legacy, tmp_path: Path
) -> None:
    """Each step's refusal says what is missing for which table; then the deploy drops it, once."""
    application.locate("versions", "contract")
    assert "nothing has been migrated" in _refused(application)
    pair = Pair(legacy)
    pair.begin()
    said = _refused(application)
    assert 'capture-spine/executions ("public"."executions"): it is in step done' in said, said
    assert "capture-spine/execution_events" in said
    application.alembic("upgrade", "spine_expand@head")
    pair.switch()
    assert "retire was not allowed yet, which spine-migrate retire --allow does" in _refused(application)
    archive = str(tmp_path / "archive")
    allowed = run(legacy.url, "retire", *_NOW, "--archive", archive, "--allow", "--yes")
    assert allowed.returncode == 0, allowed.stderr
    legacy.execute("UPDATE runs SET error = 'new side' WHERE run_id = %s", uuid(1))
    application.alembic("upgrade", "heads")
    assert _gone(legacy)
    assert "spine_contract_0001" in application.heads()
    assert legacy.value("SELECT count(*) FROM spine_migrate.capture") == 0
    assert legacy.value("SELECT DISTINCT retired_how FROM spine_migrate.retirement") == "spine_contract"
    assert legacy.value("SELECT count(*) FROM runs WHERE error = 'new side'") == 1
    application.alembic("upgrade", "heads")
    again = run(legacy.url, "retire", "--yes")
    assert (again.returncode, archive in again.stdout) == (0, True), again.stderr
    back = application.attempt("downgrade", "spine_contract@base")
    assert back.returncode != 0
    assert "archive restore" in " ".join(back.stdout.split())
    assert "Traceback" not in back.stderr


@pytest.mark.parametrize("driver", [one for one in DRIVERS if one != "psycopg"])
def test_by_the_application_s_own_driver(tmp_path: Path, database: Database, driver: str) -> None:
    """What the server says is the sentence, whoever reads it."""
    application = _begun(tmp_path, database, driver)
    application.locate("versions", "contract")
    assert "FAILED: spine_contract: the legacy tables cannot be dropped: nothing has been migrated" in _refused(
        application
    )
    legacy = Legacy(database.url)
    legacy.many_executions(5)
    pair = Pair(legacy)
    pair.begin()
    pair.switch()
    said = _refused(application)
    assert "retire was not allowed yet, which spine-migrate retire --allow does" in said, said
    assert "asyncpg" not in said
    done = run(legacy.url, "retire", *_NOW, "--archive", str(tmp_path / "archive"), "--allow", "--yes")
    assert done.returncode == 0, done.stderr
    legacy.execute("CREATE VIEW hanging AS SELECT count(*) FROM executions_legacy")
    said = _refused(application)
    assert "hanging" in said, said
    legacy.execute("DROP VIEW hanging")
    application.alembic("upgrade", "heads")
    assert _gone(legacy)
    back = application.attempt("downgrade", "spine_contract@base")
    assert "archive restore" in " ".join(back.stdout.split())


def test_what_has_changed_since_it_was_allowed_closes_it_again(
    application: Application, legacy: Legacy, tmp_path: Path
) -> None:
    """A write through the view, a row of the legacy table, a rollback."""
    application.locate("versions", "contract")
    pair = Pair(legacy)
    pair.begin()
    pair.switch()

    def allow(name: str) -> None:
        done = run(legacy.url, "retire", *_NOW, "--archive", str(tmp_path / name), "--allow", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr

    allow("first")
    legacy.execute("UPDATE executions SET error = 'late' WHERE execution_id = %s", uuid(1))
    assert "written through the view since retire was allowed" in _refused(application)
    assert run(legacy.url, "retire", "--revoke").returncode == 0
    pair.apply()
    allow("second")
    legacy.execute("UPDATE executions_legacy SET error = 'beside' WHERE execution_id = %s", uuid(2))
    assert "its rows have changed since retire was allowed" in _refused(application)
    refused = run(legacy.url, "retire", *_NOW, "--yes")
    assert (refused.returncode, "CLOSED  parity" in refused.stdout) == (3, True), refused.stdout + refused.stderr
    legacy.execute("ALTER TABLE executions_legacy RENAME TO elsewhere")
    assert '("public"."executions_legacy") is not there any more' in _refused(application)
    legacy.execute("ALTER TABLE elsewhere RENAME TO executions_legacy")
    pair.back()
    assert "it is in step done" in _refused(application)
    assert not _gone(legacy)


def test_it_waits_for_a_moment_at_a_time(application: Application, legacy: Legacy, tmp_path: Path) -> None:
    """While somebody reads the target in a transaction it is tried again and again, and others get in between."""
    application.locate("versions", "contract")
    pair = Pair(legacy)
    pair.begin()
    pair.switch()
    done = run(legacy.url, "retire", *_NOW, "--archive", str(tmp_path / "archive"), "--allow", "--yes")
    assert done.returncode == 0, done.stderr
    with legacy.connect() as reader, legacy.connect() as other:
        # So that a reader who does not get in fails; how long one attempt takes is not what this is about.
        other.execute("SET statement_timeout = '60s'")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs")
        deploy = threading.Thread(target=application.alembic, args=("upgrade", "heads"))
        deploy.start()
        tried = WAITING + " AND l.relation = 'runs'::regclass"
        while not other.execute(tried).fetchall():
            assert deploy.is_alive()
        other.execute("SELECT count(*) FROM runs")
        assert not _gone(legacy)
        reader.execute("COMMIT")
        deploy.join()
    assert _gone(legacy)


def test_where_retire_was_there_before_it_has_nothing_to_do(application: Application, legacy: Legacy) -> None:
    pair = Pair(legacy)
    pair.begin()
    pair.switch()
    done = run(legacy.url, "retire", *_NOW, "--without-archive", "a test", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    application.locate("versions", "contract")
    application.alembic("upgrade", "heads")
    assert "spine_contract_0001" in application.heads()
    assert legacy.value("SELECT DISTINCT retired_how FROM spine_migrate.retirement") == "retire"
    kept = run(legacy.url, "db", "downgrade", "spine_0008", "--yes")
    assert kept.returncode != 0
    assert legacy.value("SELECT count(*) FROM spine_migrate.retirement") == 2
