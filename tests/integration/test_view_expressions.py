"""Expressions of the legacy table that a view would evaluate as another role, or with other settings."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from spine_migrate.carry.tables import find_tables
from spine_migrate.cutover import view
from spine_migrate.cutover.expressions import expressions
from spine_migrate.cutover.limits import limits
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.mapping.load import load
from tests.database import Database
from tests.legacy import Legacy, build
from tests.views import start, switch


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def _found(tool: Connection) -> dict[str, bool]:
    """What a cutover would be told, and whether it closes the gate."""
    tables = find_tables(tool, load("capture-spine/executions"), source_schema="public", target_schema=None)
    asked = {one.object for one in expressions(tool, tables.source.oid)}
    facts = view.facts(tool, tables, start(tool, tables))
    return {one.object: one.blocks for one in limits(tool, facts) if one.object in asked}


def test_what_would_run_as_the_tool_blocks(database: Database, legacy: Legacy) -> None:
    legacy.execute(
        """
        CREATE FUNCTION known(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
        CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT $1 = $2';
        CREATE OPERATOR === (FUNCTION = same, LEFTARG = text, RIGHTARG = text);
        ALTER TABLE executions
            ADD CONSTRAINT called CHECK (known(pipeline_name)),
            ADD CONSTRAINT operated CHECK (pipeline_name === 'x' OR true),
            ADD CONSTRAINT mine CHECK (pipeline_name <> CURRENT_USER),
            ADD CONSTRAINT allowed CHECK (pg_has_role('pg_monitor', 'MEMBER') OR pipeline_name <> ''),
            ADD CONSTRAINT days CHECK (created_at::date > '1990-01-01'),
            ADD CONSTRAINT timely CHECK (created_at < now() + interval '100 years'),
            ADD CONSTRAINT plain CHECK (lower(pipeline_name) <> 'current_user' AND session_user <> ''),
            DROP COLUMN lane,
            ADD COLUMN lane varchar(20) GENERATED ALWAYS AS (CASE WHEN known('x') THEN 'y' END) STORED;
        """
    )
    with connect(database.url, settings=PINNED) as tool:
        assert _found(tool) == {
            "called ON public.executions": True,
            "operated ON public.executions": True,
            "mine ON public.executions": True,
            "allowed ON public.executions": True,
            "days ON public.executions": False,
            "timely ON public.executions": False,
            "public.executions.lane": True,
        }


def test_what_is_refused_would_indeed_run_as_another(database: Database, legacy: Legacy) -> None:
    """The table calls a function of its constraint as the writer; a view that was made all the same, as the tool. A
    default is the writer's on both.
    """
    writer = database.add_role("writer")
    legacy.execute(
        """
        CREATE TABLE seen (role text);
        GRANT ALL ON seen TO PUBLIC;
        CREATE FUNCTION noted() RETURNS text LANGUAGE sql
            AS 'INSERT INTO public.seen VALUES (current_user) RETURNING role';
        CREATE FUNCTION noting(text) RETURNS boolean LANGUAGE sql AS 'SELECT public.noted() IS NOT NULL';
        ALTER TABLE executions ADD CONSTRAINT noting CHECK (noting(pipeline_name)),
            ALTER COLUMN backend_task_id SET DEFAULT noted();
        """
    )
    legacy.execute(sql.SQL("GRANT SELECT, INSERT ON executions TO {}").format(sql.Identifier(writer.name)))

    def inserted() -> list[str]:
        with psycopg.connect(database.url_as(writer), autocommit=True) as connection:
            connection.execute("INSERT INTO executions (pipeline_name) VALUES ('p')")
        found = [role for (role,) in legacy.rows("SELECT role FROM seen")]
        legacy.execute("TRUNCATE seen")
        return found

    assert inserted() == [writer.name, writer.name]
    with connect(database.url) as tool:
        switch(tool, "capture-spine/executions")
    assert inserted() == [writer.name, database.owner.name]
