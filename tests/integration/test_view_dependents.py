"""What is found before a cutover: all that follows the table's rename, and all that the view cannot keep."""

from __future__ import annotations

from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.carry.tables import find_tables
from spine_migrate.cutover import dependents, view
from spine_migrate.cutover.dependent import Dependent
from spine_migrate.cutover.limits import limits
from spine_migrate.db import catalog
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.load import load
from tests.database import Database
from tests.legacy import Legacy, build
from tests.views import start, switch


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def _found(database: Database, table: str = "executions") -> dict[tuple[str, str], Dependent]:
    with connect(database.url, settings=PINNED) as tool:
        relation = catalog.find(tool, table, "public")
        return {(one.object, one.kind): one for one in dependents.find(tool, relation)}


_EVERYTHING: LiteralString = """
    CREATE VIEW active AS SELECT execution_id, status FROM executions WHERE status = 'running';
    CREATE VIEW of_active AS SELECT * FROM active;
    CREATE VIEW grouped AS SELECT e.*, count(*) FROM executions e JOIN execution_events v USING (execution_id)
        GROUP BY e.execution_id;
    CREATE MATERIALIZED VIEW counted AS SELECT status, count(*) FROM executions GROUP BY status;
    CREATE RULE "keep it" AS ON DELETE TO executions DO INSTEAD NOTHING;
    CREATE TABLE notes (note_id int PRIMARY KEY, execution_id uuid REFERENCES executions, was executions,
        number bigint DEFAULT nextval('jobs_job_id_seq'));
    CREATE RULE copy_note AS ON INSERT TO notes DO ALSO UPDATE executions SET error = 'noted';
    CREATE FUNCTION parsed() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM executions; END;
    CREATE FUNCTION typed(executions) RETURNS text LANGUAGE sql AS 'SELECT $1.status';
    CREATE FUNCTION textual() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO executions (pipeline_name) VALUES ('p') ON CONFLICT DO NOTHING; TRUNCATE executions; END $$;
    CREATE FUNCTION harmless() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM public.executions; END $$;
    CREATE FUNCTION another() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM executions_archive; END $$;
    CREATE POLICY mine ON executions USING (true);
    CREATE POLICY of_others ON notes
        USING (EXISTS (SELECT FROM executions e WHERE e.execution_id = notes.execution_id));
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER noted AFTER UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION noted();
    CREATE TRIGGER off AFTER UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION noted();
    ALTER TABLE executions DISABLE TRIGGER off;
    CREATE TABLE feeds (feed_id uuid PRIMARY KEY);
    ALTER TABLE executions ADD CONSTRAINT of_feed FOREIGN KEY (feed_id) REFERENCES feeds ON DELETE CASCADE;
    ALTER TABLE executions ADD CONSTRAINT of_lane FOREIGN KEY (feed_id) REFERENCES feeds,
        ADD CONSTRAINT of_parent FOREIGN KEY (parent_execution_id) REFERENCES executions;
    CREATE TABLE child () INHERITS (executions);
"""


def test_everything_that_hangs_on_the_table(database: Database, legacy: Legacy) -> None:
    legacy.execute(_EVERYTHING)
    with database.connect_admin(autocommit=True) as admin:
        admin.execute("CREATE PUBLICATION pub FOR TABLE executions")
    found = _found(database)
    assert {name: one.blocks for name, one in found.items()} == {
        ("public.active", "view"): True,
        ("public.grouped", "view"): True,
        ("public.counted", "materialized view"): True,
        ('"keep it" ON public.executions', "rule"): True,
        ('"copy_note" ON public.notes', "rule"): True,
        ("public.parsed()", "function"): True,
        ("public.typed(public.executions)", "row type function"): True,
        ("public.textual()", "function"): True,
        ("public.harmless()", "function"): False,
        ("public.notes.was", "column"): True,
        ('"mine" ON public.executions', "policy"): True,
        ('"of_others" ON public.notes', "policy"): True,
        ("noted", "trigger"): True,
        ('"execution_events_execution_id_fkey" ON "public"."execution_events"', "foreign key"): True,
        ('"notes_execution_id_fkey" ON "public"."notes"', "foreign key"): True,
        ('"of_feed" ON "public"."executions"', "foreign key"): True,
        ('"of_lane" ON "public"."executions"', "foreign key"): True,
        ('"of_parent" ON "public"."executions"', "foreign key"): True,
        ("public.child", "child"): False,
        ("pub", "publication"): True,
    }
    sequences = _found(database, "jobs")
    assert sequences["public.jobs_job_id_seq", "sequence"].breaks.endswith("public.notes takes values from it as well.")


