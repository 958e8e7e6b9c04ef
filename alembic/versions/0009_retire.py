"""Retire in the schema spine_migrate: what was allowed and done, and the functions that drop the legacy side.

The functions are the one place where that is done: ``spine-migrate retire`` calls them, and so does the revision of
the branch ``spine_contract``, in an application's own deploy.

Frozen: a released revision is never edited and imports nothing from spine_migrate, so that it always builds the same
tables. Names stand in op.f(): an application's own naming convention must not rename them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "spine_0009"
down_revision = "spine_0008"
branch_labels = None
depends_on = None

SCHEMA = "spine_migrate"

# The text of a row, whatever the session's settings and casts; the sum does not depend on the order of the rows.
_LEGACY_DIGEST = """\
CREATE FUNCTION spine_migrate.legacy_digest(place regclass) RETURNS text LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET "TimeZone" = 'UTC' SET "DateStyle" = 'ISO, MDY' SET "IntervalStyle" = 'postgres'
    SET extra_float_digits = '3' SET bytea_output = 'hex' SET lc_monetary = 'C' SET row_security = 'off'
AS $$
DECLARE
    found text;
BEGIN
    EXECUTE format('SELECT concat(count(*), ''/'', sum(hashtextextended(ROW(spine_row.*)::text, 0)::numeric))'
                   ' FROM %s AS spine_row', place) INTO found;
    RETURN found;
END
$$"""

_REFUSALS = """\
CREATE FUNCTION spine_migrate.retire_refusals(asked bigint[])
    RETURNS TABLE (migration_id bigint, mapping text, source_table text, why text) LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT m.migration_id, m.mapping, m.source_table, w.why
  FROM spine_migrate.migration m
  LEFT JOIN spine_migrate.cutover c ON c.migration_id = m.migration_id
  LEFT JOIN spine_migrate.retirement r ON r.migration_id = m.migration_id
 CROSS JOIN LATERAL (SELECT CASE
       WHEN m.step <> 'cutover' THEN
           format('it is in step %s, and only what is cut over can be retired', m.step)
       WHEN r.migration_id IS NULL THEN
           'retire was not allowed yet, which spine-migrate retire --allow does once its gates are open'
       WHEN c.at IS DISTINCT FROM r.cutover_at THEN
           'it was rolled back and cut over since retire was allowed'
       WHEN NOT r.members <@ asked THEN
           format('it goes together with the migrations %s', array_to_string(r.members, ', '))
       ELSE (SELECT format('it was written through the view since retire was allowed, last by %s (%s) at %s',
                           v.role, coalesce(v.application, ''), v.at)
               FROM spine_migrate.view_write v
              WHERE v.migration_id = m.migration_id AND v.at > r.allowed_at
              ORDER BY v.at DESC LIMIT 1)
       END AS why) w
 WHERE m.migration_id = ANY (asked) AND w.why IS NOT NULL
 ORDER BY m.migration_id
$$"""

# Names come from the catalog, so that nothing that stands in the ledger is ever run as it is.
_STATEMENTS = """\
CREATE FUNCTION spine_migrate.retire_statements(asked bigint[])
    RETURNS TABLE (ordinal bigint, kind text, object text, bytes bigint, statement text) LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
