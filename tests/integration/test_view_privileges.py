"""Who might do what with the legacy table may do it with the view, and nothing else with what is beneath it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from tests.database import Database, Role
from tests.legacy import build
from tests.views import switch

Connection = psycopg.Connection[Any]

_GRANTS: LiteralString = (
    "SELECT x.grantee::regrole::text, a.attname::text, x.privilege_type, x.is_grantable FROM pg_class c"
    " CROSS JOIN LATERAL (SELECT NULL::name AS attname, c.relacl AS acl UNION ALL"
    " SELECT t.attname, t.attacl FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL) AS a"
    " CROSS JOIN LATERAL aclexplode(a.acl) AS x WHERE c.oid = %s::regclass AND x.grantee <> c.relowner ORDER BY 1, 2, 3"
)


@pytest.fixture
def writer(database: Database) -> Role:
    return database.add_role("writer")


@pytest.fixture
def reader(database: Database) -> Role:
    return database.add_role("reader")


@pytest.fixture
def switched(database: Database, writer: Role, reader: Role) -> Iterator[Connection]:
    """The owner's connection; new tables are open to the reader by default, which the old ones were not."""
    legacy = build(database)
    names = {"writer": sql.Identifier(writer.name), "reader": sql.Identifier(reader.name)}
    for statement in (
        "GRANT SELECT, INSERT, UPDATE (status, error), DELETE ON executions TO {writer} WITH GRANT OPTION",
        "GRANT SELECT (execution_id, status) ON executions TO {reader}",
        "GRANT SELECT ON executions TO PUBLIC",
        "REVOKE SELECT ON executions FROM PUBLIC",
        "GRANT INSERT (job_type), SELECT ON jobs TO {writer}",
        "GRANT SELECT ON jobs TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {reader}, PUBLIC",
    ):
        legacy.execute(sql.SQL(statement).format(**names))
    with connect(database.url) as tool:
        switch(tool, "capture-spine/executions")
        switch(tool, "capture-spine/jobs")
    with psycopg.connect(database.url, autocommit=True) as connection:
        yield connection


def test_the_view_has_the_privileges_of_the_table(switched: Connection) -> None:
    for table in ("executions", "jobs"):
        expected = switched.execute(_GRANTS, (f"{table}_legacy",)).fetchall()
        assert expected
        assert switched.execute(_GRANTS, (table,)).fetchall() == expected
        owners = "SELECT DISTINCT relowner FROM pg_class WHERE relname IN (%s, %s)"
        assert len(switched.execute(owners, (table, f"{table}_legacy")).fetchall()) == 1


def test_a_role_with_privileges_on_the_view_alone_writes_through_it(
    switched: Connection, database: Database, writer: Role
) -> None:
    """Identity values too, for which the table asked nobody for a privilege on its sequence."""
    with psycopg.connect(database.url_as(writer), autocommit=True) as connection:
        connection.execute("INSERT INTO executions (pipeline_name) VALUES ('p') RETURNING *")
        connection.execute("UPDATE executions SET status = 'failed', error = 'e'")
        connection.execute("SELECT * FROM executions WHERE status = 'failed'")
        ((first,),) = connection.execute("INSERT INTO jobs (job_type) VALUES ('t') RETURNING job_id").fetchall()
        assert first == 1
        connection.execute("DELETE FROM executions")
    assert switched.execute("SELECT count(*) FROM runs").fetchone() == (1,)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE executions SET pipeline_name = 'q'",
        "INSERT INTO jobs (job_type, attempts) VALUES ('t', 1)",
        "UPDATE jobs SET attempts = 1",
        "SELECT * FROM runs",
        "INSERT INTO runs (kind, name) VALUES ('pipeline', 'p')",
        "SELECT * FROM spine_migrate.link",
        "SELECT spine_migrate.view_2_next_1()",
        "TRUNCATE runs",
    ],
)
def test_and_can_do_no_more(switched: Connection, database: Database, writer: Role, statement: LiteralString) -> None:
    with (
        psycopg.connect(database.url_as(writer), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_nobody_else_puts_the_functions_on_a_table_of_his_own(
    switched: Connection, database: Database, writer: Role
) -> None:
    """They run as the tool's role; on another's table they would let it write runs."""
    switched.execute(sql.SQL("GRANT USAGE ON SCHEMA spine_migrate TO {}").format(sql.Identifier(writer.name)))
    with psycopg.connect(database.url_as(writer), autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY VIEW mine AS SELECT * FROM executions")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "CREATE TRIGGER t INSTEAD OF INSERT ON mine FOR EACH ROW EXECUTE FUNCTION spine_migrate.view_1_insert()"
            )


def test_a_reader_of_columns_reads_those(switched: Connection, database: Database, reader: Role) -> None:
    with psycopg.connect(database.url_as(reader), autocommit=True) as connection:
        connection.execute("SELECT execution_id, status FROM executions")
        connection.execute("SELECT * FROM jobs")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT error FROM executions")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM jobs")