def test_each_shape_in_a_functions_text_is_named(database: Database, legacy: Legacy) -> None:
    legacy.execute(_EVERYTHING)
    with connect(database.url, settings=PINNED) as tool:
        found = dependents.find(tool, catalog.find(tool, "executions", "public"))
    said = [one.breaks for one in found if one.object == "public.textual()"]
    assert [text.rpartition("(")[2] for text in said] == ["ON CONFLICT in its text)", "TRUNCATE in its text)"]
    assert [one.blocks for one in found] == sorted((one.blocks for one in found), reverse=True)


def test_what_was_resolved_is_pointed_anew_by_its_statement(database: Database, legacy: Legacy) -> None:
    """Views and bodies of standard SQL go on reading the renamed table, until their statement has been run."""
    legacy.execute(
        """
        CREATE VIEW active WITH (security_barrier) AS SELECT execution_id, status FROM executions;
        CREATE VIEW of_active AS SELECT status FROM active;
        CREATE FUNCTION parsed() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM executions; END;
        """
    )
    found = _found(database)
    counts: LiteralString = (
        "SELECT (SELECT count(*) FROM public.active), (SELECT count(*) FROM public.of_active), public.parsed()"
    )
    with connect(database.url) as tool:
        switch(tool, "capture-spine/executions")
        tool.execute("INSERT INTO public.executions (pipeline_name) VALUES ('p')")
        assert tool.execute(counts).fetchone() == (0, 0, 0)
        for name in (("public.active", "view"), ("public.parsed()", "function")):
            statement = found[name].statement
            assert statement is not None
            tool.execute(statement.encode())
        assert tool.execute(counts).fetchone() == (1, 1, 1)
        options = tool.execute("SELECT reloptions FROM pg_class WHERE relname = 'active'").fetchone()
        assert options == (["security_barrier=true"],)
    assert ("public.active", "view") not in _found_after(database)


@pytest.mark.parametrize(
    ("kind", "shape", "definition"),
    [
        ("view", "TABLESAMPLE", "CREATE VIEW v AS SELECT status FROM executions TABLESAMPLE system (10)"),
        ("view", "system column", "CREATE VIEW v AS SELECT status, xmin AS version FROM executions"),
        (
            "function",
            "ON CONFLICT",
            """CREATE FUNCTION v() RETURNS void LANGUAGE sql BEGIN ATOMIC INSERT INTO executions
                (pipeline_name) VALUES ('p') ON CONFLICT (execution_id) DO NOTHING; END""",
        ),
    ],
)
def test_what_no_view_takes_is_found_in_what_is_made_again(
    database: Database, legacy: Legacy, kind: str, shape: str, definition: LiteralString
) -> None:
    """Beside its statement, which would fail in the switch, or make what fails when it is called."""
    legacy.execute(definition)
    with connect(database.url, settings=PINNED) as tool:
        found = dependents.find(tool, catalog.find(tool, "executions", "public"))
    (named,) = [one for one in found if one.kind == kind and one.statement is None]
    assert (named.blocks, f"({shape} in its definition)" in named.breaks) == (True, True)


def test_a_temporary_view_of_another_session_is_not_made_again(database: Database, legacy: Legacy) -> None:
    with legacy.connect() as other:
        other.execute("CREATE TEMPORARY VIEW mine AS SELECT status FROM executions")
        (found,) = [one for one in _found(database).values() if one.kind == "view"]
    assert (found.blocks, found.statement, "another session" in found.remedy) == (True, None, True)


def test_triggers_of_partitions_and_children(database: Database, legacy: Legacy) -> None:
    """No write through the view fires them either."""
    legacy.execute(
        """
        CREATE TABLE child () INHERITS (executions);
        CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER noted AFTER UPDATE ON child FOR EACH ROW EXECUTE FUNCTION noted();
        """
    )
    found = _found(database)["noted ON public.child", "trigger"]
    assert (found.blocks, found.statement) == (True, 'ALTER TABLE public.child DISABLE TRIGGER "noted";')


def test_a_subscription_that_writes_to_the_table(database: Database, legacy: Legacy) -> None:
    """As the catalog has one once its tables have been copied."""
    name = sql.Identifier(f"sub_{database.name}")
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(
            sql.SQL(
                "CREATE SUBSCRIPTION {} CONNECTION 'dbname=nowhere' PUBLICATION p"
                " WITH (connect = false, slot_name = NONE, enabled = false)"
            ).format(name)
        )
        try:
            admin.execute("SET allow_system_table_mods = on")
            admin.execute(
                "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
                " SELECT oid, 'executions'::regclass, 'r' FROM pg_subscription WHERE subname = %s",
                (name.as_string(None).strip('"'),),
            )
            assert _found(database)[name.as_string(None).strip('"'), "subscription"].blocks
        finally:
            admin.execute(sql.SQL("DROP SUBSCRIPTION {}").format(name))