AS $$
WITH RECURSIVE own AS (
    SELECT m.migration_id, to_regclass(m.source_table)::oid AS legacy, to_regclass(m.target_table)::oid AS target,
           to_regclass(c.source_table)::oid AS place, c.view
      FROM spine_migrate.migration m JOIN spine_migrate.cutover c ON c.migration_id = m.migration_id
     WHERE m.migration_id = ANY (asked) AND m.step = 'cutover'
), ours AS (
    SELECT p.oid, p.proname::text AS name FROM pg_proc p WHERE p.pronamespace = to_regnamespace('spine_migrate')
), view AS (
    SELECT o.place::regclass::text AS name FROM own o
     WHERE o.view AND EXISTS (SELECT FROM pg_trigger t JOIN ours p ON p.oid = t.tgfoid
                               WHERE t.tgrelid = o.place AND p.name = format('view_%s_insert', o.migration_id))
), tree AS (
    SELECT o.legacy AS oid FROM own o WHERE o.legacy IS NOT NULL
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
), capture AS (
    -- Those of a rollback that could not sweep belong to nobody any more, and do nothing.
    SELECT p.oid, p.name FROM ours p LEFT JOIN spine_migrate.capture k ON p.name = format('capture_%s', k.capture_id)
     WHERE p.name ~ '^capture_[0-9]+$'
       AND (k.migration_id = ANY (asked)
            OR k.capture_id IS NULL
               AND EXISTS (SELECT FROM pg_trigger t JOIN own o ON o.target = t.tgrelid WHERE t.tgfoid = p.oid))
), part AS (
    SELECT 1 AS step, 'view' AS kind, string_agg(name, ', ' ORDER BY name) AS object, 0::bigint AS bytes,
           'DROP VIEW ' || string_agg(name, ', ' ORDER BY name) AS statement
      FROM view HAVING count(*) > 0
    UNION ALL
    SELECT 2, 'trigger', format('%I ON %s', t.tgname, t.tgrelid::regclass), 0,
           format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)
      FROM pg_trigger t JOIN capture p ON p.oid = t.tgfoid
     WHERE t.tgparentid = 0 AND t.tgrelid NOT IN (SELECT oid FROM tree)
    UNION ALL
    -- What only look-ups through the view have needed.
    SELECT 3, 'index', x.oid::regclass::text, pg_relation_size(x.oid), format('DROP INDEX %s', x.oid::regclass)
      FROM own o JOIN pg_index i ON i.indrelid = o.target JOIN pg_class x ON x.oid = i.indexrelid
     WHERE x.relname ~ format('^spine_key_%s_[0-9a-f]+$', o.migration_id)
    UNION ALL
    -- One by one, so that each table that is referred to is waited for with what is left of the time.
    SELECT 4, 'foreign key', format('%I ON %s', k.conname, k.conrelid::regclass), 0,
           format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname)
      FROM pg_constraint k
     WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid IN (SELECT oid FROM tree)
       AND k.confrelid NOT IN (SELECT oid FROM tree)
    UNION ALL
    SELECT 5, 'table', string_agg(c.oid::regclass::text, ', ' ORDER BY c.oid::regclass::text),
           (SELECT sum(pg_total_relation_size(oid))::bigint FROM tree),
           'DROP TABLE ' || string_agg(c.oid::regclass::text, ', ' ORDER BY c.oid::regclass::text)
      FROM tree t JOIN pg_class c ON c.oid = t.oid WHERE NOT c.relispartition OR c.oid IN (SELECT legacy FROM own)
    HAVING count(*) > 0
    UNION ALL
    SELECT 6, 'function', p.oid::regprocedure::text, 0, format('DROP FUNCTION %s', p.oid::regprocedure)
      FROM ours p
     WHERE p.oid IN (SELECT oid FROM capture)
        OR EXISTS (SELECT FROM own o
                    WHERE p.name ~ format('^view_%s_(insert|update|delete|next_[0-9]+)$', o.migration_id))
)
SELECT row_number() OVER (ORDER BY step, object), kind, object, bytes, statement FROM part ORDER BY 1
$$"""

_WAIT = """\
CREATE FUNCTION spine_migrate.wait_until(deadline timestamptz) RETURNS void LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT set_config('lock_timeout',
                  greatest(1, ceil(extract(epoch FROM deadline - clock_timestamp()) * 1000))::bigint || 'ms', true)
