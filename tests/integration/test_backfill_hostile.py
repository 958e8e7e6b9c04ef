"""Sessions that a role, a database or somebody with a schema has prepared for us, and tables that must not be read or
written as we are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.errors import Refused, ServerFault
from tests.database import Database
from tests.legacy import Legacy, build, differences, lost, uuid, wrong_links


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@pytest.fixture
def role(database: Database) -> Iterator[Database]:
    """The owner, who lives as long as the test session, gets its settings back."""
    yield database
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(sql.Identifier(database.owner.name)))


def configure(database: Database, setting: LiteralString) -> None:
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER ROLE {} SET " + setting).format(sql.Identifier(database.owner.name)))


@pytest.mark.parametrize(
    "setting",
    [
        "lock_timeout = '1ms'",
        "timezone = 'Asia/Kolkata'",
        "datestyle = 'SQL, DMY'",
        "default_transaction_isolation = 'serializable'",
        "enable_tidscan = off",
        "array_nulls = off",
        "quote_all_identifiers = on",
        "client_encoding = 'LATIN1'",
        "standard_conforming_strings = off",
        "synchronize_seqscans = on",
        "default_text_search_config = 'pg_catalog.german'",
        "work_mem = '64kB'",
    ],
)
def test_settings_of_the_role_change_nothing(legacy: Legacy, role: Database, setting: LiteralString) -> None:
    legacy.many_executions(200)
    legacy.executions(301, pipeline_name="日本 \\' \\n é", params='{"日本": "\\\\ é"}')
    legacy.executions(302, pipeline_name="日本" * 60)
    legacy.executions(303, 304, idempotency_key="ключ")
    legacy.executions(305, parent_execution_id=uuid(302))
    legacy.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'task', '日本')", uuid(5))
    configure(role, setting)

    outcome = legacy.move(workers=2, batch_rows=30)

    assert outcome.quarantined == {"key_taken": 1, "too_long": 1, "unique_conflict": 1}
    with role.connect_admin() as admin:
        admin.execute("SET client_encoding = 'UTF8'")
        assert not differences(admin, "executions")
        assert not lost(admin, "executions")
        assert not wrong_links(admin)
        held = admin.execute("SELECT reason, field, sqlstate FROM spine_migrate.quarantine ORDER BY reason").fetchall()
        assert held == [("key_taken", "run_id", None), ("too_long", "name", None), ("unique_conflict", None, "23505")]


@pytest.mark.parametrize("name", ["statement_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"])
def test_timeouts_of_the_role_do_not_cut_a_batch_short(legacy: Legacy, role: Database, name: LiteralString) -> None:
    """One batch lasts longer than the timeout, and the run's other session is idle all the while."""
    legacy.many_executions(50)
    legacy.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.run_id::text LIKE '%0040' THEN"
        " PERFORM pg_sleep(6); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    configure(role, name + " = '5s'")

    assert legacy.move(batch_rows=20, retry_seconds=0).moved == 50


def test_a_read_only_server_is_told_apart(legacy: Legacy, role: Database) -> None:
    legacy.many_executions(5)
    configure(role, "default_transaction_read_only = on")

    with pytest.raises(Refused) as refused:
        legacy.move()

    assert refused.value.precondition == "read-only"


# Each would change what is moved, or who moves it, if it were called.
_TRAPS: LiteralString = """
    CREATE FUNCTION {s}.length(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
    CREATE FUNCTION {s}.length(varchar) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
    CREATE FUNCTION {s}.format(text, int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''trapped''::text';
    CREATE FUNCTION {s}.jsonb_build_object(text, text) RETURNS jsonb LANGUAGE sql IMMUTABLE
        AS 'SELECT ''{{"trapped": true}}''::jsonb';
    CREATE FUNCTION {s}.count(text) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 0::bigint';
    CREATE FUNCTION {s}.never(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
    CREATE OPERATOR {s}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = {s}.never);
    CREATE OPERATOR {s}.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = {s}.never);
    CREATE FUNCTION {s}.worse(varchar, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
    CREATE OPERATOR {s}.= (LEFTARG = varchar, RIGHTARG = text, FUNCTION = {s}.worse);
    CREATE OPERATOR {s}.<> (LEFTARG = varchar, RIGHTARG = text, FUNCTION = {s}.worse);
    CREATE FUNCTION {s}.plus(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 42';
    CREATE OPERATOR {s}.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = {s}.plus);
    CREATE DOMAIN {s}.jsonb AS text;
"""