def _found_after(database: Database) -> set[tuple[str, str]]:
    with connect(database.url, settings=PINNED) as tool:
        relation = catalog.find(tool, "executions_legacy", "public")
        return {(one.object, one.kind) for one in dependents.find(tool, relation)}


def test_statements_that_applications_have_sent(database: Database, legacy: Legacy) -> None:
    """As pg_stat_statements keeps them, of this database; here a table's worth of them stands behind the name."""
    legacy.execute(
        """
        CREATE SCHEMA stats;
        CREATE TABLE stats.kept (dbid oid, query text, calls bigint);
        INSERT INTO stats.kept SELECT d.oid, s.query, s.calls FROM pg_database d, (VALUES
            ('INSERT INTO executions (execution_id) VALUES ($1) ON CONFLICT DO NOTHING', 7),
            ('SELECT * FROM executions', 5), ('TRUNCATE TABLE others', 3)) AS s (query, calls)
         WHERE d.datname IN (current_database(), 'postgres');
        CREATE VIEW stats.pg_stat_statements AS SELECT * FROM stats.kept;
        """
    )
    found = [one for one in _found(database).values() if one.kind == "statement"]
    assert [(one.object, one.blocks) for one in found] == [
        ("INSERT INTO executions (execution_id) VALUES ($1) ON CONFLICT DO NOTHING", True)
    ]
    assert found[0].breaks.endswith("It was called 7 times.")


def _limits(tool: Connection, name: str = "capture-spine/executions") -> dict[tuple[str, str], Dependent]:
    with tool.transaction(force_rollback=True):
        tables = find_tables(tool, load(name), source_schema="public", target_schema=None)
        made = view.facts(tool, tables, start(tool, tables))
        return {(one.object, one.kind): one for one in limits(tool, made)}


def test_the_demo_lacks_indexes_alone(database: Database, legacy: Legacy) -> None:
    """The old guard, one active execution per feed, is kept by the runs' own, which guards more, and is told."""
    with connect(database.url) as tool:
        found = _limits(tool)
        assert "'queued'" in found['"public"."ix_runs_one_active_per_entity"', "unique index"].breaks
        assert {name: one.blocks for name, one in found.items()} == {
            ('"public"."ix_runs_one_active_per_entity"', "unique index"): False,
            ('"public"."uq_idempotency"', "unique index"): False,
            ('"public"."ix_executions_created_at"', "index"): False,
            ('"public"."ix_executions_status"', "index"): False,
            ('"public"."ix_executions_one_active_per_feed"', "index"): False,
            ('"runs_parent_run_id_fkey" ON "public"."runs"', "index"): False,
            ('"runs_retry_of_run_id_fkey" ON "public"."runs"', "index"): False,
        }
        # The key of jobs is inside a JSON column: without an index each look-up would read all runs.
        found = _limits(tool, "capture-spine/jobs")
        (index,) = [one for name, one in found.items() if "spine_key_" in name[0]]
        assert (index.blocks, "The cutover builds it first" in index.remedy) == (False, True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("CREATE UNIQUE INDEX u ON executions (idempotency_key)", False),
        ("CREATE UNIQUE INDEX u ON executions (idempotency_key, lane)", False),
        ("CREATE UNIQUE INDEX u ON executions (idempotency_key) WHERE status = 'running'", False),
        ("CREATE UNIQUE INDEX u ON executions (feed_id) WHERE status = 'queued'", False),
        ("CREATE UNIQUE INDEX u ON executions (feed_id)", True),
        ("CREATE UNIQUE INDEX u ON executions (feed_id) WHERE status IN ('queued', 'failed')", True),
        ("CREATE UNIQUE INDEX u ON executions (feed_id) WHERE lane = 'normal'", True),
        ("CREATE UNIQUE INDEX u ON executions (backend_task_id)", True),
        ("CREATE UNIQUE INDEX u ON executions (lower(idempotency_key))", True),
    ],
)
def test_a_unique_index_that_nothing_stands_for(
    database: Database, legacy: Legacy, change: LiteralString, *, expected: bool
) -> None:
    legacy.execute(change)
    with connect(database.url) as tool:
        found = _limits(tool)
    assert (('"public"."u"', "unique index") in found) is expected


