"""What stops an upgrade or a downgrade: one clear sentence, the right exit code, and nothing half done."""

from __future__ import annotations

import pytest
from psycopg import sql

from spine_migrate.db import schema
from spine_migrate.errors import ConfigurationError, Refused, ServerFault
from tests.conftest import StartServer
from tests.database import Database, create_role, url_for
from tests.integration.test_schema_structure import alembic, create_schema, run_script
from tests.ports import free_port
from tests.structure import everything

RUN = "INSERT INTO runs (kind, name) VALUES ('task', 'a')"


def refused(database: Database, precondition: str, act: str = "upgrade", /, **options: str) -> str:
    """The sentence of the refusal; asserts that the database is as it was."""
    before = everything(database.url)
    with pytest.raises(Refused) as caught:
        getattr(schema, act)(database.url, **options)
    assert caught.value.precondition == precondition
    assert caught.value.exit_code == 3
    assert everything(database.url) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("ddl", "name"),
    [
        ("CREATE TABLE runs (id int)", 'table "public"."runs"'),
        ("CREATE VIEW run_events AS SELECT 1", 'view "public"."run_events"'),
        ("CREATE SEQUENCE run_fence", 'sequence "public"."run_fence"'),
        ("CREATE TABLE run_guard (id int)", 'table "public"."run_guard"'),
        ("CREATE SCHEMA spine_migrate; CREATE TABLE spine_migrate.audit (id int)", 'table "spine_migrate"."audit"'),
        # Not a table of ours but the name of one of our indexes; the server itself refuses.
        ("CREATE TABLE t (id int); CREATE INDEX uq_idempotency ON t (id)", '"uq_idempotency"'),
    ],
)
def test_a_name_that_is_taken(ddl: str, name: str, database: Database) -> None:
    """Nobody's table is taken over, and none of ours is left beside it."""
    run_script(database, ddl)
    assert name in refused(database, "target-name-free")


def test_a_foreign_table_on_plain_alembic(database: Database) -> None:
    run_script(database, "CREATE TABLE runs (id int)")
    before = everything(database.url)
    done = alembic(database, "upgrade", "head")
    assert done.returncode != 0
    assert '"runs" already exists' in done.stderr
    assert everything(database.url) == before


def test_the_same_name_in_another_schema_is_no_obstacle(database: Database) -> None:
    run_script(database, "CREATE TABLE runs (id int); CREATE SCHEMA spine")
    schema.upgrade(database.url, target_schema="spine")
    with pytest.raises(Refused, match='"public"'):
        schema.downgrade(database.url, revision="base")
    schema.downgrade(database.url, target_schema="spine", revision="base")
    with database.connect() as connection:
        assert connection.execute("SELECT id FROM runs").fetchall() == []


def test_a_missing_target_schema(database: Database) -> None:
    assert 'The target schema "nowhere" does not exist' in refused(
        database, "target-schema-exists", target_schema="nowhere"
    )


def test_a_search_path_without_a_schema(database: Database) -> None:
    with database.connect_admin() as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} SET search_path = nowhere").format(sql.Identifier(database.name)))
    assert "--target-schema" in refused(database, "target-schema-exists")


@pytest.mark.parametrize("act", ["upgrade", "downgrade"])
def test_another_target_schema_than_before(act: str, database: Database) -> None:
    """One database has one set of target tables; a second schema is neither filled nor emptied by mistake."""
    create_schema(database, "one")
    create_schema(database, "two")
    schema.upgrade(database.url, target_schema="one", revision="spine_0002")
    options = {"revision": "base"} if act == "downgrade" else {}
    sentence = refused(database, "target-schema-unchanged", act, target_schema="two", **options)
    assert 'in schema "one", not in "two"' in sentence


def test_another_target_schema_on_plain_alembic(database: Database) -> None:
    """One line, no traceback."""
    create_schema(database, "one")
    schema.upgrade(database.url, target_schema="one")
    before = everything(database.url)
    done = alembic(database, "downgrade", "base")
    assert done.returncode != 0
    assert 'in schema "one", not in "public"' in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert everything(database.url) == before


@pytest.mark.parametrize("grant", ["nothing", "the database only", "the target schema only"])
def test_a_role_without_the_privilege(grant: str, database: Database) -> None:
    role = database.add_role("app")
    names = {"role": sql.Identifier(role.name), "database": sql.Identifier(database.name)}
    with database.connect_admin() as admin:
        admin.execute("REVOKE CREATE ON SCHEMA public FROM public")
        if grant == "the database only":
            admin.execute(sql.SQL("GRANT CREATE ON DATABASE {database} TO {role}").format(**names))
        elif grant == "the target schema only":
            admin.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {role}").format(**names))
    before = everything(database.url)
    with pytest.raises(Refused, match="permission denied for") as caught:
        schema.upgrade(database.url_as(role))
    assert caught.value.exit_code == 3
    assert "needs CREATE" in str(caught.value)
    assert everything(database.url) == before


def test_a_read_only_server(database: Database) -> None:
    with database.connect_admin() as admin:
        admin.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(sql.Identifier(database.name))
        )
    assert "connect to the primary" in refused(database, "read-only")
    assert schema.current(database.url).revision is None


