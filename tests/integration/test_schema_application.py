"""The revisions inside an application's own Alembic environment, beside its own revisions and its own version table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from spine_migrate.db import schema
from spine_migrate.resources import alembic_dir
from tests.database import Database
from tests.integration.test_schema_structure import create_schema, run_script
from tests.structure import everything, structure

# An application's own, whichever it has; asyncpg in an environment that is asynchronous.
DRIVERS = ("psycopg", "psycopg2", "asyncpg")

# As `alembic init` writes it, with the naming convention that many applications have.
ENV = """\
import os
import sqlalchemy as sa
from alembic import context

metadata = sa.MetaData(naming_convention={
    "ix": "ix_%(column_0_label)s", "uq": "uq_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
})
if context.is_offline_mode():
    context.configure(url="postgresql+psycopg://", target_metadata=metadata, literal_binds=True,
                      dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = sa.create_engine(os.environ["APP_URL"], poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=metadata)
        with context.begin_transaction():
            context.run_migrations()
"""

# As `alembic init -t async` writes it.
ASYNC_ENV = """\
import asyncio
import os
import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine


def do_run_migrations(connection):
    context.configure(connection=connection, target_metadata=sa.MetaData())
    with context.begin_transaction():
        context.run_migrations()


async def run_async_migrations():
    connectable = create_async_engine(os.environ["APP_URL"], poolclass=sa.pool.NullPool)
    async with connectable.connect() as connection:
        await connection.run_sync(do_run_migrations)
    await connectable.dispose()


asyncio.run(run_async_migrations())
"""

OWN_REVISION = """\
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = ("app",)


def upgrade():
    op.execute("CREATE SCHEMA app")
    op.create_table("users", sa.Column("id", sa.Integer(), primary_key=True), schema="app")


def downgrade():
    op.drop_table("users", schema="app")
    op.execute("DROP SCHEMA app")
"""


class Application:
    def __init__(
        self, folder: Path, database: Database, *, target_schema: str | None = None, driver: str = "psycopg"
    ) -> None:
        self.folder = folder
        self.database = database
        self.driver = driver
        (folder / "migrations" / "versions").mkdir(parents=True)
        written = ASYNC_ENV if driver == "asyncpg" else ENV
        (folder / "migrations" / "env.py").write_text(written, encoding="utf-8")
        (folder / "migrations" / "versions" / "0001_users.py").write_text(OWN_REVISION, encoding="utf-8")
        chosen = "" if target_schema is None else f"spine_target_schema = {target_schema.replace('%', '%%')}\n"
        self.locate("versions", more=chosen)

    def locate(self, *ours: str, more: str = "") -> None:
        """The application's own revisions, and those in these folders of ours."""
        places = os.pathsep.join(["%(here)s/migrations/versions", *(str(alembic_dir() / one) for one in ours)])
        (self.folder / "alembic.ini").write_text(
            "[alembic]\n"
            "script_location = %(here)s/migrations\n"
            "path_separator = os\n"
            "version_path_separator = os\n"
            f"version_locations = {places}\n"
            f"{more}",
            encoding="utf-8",
        )

    def alembic(self, *arguments: str) -> str:
        done = self.attempt(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=self.folder,
            env={**os.environ, "APP_URL": self.database.url.replace("postgresql://", f"postgresql+{self.driver}://")},
            check=False,
            capture_output=True,
            text=True,
        )

    def heads(self) -> set[str]:
        with psycopg.connect(self.database.url) as connection:
            return {name for (name,) in connection.execute("SELECT version_num FROM public.alembic_version")}


@pytest.fixture
def reference(database: Database) -> set[tuple[str, ...]]:
    schema.upgrade(database.url)
    facts = structure(database.url)
    schema.downgrade(database.url, revision="base")
    return facts


@pytest.mark.parametrize("driver", DRIVERS)
def test_both_heads_go_up_and_down(
    tmp_path: Path, database: Database, reference: set[tuple[str, ...]], driver: str
) -> None:
    """Our chain is a second head beside the application's; its naming convention renames nothing of ours."""
    before = everything(database.url)
    application = Application(tmp_path, database, driver=driver)

    application.alembic("upgrade", "heads")
    assert application.heads() == {"0001", "spine_0009"}
    assert structure(database.url) == reference

    application.alembic("downgrade", "spine_expand@base")
    assert application.heads() == {"0001"}
    assert structure(database.url) == set()

    application.alembic("upgrade", "spine_expand@head")
    assert structure(database.url) == reference
    application.alembic("downgrade", "base")
    left = everything(database.url) - before
    assert {name for kind, name in left if kind == "relation"} == {"alembic_version", "alembic_version_pkc"}


def test_an_application_may_do_without_the_ledger(tmp_path: Path, database: Database) -> None:
    application = Application(tmp_path, database)
    application.alembic("upgrade", "spine_0002")
    tables = {fact[1:3] for fact in structure(database.url) if fact[0] == "relation" and fact[3] == "r"}
    assert tables == {("target", "runs"), ("target", "run_events")}


@pytest.mark.parametrize("how", ["main option", "argument"])
def test_the_application_chooses_the_target_schema(
    how: str, tmp_path: Path, database: Database, reference: set[tuple[str, ...]]
) -> None:
    name = 'App%s "x"'
    create_schema(database, name)
    application = Application(tmp_path, database, target_schema=name if how == "main option" else None)
    arguments = ("-x", f"target_schema={name}") if how == "argument" else ()

    application.alembic(*arguments, "upgrade", "heads")
    assert structure(database.url, name) == reference

    application.alembic(*arguments, "downgrade", "spine_expand@base")
    assert structure(database.url, name) == set()


def test_the_application_prints_the_sql(tmp_path: Path, database: Database, reference: set[tuple[str, ...]]) -> None:
    application = Application(tmp_path, database)
    run_script(database, application.alembic("upgrade", "spine_expand@head", "--sql"))
    assert structure(database.url) == reference
    assert application.heads() == {"spine_0009"}