def test_a_primary_key_over_other_columns(database: Database, legacy: Legacy) -> None:
    """The mapping goes by a column that is unique; what the primary key is over, nothing in the target keeps apart."""
    legacy.execute(
        """
        ALTER TABLE executions DROP CONSTRAINT executions_pkey CASCADE, ADD UNIQUE (execution_id),
            ALTER COLUMN execution_id SET NOT NULL, ADD PRIMARY KEY (pipeline_name, lane);
        """
    )
    with connect(database.url) as tool:
        assert _limits(tool)['"public"."executions_pkey"', "unique index"].blocks


def test_what_else_the_view_cannot_keep(database: Database, legacy: Legacy) -> None:
    reader = database.add_role("reader")
    legacy.execute(
        """
        ALTER TABLE executions ALTER COLUMN result TYPE json USING result::json, ENABLE ROW LEVEL SECURITY;
        ALTER TABLE executions ADD CONSTRAINT once EXCLUDE (backend_task_id WITH =),
            ADD CONSTRAINT later UNIQUE (execution_id, lane) DEFERRABLE;
        ALTER TABLE jobs ALTER COLUMN job_id SET GENERATED ALWAYS;
        """
    )
    with database.connect_admin(autocommit=True) as admin:
        admin.execute("CREATE TABLE feeds (feed_id uuid PRIMARY KEY)")
        admin.execute("ALTER TABLE executions ADD FOREIGN KEY (feed_id) REFERENCES feeds")
        admin.execute(sql.SQL("ALTER TABLE jobs OWNER TO {}").format(sql.Identifier(reader.name)))
        admin.execute(sql.SQL("GRANT {} TO {}").format(*map(sql.Identifier, (reader.name, database.owner.name))))
        admin.execute("ALTER TABLE runs ENABLE ROW LEVEL SECURITY")
    with connect(database.url) as tool:
        found = _limits(tool)
        assert found['"public"."executions"', "row security"].blocks
        assert ('"public"."runs"', "row security") not in found
        assert not found['"public"."executions"."result"', "column"].blocks
        assert found['"public"."feeds"', "privilege"].blocks
        assert found['"once" ON "public"."executions"', "exclusion constraint"].blocks
        assert not found['"later" ON "public"."executions"', "deferrable constraint"].blocks
        found = _limits(tool, "capture-spine/jobs")
        assert found['"public"."runs"', "row security"].blocks
        assert not found['"public"."jobs"."job_id"', "column"].blocks
        statement = found['"public"."runs"', "privilege"].statement
        assert statement == f'GRANT UPDATE ON "public"."runs" TO "{reader.name}";'


_PLAN: LiteralString = "EXPLAIN (COSTS off) SELECT * FROM {} WHERE {} = {}"


@pytest.mark.parametrize(
    ("name", "column", "value", "index"),
    [
        ("executions", "execution_id", "00000000-0000-4000-8000-000000000001", "runs_pkey"),
        ("executions", "status", "running", "spine_view_ix_executions_status"),
        ("executions", "created_at", "2020-01-01", "spine_view_ix_executions_created_at"),
        ("jobs", "job_id", "7", "spine_key_"),
        ("execution_events", "execution_id", "00000000-0000-4000-8000-000000000001", "ix_run_events_run_id"),
    ],
)
def test_a_look_up_through_the_view_finds_an_index(
    database: Database, legacy: Legacy, *, name: str, column: str, value: str, index: str
) -> None:
    """The target's own, or the one whose statement was given."""
    with connect(database.url) as tool:
        for one in _limits(tool, f"capture-spine/{name}").values():
            if one.kind == "index" and one.statement is not None:
                tool.execute(one.statement.encode())
        switch(tool, f"capture-spine/{name}")
        tool.execute(
            "INSERT INTO public.runs (kind, name, status, metadata)"
            " SELECT CASE n % 2 WHEN 0 THEN 'task' ELSE 'pipeline' END, 'r',"
            " CASE n % 50 WHEN 1 THEN 'running' ELSE 'completed' END,"
            " jsonb_build_object('legacy', jsonb_build_object('job_id', n)) FROM generate_series(1, 5000) AS n"
        )
        tool.execute("INSERT INTO public.run_events (run_id, event_type) SELECT run_id, 'started' FROM public.runs")
        tool.execute("ANALYZE public.runs, public.run_events")
        plan = execute(
            tool, sql.SQL(_PLAN).format(sql.Identifier("public", name), sql.Identifier(column), sql.Literal(value))
        ).fetchall()
    assert index in str(plan), plan