$$"""

# At a higher level the rows would be read as they were at the transaction's snapshot, which may be older than the lock.
_CHECK = """\
CREATE FUNCTION spine_migrate.retire_check(asked bigint[]) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refused text;
    one record;
    newest timestamptz;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = '25001',
            MESSAGE = 'the legacy tables are dropped at READ COMMITTED only, so that what is there now is looked at';
    END IF;
    SELECT string_agg(format('%s (%s): %s', mapping, source_table, why), '; ') INTO refused
      FROM spine_migrate.retire_refusals(asked);
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'the legacy tables cannot be dropped: ' || refused;
    END IF;
    FOR one IN SELECT m.mapping, m.source_table, to_regclass(m.source_table) AS place
                 FROM spine_migrate.migration m WHERE m.migration_id = ANY (asked) ORDER BY m.migration_id
    LOOP
        IF one.place IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = '55000',
                MESSAGE = format('the legacy tables cannot be dropped: %s (%s) is not there any more; somebody has'
                                 ' dropped or renamed it', one.mapping, one.source_table);
        END IF;
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', one.place);
    END LOOP;
    FOR one IN SELECT m.mapping, to_regclass(m.source_table) AS place, r.rows_digest
                 FROM spine_migrate.migration m JOIN spine_migrate.retirement r ON r.migration_id = m.migration_id
                WHERE m.migration_id = ANY (asked) ORDER BY m.migration_id
    LOOP
        IF spine_migrate.legacy_digest(one.place) <> one.rows_digest THEN
            RAISE EXCEPTION USING ERRCODE = '55000',
                MESSAGE = format('the legacy tables cannot be dropped: %s (%s): its rows have changed since retire was'
                                 ' allowed, so no archive is of them; spine-migrate retire --revoke, then allow it'
                                 ' again', one.mapping, one.place);
        END IF;
    END LOOP;
    -- Most of what there is, before anybody waits for what follows; what is newer is found from there.
    WITH gone AS (
        DELETE FROM spine_migrate.change_log l USING spine_migrate.capture k
         WHERE l.capture_id = k.capture_id AND k.migration_id = ANY (asked) RETURNING l.at
    )
    SELECT g.at INTO newest FROM gone g ORDER BY g.at DESC OFFSET 20000 LIMIT 1;
    PERFORM set_config('spine_migrate.retire_logged', coalesce(newest::text, ''), true);
END
$$"""

_DROP = """\
CREATE FUNCTION spine_migrate.retire_drop(asked bigint[], max_wait interval, how text) RETURNS text[] LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = 'off'
AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + max_wait;
    before text := current_setting('lock_timeout');
    statements text[] := ARRAY(SELECT s.statement FROM spine_migrate.retire_statements(asked) s ORDER BY s.ordinal);
    newest timestamptz := coalesce(nullif(current_setting('spine_migrate.retire_logged', true), ''), '-infinity');
    refused text;
    one text;
BEGIN
    FOREACH one IN ARRAY statements LOOP
        PERFORM spine_migrate.wait_until(deadline);
        EXECUTE one;
    END LOOP;
    -- A permission that is being taken back is waited for, and not there any more.
    PERFORM spine_migrate.wait_until(deadline);
    PERFORM FROM spine_migrate.retirement WHERE migration_id = ANY (asked) FOR UPDATE;
    PERFORM set_config('lock_timeout', before, true);
    -- With the view gone, and nobody in it, what was written through it last is on record.
    SELECT string_agg(format('%s (%s): %s', mapping, source_table, why), '; ') INTO refused
      FROM spine_migrate.retire_refusals(asked);
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'the legacy tables cannot be dropped: ' || refused;
    END IF;
    -- The application waits by now. What retire_check has deleted still stands in the index, and months of it would be
    -- read; so only the end is, and some of it for transactions that were under way. What is left by one that is older
    -- yet belongs to no capture, and goes with the next start of one.
    DELETE FROM spine_migrate.change_log l USING spine_migrate.capture k
     WHERE l.capture_id = k.capture_id AND k.migration_id = ANY (asked)
       AND l.at > newest;
    DELETE FROM spine_migrate.capture WHERE migration_id = ANY (asked);
    UPDATE spine_migrate.migration SET step = 'retired' WHERE migration_id = ANY (asked);
    UPDATE spine_migrate.retirement
       SET retired_at = clock_timestamp(), retired_by = session_user, retired_how = how, dropped = to_jsonb(statements)
     WHERE migration_id = ANY (asked);
    INSERT INTO spine_migrate.audit (tool_version, migration_id, action, detail)
    SELECT r.tool_version, r.migration_id, 'retired',
           jsonb_build_object('how', how, 'archive', r.archive, 'archive_digest', r.archive_digest,
                              'without_archive', r.without_archive)
      FROM spine_migrate.retirement r WHERE r.migration_id = ANY (asked) ORDER BY r.migration_id;
    RETURN statements;
