"""Two upgrades at once, an upgrade after an upgrade, and every way in which a server may be named."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db import schema
from spine_migrate.db.queries import query
from tests.database import Database
from tests.integration.test_schema_structure import REPOSITORY, alembic
from tests.structure import everything

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = %(oid)s"


def wait_for_waiters(connection: psycopg.Connection[tuple[int]], number: int) -> None:
    """Polls without a limit of its own; pytest's timeout is one."""
    row = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert row is not None
    while connection.execute(WAITING, {"oid": row[0]}).fetchone() != (number,):
        time.sleep(0.02)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_two_upgrades_at_once(isolation: str, database: Database) -> None:
    """Both reach the lock before either works; one works, the other finds it done, whatever the role's default."""
    with database.connect_admin() as admin:
        admin.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}").format(
                sql.Identifier(database.name), sql.Literal(isolation)
            )
        )
    with database.connect_admin() as holder:
        holder.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        holder.execute(query("schema", "lock_revisions"))
        racers = [
            subprocess.Popen(
                [sys.executable, "-m", "alembic", "upgrade", "head"],
                cwd=REPOSITORY,
                env={**os.environ, "SPINE_TARGET_URL": database.url},
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        wait_for_waiters(holder, 2)
        holder.rollback()
        said = [racer.communicate()[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    assert sorted("Running upgrade" in words for words in said) == [False, True]
    assert schema.current(database.url).current


def test_a_second_upgrade_changes_nothing(database: Database) -> None:
    first = schema.upgrade(database.url)
    assert first.changed
    assert (first.before.revision, first.after.revision) == (None, "spine_0009")
    before = everything(database.url)

    second = schema.upgrade(database.url)

    assert not second.changed
    assert second.after == first.after == schema.current(database.url)
    assert everything(database.url) == before


def test_a_downgrade_of_nothing_leaves_nothing(database: Database) -> None:
    before = everything(database.url)
    assert not schema.downgrade(database.url, revision="base").changed
    assert everything(database.url) == before


def test_the_driver_says_nothing(
    database: Database, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Alembic neither prints nor logs at a level that a program without logging set up would show."""
    schema.upgrade(database.url)
    schema.upgrade_sql()
    schema.current(database.url)
    schema.downgrade(database.url, revision="base")
    assert capfd.readouterr() == ("", "")
    told = [record for record in caplog.records if record.name.startswith(("alembic", "sqlalchemy", "spine_migrate"))]
    assert [record for record in told if record.levelno >= logging.WARNING] == []


def libpq_environment(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return {
        "PGHOST": asked.get("host") or parts.hostname or "",
        "PGPORT": asked.get("port") or str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path[1:]),
    }


def conninfo(given: Mapping[str, str]) -> str:
    return " ".join(
        f"{name.removeprefix('PG').lower().replace('database', 'dbname')}='{it}'" for name, it in given.items()
    )


def test_every_way_to_name_a_server(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL, also under the second variable; key=value pairs; nothing but PG* variables."""
    libpq = libpq_environment(database.url)
    schema.upgrade(conninfo(libpq))

    for environment in (
        {"SPINE_TARGET_URL": database.url},
        {"SPINE_TARGET_URL": conninfo(libpq)},
        {"SPINE_TARGET_URL": "", "SPINE_DATABASE_URL": database.url},
        {"SPINE_TARGET_URL": "", "SPINE_DATABASE_URL": "", **libpq},
    ):
        done = alembic(database, "current", **environment)
        assert (done.returncode, done.stdout.split()) == (0, ["spine_0009", "(head)"]), done.stderr

    for name, value in libpq.items():
        monkeypatch.setenv(name, value)
    assert schema.current("").revision == "spine_0009"


def test_asking_plain_alembic_changes_nothing(database: Database) -> None:
    before = everything(database.url)
    done = alembic(database, "current")
    assert done.returncode == 0, done.stderr
    assert everything(database.url) == before
