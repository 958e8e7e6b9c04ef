"""What stands around a captured table: parents, limits, tables that take its place. Nothing is written past the log."""

from __future__ import annotations

import threading
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.carry.known import chosen, known
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.errors import Refused
from spine_migrate.sync.appliers import verify_whole
from spine_migrate.sync.start import stop_capture
from tests.database import Database
from tests.legacy import Legacy, build, uuid
from tests.partitions import partition_executions
from tests.syncing import PATIENCE, apply, capture_of, logged, move_live


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


# A table that is written through another one, above it.
ABOVE: dict[str, tuple[LiteralString, ...]] = {
    "a partition": (
        "CREATE TABLE above (LIKE executions INCLUDING DEFAULTS) PARTITION BY RANGE (execution_id)",
        "ALTER TABLE above ATTACH PARTITION executions FOR VALUES FROM (MINVALUE) TO (MAXVALUE)",
    ),
    "a child": (
        "CREATE TABLE above (LIKE executions INCLUDING DEFAULTS)",
        "ALTER TABLE executions INHERIT above",
    ),
}


def _put_below(legacy: Legacy, kind: str) -> None:
    for statement in ABOVE[kind]:
        legacy.execute(statement)


@pytest.mark.parametrize("kind", list(ABOVE))
def test_writes_through_a_table_above_are_captured(legacy: Legacy, kind: str) -> None:
    """No statement trigger of the table itself fires for them."""
    _put_below(legacy, kind)
    legacy.many_executions(4)
    move_live(legacy)
    assert capture_of(legacy).style == "row"
    legacy.execute("UPDATE above SET error = 'x' WHERE execution_id = %s", uuid(1))
    legacy.execute("DELETE FROM above WHERE execution_id = %s", uuid(2))
    legacy.execute("UPDATE above SET execution_id = %s WHERE execution_id = %s", uuid(50), uuid(3))
    assert set(logged(legacy)) == {uuid(1), uuid(2), uuid(3), uuid(50)}
    apply(legacy)
    legacy.prove()
    legacy.execute("TRUNCATE above CASCADE")
    assert None in logged(legacy)


def test_a_table_that_comes_to_be_below_another_is_told(legacy: Legacy) -> None:
    """What was captured statement by statement is not captured any more where it is written through that one."""
    legacy.many_executions(4)
    move_live(legacy)
    assert capture_of(legacy).style == "statement"
    _put_below(legacy, "a child")
    with pytest.raises(Refused, match="sync stop and sync start"):
        apply(legacy)


def test_a_table_that_takes_the_place_of_a_captured_one_is_told(legacy: Legacy) -> None:
    """By its name the applier would read a table whose writes nobody logs."""
    legacy.many_executions(4)
    move_live(legacy)

    with connect(legacy.url, settings=PINNED) as session:
        (one,) = [known(session, migration) for migration in chosen(session)]
        verify_whole(session, one, capture_of(legacy))
        with legacy.connect() as connection, connection.transaction():
            connection.execute("ALTER TABLE executions RENAME TO executions_before")
            connection.execute("CREATE TABLE executions (LIKE executions_before INCLUDING ALL)")
            connection.execute("INSERT INTO executions SELECT * FROM executions_before")
        with pytest.raises(Refused, match="not the table any more"):
            verify_whole(session, one, capture_of(legacy))


@pytest.mark.parametrize("away", ["ALTER TABLE executions DETACH PARTITION parts_high", "DROP TABLE parts_high"])
def test_a_part_that_is_taken_away_is_told(legacy: Legacy, away: LiteralString) -> None:
    """No trigger fires for its rows, which the target still has."""
    partition_executions(legacy)
    legacy.many_executions(3)
    legacy.executions(150)
    move_live(legacy)
    apply(legacy)
    legacy.execute(away)
    with pytest.raises(Refused, match="parts_high"):
        apply(legacy)
    with connect(legacy.url, settings=PINNED) as session:
        (one,) = [known(session, migration) for migration in chosen(session)]
        stop_capture(session, one.tables, capture_of(legacy), patience=PATIENCE, stop=threading.Event())
    move_live(legacy)
    apply(legacy)
    legacy.prove()
    assert legacy.value("SELECT count(*) FROM runs") == 3


def test_a_limit_on_temporary_files_fails_no_write(legacy: Legacy, database: Database) -> None:
    """The rows of a statement would be kept in a file for its trigger, and counted."""
    legacy.many_executions(3000)
    with database.connect_admin(autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET temp_file_limit = '64kB'").format(
                sql.Identifier(database.owner.name), sql.Identifier(database.name)
            )
        )
    move_live(legacy)
    with psycopg.connect(legacy.url, autocommit=True) as connection:
        connection.execute("SET work_mem = '64kB'")
        connection.execute("UPDATE executions SET error = repeat('y', 100)")
    assert "temp_file_limit" in (capture_of(legacy).why or "")
    apply(legacy)
    legacy.prove()


def test_a_session_that_has_written_before_columns_come_and_go_writes_on(legacy: Legacy) -> None:
    """The trigger's function has its plans from before."""
    legacy.many_executions(3)
    move_live(legacy)
    with legacy.connect() as connection:
        for statement in ("ADD COLUMN later text", "DROP COLUMN later", "DROP COLUMN lane"):
            connection.execute("UPDATE executions SET error = 'x' WHERE execution_id = %s", (uuid(1),))
            connection.execute("INSERT INTO executions (pipeline_name, status) VALUES ('x', 'pending')")
            legacy.execute(sql.SQL("ALTER TABLE executions {}").format(sql.SQL(statement)))
        connection.execute("UPDATE executions SET error = 'y'")
        connection.execute("DELETE FROM executions WHERE execution_id = %s", (uuid(2),))
    assert uuid(2) in logged(legacy)


def test_a_session_s_own_numbers_stay_its_own(legacy: Legacy, database: Database) -> None:
    """lastval(), by which some drivers ask for the key of a row that they have inserted; and a publication of all
    tables, which lets no row go that has no identity.
    """
    legacy.execute("INSERT INTO jobs (job_type) VALUES ('first')")
    move_live(legacy, "jobs")
    with legacy.connect() as connection:
        ((inserted,),) = connection.execute("INSERT INTO jobs (job_type) VALUES ('x') RETURNING job_id").fetchall()
        assert connection.execute("SELECT lastval()").fetchall() == [(inserted,)]
    with database.connect_admin(autocommit=True) as connection:
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    apply(legacy, "jobs")
    assert not logged(legacy)
    legacy.prove("jobs")