def test_a_lock_that_another_session_holds(database: Database) -> None:
    """The application's open transaction is not waited for, and nobody queues behind us, for longer than the limit."""
    schema.upgrade(database.url, revision="spine_0001")
    with database.connect() as application:
        application.execute(RUN)
        sentence = refused(database, "lock-in-time", lock_timeout="100ms")
        application.commit()
    assert "--lock-timeout" in sentence
    assert schema.upgrade(database.url).after.current


@pytest.mark.parametrize("bad", ["5 parsecs", "0", "", "5s; DROP TABLE runs", "-1s"])
def test_a_lock_timeout_that_is_no_duration(bad: str, database: Database) -> None:
    with pytest.raises(ConfigurationError, match="not a duration"):
        schema.upgrade(database.url, lock_timeout=bad)
    with pytest.raises(ConfigurationError, match="not a duration"):
        schema.upgrade_sql(lock_timeout=bad)


def test_an_empty_target_schema(database: Database) -> None:
    """What an unset shell variable becomes does not mean the search_path."""
    with pytest.raises(ConfigurationError, match="empty"):
        schema.upgrade(database.url, target_schema="")
    with pytest.raises(ConfigurationError, match="empty"):
        schema.upgrade_sql(target_schema="")


@pytest.mark.parametrize("act", [schema.upgrade, schema.downgrade])
def test_an_unknown_revision(act: object, database: Database) -> None:
    assert callable(act)
    with pytest.raises(
        ConfigurationError,
        match=f"known are base, {', '.join(f'spine_000{number}' for number in range(1, 10))} and head",
    ):
        act(database.url, revision="spine_9999")
    with pytest.raises(ConfigurationError, match="no revision"):
        schema.downgrade_sql(revision="spine_9999")


def test_a_database_that_a_newer_version_made(database: Database) -> None:
    database.arrange(schema.upgrade)
    run_script(database, "UPDATE spine_migrate.alembic_version SET version_num = 'spine_0099'")
    assert "spine_0099" in refused(database, "revision-known")
    assert "spine_0099" in refused(database, "revision-known", "downgrade", revision="base")
    assert schema.current(database.url).revision == "spine_0099"


def test_a_downgrade_upwards(database: Database) -> None:
    schema.upgrade(database.url, revision="spine_0001")
    assert "stands at spine_0001" in refused(database, "revision-below", "downgrade", revision="spine_0002")


@pytest.mark.parametrize(
    ("ddl", "revision", "table"),
    [
        (RUN, "base", '"public"."runs"'),
        (
            "INSERT INTO spine_migrate.audit (tool_version, action) VALUES ('0', 'plan')",
            "spine_0002",
            '"spine_migrate"."audit"',
        ),
        (
            "INSERT INTO run_guard VALUES ('feed', '1', 1, 'w', now())",
            "spine_0003",
            '"public"."run_guard"',
        ),
    ],
)
def test_rows_that_a_downgrade_would_drop(ddl: str, revision: str, table: str, database: Database) -> None:
    """Refused by name unless forced; tables below the revision may keep their rows."""
    database.arrange(schema.upgrade)
    run_script(database, ddl)
    assert table in refused(database, "downgrade-drops-no-rows", "downgrade", revision=revision)
    assert schema.downgrade(database.url, revision=revision, force=True).changed


def test_rows_below_the_revision_are_no_obstacle(database: Database) -> None:
    database.arrange(schema.upgrade)
    run_script(database, RUN)
    schema.downgrade(database.url, revision="spine_0001")
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_a_table_that_refers_to_runs(database: Database) -> None:
    """A downgrade never cascades."""
    database.arrange(schema.upgrade)
    run_script(database, "CREATE TABLE report (run_id uuid REFERENCES runs)")
    assert "report" in refused(database, "nothing-depends-on-it", "downgrade", revision="base")


def test_a_wrong_password_and_no_server(start_server: StartServer) -> None:
    """The password is in no sentence."""
    port = free_port()
    server = start_server(port=port)
    role = create_role(server.url(), "someone")
    right = f"postgresql://someone:{role.password}@127.0.0.1:{port}/postgres"
    wrong = right.replace(role.password, "wr0ng-secret")
    assert schema.current(right).revision is None
    for act in (schema.upgrade, schema.current):
        with pytest.raises(ConfigurationError, match="Cannot log in") as caught:
            act(wrong)
        assert caught.value.exit_code == 2
        assert "wr0ng-secret" not in str(caught.value)
    server.stop()
    with pytest.raises(ServerFault) as gone:
        schema.upgrade(right)
    assert gone.value.exit_code == 5
    assert role.password not in str(gone.value)


@pytest.mark.parametrize("bad", ["s3cret", "postgresql://u:s3cret@[", "postgresql+psycopg://u:s3cret@h/d"])
def test_a_target_that_is_no_url(bad: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        schema.current(bad)
    assert "s3cret" not in str(caught.value)


def test_no_such_database(server_url: str) -> None:
    with pytest.raises(ConfigurationError, match="no_such_database"):
        schema.upgrade(url_for(server_url, "no_such_database"))
