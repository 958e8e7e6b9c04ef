"""The database fixtures keep what tests/conftest.py promises."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql

from spine_migrate.db import schema
from spine_migrate.db.embedded import EmbeddedServer
from tests.database import Database, Role, fresh_database, url_for
from tests.processes import lives
from tests.structure import structure
from tests.waiting import until


def test_the_owner_is_an_ordinary_role_that_may_create_schemas(database: Database) -> None:
    with database.connect() as connection:
        flags = connection.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles"
            " WHERE rolname = session_user"
        ).fetchone()
        connection.execute("CREATE SCHEMA app")
        connection.execute("CREATE TABLE app.t (a int)")
        connection.execute("CREATE TABLE t (a int)")
    assert flags == (False,) * 5


def test_the_admin_is_a_superuser_of_the_same_database(database: Database) -> None:
    with database.connect_admin() as admin, database.connect() as connection:
        assert admin.execute("SHOW is_superuser").fetchone() == ("on",)
        here = connection.execute("SELECT current_database()").fetchone()
        assert admin.execute("SELECT current_database()").fetchone() == here == (database.name,)


def test_each_test_has_a_database_of_its_own(database: Database, server_url: str, owner: Role) -> None:
    """The second is empty although the first holds a table, and it is gone afterwards although a session is open."""
    with database.connect() as connection:
        connection.execute("CREATE TABLE kept (a int)")
    with fresh_database(server_url, f"{database.name}_2", owner) as second:
        left_open = second.connect()
        assert left_open.execute("SELECT to_regclass('kept')").fetchone() == (None,)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(second.url)


def test_what_is_copied_is_what_was_made(server_url: str, owner: Role) -> None:
    """Each copy is its own; the copied one is nobody's. Where something was done already, it is made in place."""
    with ExitStack() as opened:
        made, first, second, used = (
            opened.enter_context(fresh_database(server_url, f"{owner.name}_{name}", owner))
            for name in ("made", "first", "second", "used")
        )
        schema.upgrade(made.url)
        used.url  # noqa: B018 - asking for it creates it
        for database in (first, second, used):
            database.arrange(schema.upgrade)
            with database.connect() as connection:
                connection.execute("INSERT INTO runs (kind, name) VALUES ('task', 'work')")
                assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
            assert structure(database.url) == structure(made.url)
    with psycopg.connect(server_url) as admin:
        open_to = admin.execute(
            "SELECT datallowconn FROM pg_database WHERE datname LIKE %s", [f"{owner.name}\\_template\\_%"]
        ).fetchall()
    assert set(open_to) == {(False,)}


def test_a_state_that_cannot_be_made_leaves_nothing(server_url: str, owner: Role) -> None:
    # Others' tests make and drop databases on the same server.
    ours = "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY 1"
    with psycopg.connect(server_url, autocommit=True) as admin:
        before = admin.execute(ours, [owner.name]).fetchall()
        with (
            fresh_database(server_url, f"{owner.name}_failed", owner) as database,
            pytest.raises(psycopg.errors.DivisionByZero),
        ):
            database.arrange(_divided)
        assert admin.execute(ours, [owner.name]).fetchall() == before


def _divided(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1 / 0")


def test_a_new_session_removes_what_a_killed_one_left_and_nothing_else() -> None:
    with tempfile.TemporaryDirectory(prefix="spine-sessions-") as folder:
        Path(folder).chmod(0o755)
        killed, live = Path(folder, "spine-test-killed"), Path(folder, "spine-test-live")
        start = f"server = EmbeddedServer(Path({str(killed)!r})); server.start(); os.kill(os.getpid(), signal.SIGKILL)"
        imports = "import os, signal; from pathlib import Path; from spine_migrate.db.embedded import EmbeddedServer"
        subprocess.run([sys.executable, "-c", f"{imports}; {start}"], check=False, stderr=subprocess.DEVNULL)
        orphan = psutil.Process(int((killed / "cluster" / "postmaster.pid").read_text().split()[0]))
        with EmbeddedServer(live) as server:
            outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "--collect-only",
                    "-p",
                    "no:cacheprovider",
                    "-p",
                    "pytest_timeout",
                    __file__,
                ],
                check=True,
                cwd=Path(__file__).parents[2],
                stdout=subprocess.DEVNULL,
                env={**outside, "TMPDIR": folder, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            )
            psycopg.connect(server.url()).close()
        assert not killed.exists()
        until(lambda: not lives(orphan), "The orphan is still there.")


def test_further_roles_have_no_privileges_and_go_with_the_database(server_url: str, owner: Role) -> None:
    with fresh_database(server_url, f"{owner.name}_roles", owner) as database:
        reader = database.add_role("reader")
        with database.connect() as connection:
            connection.execute("CREATE TABLE private (a int)")
        with psycopg.connect(database.url_as(reader)) as connection:
            assert connection.execute("SELECT session_user::text").fetchone() == (reader.name,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM private")
        with database.connect() as connection:
            connection.execute(sql.SQL("GRANT SELECT ON private TO {}").format(sql.Identifier(reader.name)))
    with psycopg.connect(server_url) as admin:
        found = admin.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [reader.name]).fetchall()
    assert found == []


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("postgresql://postgres@127.0.0.1:5432/postgres", "postgresql://r:pw@127.0.0.1:5432/db"),
        ("postgresql://admin:x@/postgres?host=%2Ftmp%2Fa&port=5432", "postgresql://r:pw@/db?host=%2Ftmp%2Fa&port=5432"),
    ],
    ids=["tcp", "socket"],
)
def test_url_for_replaces_login_and_database_only(server: str, expected: str) -> None:
    assert url_for(server, "db", Role("r", "pw")) == expected