@pytest.mark.parametrize("path", ["evil, pg_catalog, public", "public, evil", '"$user", evil, public'])
def test_functions_and_operators_of_a_hostile_schema_are_never_called(
    legacy: Legacy, database: Database, path: LiteralString
) -> None:
    """With pg_catalog first as well: a closer match of argument types beats the order of schemas."""
    legacy.execute("ALTER TABLE executions ALTER pipeline_name TYPE varchar(300), ALTER status TYPE varchar(50)")
    legacy.many_executions(20)
    legacy.executions(30, pipeline_name="n" * 150)
    legacy.executions(31, status="zombie")
    legacy.executions(32, 33, idempotency_key="k")
    legacy.add("jobs", {"job_type": "mail", "status": "done", "priority": 1})
    legacy.execute("CREATE SCHEMA evil")
    legacy.execute(sql.SQL(_TRAPS).format(s=sql.SQL("evil")))
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} SET search_path = " + path).format(sql.Identifier(database.name)))

    outcome = legacy.move(batch_rows=7)
    assert legacy.move("jobs").moved == 1

    assert outcome.quarantined == {"too_long": 1, "unknown_value": 1, "unique_conflict": 1}
    assert "150" in legacy.value("SELECT detail FROM spine_migrate.quarantine WHERE reason = 'too_long'")
    legacy.execute("DROP SCHEMA evil CASCADE")
    legacy.prove("executions", "jobs")


def test_a_trigger_that_relies_on_the_search_path_is_told_what_it_needs(legacy: Legacy) -> None:
    legacy.execute("CREATE TABLE seen (name text)")
    legacy.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN INSERT INTO seen VALUES (NEW.name); RETURN NEW; END $$;"
        "CREATE TRIGGER note BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION note()"
    )
    legacy.many_executions(5)

    with pytest.raises(Refused, match="SET search_path") as refused:
        legacy.move()

    assert refused.value.precondition == "function-search-path"
    legacy.execute("ALTER FUNCTION note() SET search_path = public")
    assert legacy.move().moved == 5
    assert legacy.value("SELECT count(*) FROM seen") == 5


@pytest.mark.parametrize("table", ["executions", "runs"])
def test_row_security_is_refused_rather_than_obeyed(legacy: Legacy, table: LiteralString) -> None:
    """A policy would hide rows; what is hidden would be lost without a word."""
    legacy.many_executions(10)
    legacy.execute(
        "CREATE POLICY hiding ON " + table + " USING (false) WITH CHECK (true);"
        "ALTER TABLE " + table + " ENABLE ROW LEVEL SECURITY;"
        "ALTER TABLE " + table + " FORCE ROW LEVEL SECURITY"
    )

    with pytest.raises(Refused, match="row-level security") as refused:
        legacy.move()

    assert refused.value.precondition in ("privilege-missing", "row-security")
    legacy.execute("ALTER TABLE " + table + " NO FORCE ROW LEVEL SECURITY")
    assert legacy.move().moved == 10
    legacy.prove()


_NEEDED: dict[str, LiteralString] = {
    "source": "REVOKE SELECT ON executions FROM mover",
    "target insert": "REVOKE INSERT ON runs FROM mover",
    "target select": "REVOKE SELECT ON runs FROM mover",
    "target update": "REVOKE UPDATE ON runs FROM mover",
    "checkpoint": "REVOKE UPDATE ON spine_migrate.checkpoint FROM mover",
    "quarantine": "REVOKE INSERT ON spine_migrate.quarantine FROM mover",
    "link": "REVOKE INSERT ON spine_migrate.link FROM mover",
    "audit": "REVOKE INSERT ON spine_migrate.audit FROM mover",
    "ledger": "REVOKE USAGE ON SCHEMA spine_migrate FROM mover",
}


@pytest.mark.parametrize("missing", list(_NEEDED))
def test_a_missing_privilege_is_named_and_nothing_is_half_done(
    legacy: Legacy, database: Database, missing: str
) -> None:
    mover = database.add_role("mover")
    legacy.many_executions(20)
    legacy.executions(50, status="zombie")
    legacy.executions(1001, parent_execution_id=uuid(1002))
    legacy.many_executions(20, first=100)
    legacy.executions(1002)
    everything = sql.SQL(
        "GRANT USAGE ON SCHEMA public, spine_migrate TO {0}; GRANT SELECT ON executions TO {0};"
        "GRANT SELECT, INSERT, UPDATE ON runs TO {0};"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA spine_migrate TO {0}"
    ).format(sql.Identifier(mover.name))
    revoked = sql.SQL(_NEEDED[missing].replace("mover", "{0}")).format(sql.Identifier(mover.name))
    with legacy.connect() as connection:
        connection.execute(everything)
        connection.execute(revoked)

    with pytest.raises((Refused, ServerFault)) as refused:
        legacy.move(url=database.url_as(mover), batch_rows=5)

    assert isinstance(refused.value, Refused)
    assert refused.value.precondition in ("privilege-missing", "ledger-missing")
    with legacy.connect() as connection:
        assert connection.execute(
            "SELECT (SELECT count(*) FROM runs) = coalesce(sum(rows_moved), 0) FROM spine_migrate.checkpoint"
        ).fetchall() == [(True,)]
        connection.execute(everything)
    assert legacy.move(url=database.url_as(mover)).state == "done"
    legacy.prove()