END
$$"""

_CONTRACT = """\
CREATE FUNCTION spine_migrate.contract(max_wait interval, within interval) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + within;
    before text := current_setting('lock_timeout');
    asked bigint[] := ARRAY(SELECT migration_id FROM spine_migrate.migration
                             WHERE step NOT IN ('retired', 'undone') ORDER BY migration_id);
BEGIN
    IF NOT EXISTS (SELECT FROM spine_migrate.migration WHERE step <> 'undone') THEN
        RAISE EXCEPTION USING ERRCODE = '55000',
            MESSAGE = 'the legacy tables cannot be dropped: nothing has been migrated in this database; where nothing'
                      ' ever will be, alembic stamp spine_contract@head';
    END IF;
    IF asked = '{}' THEN
        RETURN;
    END IF;
    PERFORM spine_migrate.wait_until(clock_timestamp() + max_wait);
    PERFORM spine_migrate.retire_check(asked);
    PERFORM set_config('lock_timeout', before, true);
    LOOP
        BEGIN
            PERFORM spine_migrate.retire_drop(asked, max_wait, 'spine_contract');
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF clock_timestamp() > deadline THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(0.1 + random());
    END LOOP;
END
$$"""

_FUNCTIONS = {
    "legacy_digest(regclass)": _LEGACY_DIGEST,
    "retire_refusals(bigint[])": _REFUSALS,
    "retire_statements(bigint[])": _STATEMENTS,
    "wait_until(timestamptz)": _WAIT,
    "retire_check(bigint[])": _CHECK,
    "retire_drop(bigint[], interval, text)": _DROP,
    "contract(interval, interval)": _CONTRACT,
}


def upgrade() -> None:
    op.create_table(
        "retirement",
        sa.Column("migration_id", sa.BigInteger(), nullable=False),
        sa.Column("members", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column(
            "allowed_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("allowed_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.Column("mapping_digest", sa.Text(), nullable=False),
        sa.Column("cutover_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("source_table", sa.Text(), nullable=False),
        sa.Column("rows_digest", sa.Text(), nullable=False),
        sa.Column("archive", sa.Text()),
        sa.Column("archive_digest", sa.Text()),
        sa.Column("without_archive", sa.Text()),
        sa.Column("evidence", postgresql.JSONB(), nullable=False),
        sa.Column("retired_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("retired_by", sa.Text()),
        sa.Column("retired_how", sa.Text()),
        sa.Column("dropped", postgresql.JSONB()),
        sa.PrimaryKeyConstraint("migration_id", name=op.f("retirement_pkey")),
        sa.ForeignKeyConstraint(
            ["migration_id"],
            [f"{SCHEMA}.migration.migration_id"],
            name=op.f("retirement_migration_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "num_nulls(archive, archive_digest) IN (0, 2) AND num_nulls(archive, without_archive) = 1",
            name=op.f("retirement_archive_check"),
        ),
        sa.CheckConstraint(
            "num_nulls(retired_at, retired_by, retired_how, dropped) IN (0, 4)",
            name=op.f("retirement_retired_check"),
        ),
        schema=SCHEMA,
    )
    for statement in _FUNCTIONS.values():
        op.execute(statement)


# Where the archive is, and its digest, is on record nowhere else; a permission alone can be given again.
_REFUSE_WHEN_RETIRED = """\
DO $$
BEGIN
    IF EXISTS (SELECT FROM spine_migrate.retirement WHERE retired_at IS NOT NULL) THEN
        RAISE EXCEPTION USING ERRCODE = '55000',
            MESSAGE = 'legacy tables were retired, and spine_migrate.retirement is the record of their archives';
    END IF;
END
$$"""


def downgrade() -> None:
    op.execute(_REFUSE_WHEN_RETIRED)
    for function in reversed(_FUNCTIONS):
        op.execute(f"DROP FUNCTION spine_migrate.{function}")
    op.drop_table("retirement", schema=SCHEMA)
