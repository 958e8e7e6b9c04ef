-- The tool's own tables. The revision 0003 must build exactly this; tests/integration/test_schema_structure.py compares the catalogs.

CREATE SCHEMA spine_migrate;

-- One row per mapping that was started between two tables; at most one that is not undone
CREATE TABLE spine_migrate.migration (
    migration_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping text NOT NULL,
    mapping_digest text NOT NULL,
    source_table text NOT NULL,
    target_table text NOT NULL,
    step text NOT NULL CHECK (step IN ('backfill', 'done', 'cutover', 'retired', 'undoing', 'undone')),
    options jsonb NOT NULL DEFAULT '{}',
    tool_version text NOT NULL,
    started_by text NOT NULL DEFAULT session_user,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    rows_estimated bigint CHECK (rows_estimated >= 0),
    runner text
);

CREATE UNIQUE INDEX uq_migration_not_undone
ON spine_migrate.migration (mapping, source_table, target_table)
WHERE step <> 'undone';

-- How far each segment, a range of blocks of a table or partition, has come; written in the transaction of the rows it
-- counts. position is a tid: rows up to and including it are done
CREATE TABLE spine_migrate.checkpoint (
    migration_id bigint NOT NULL REFERENCES spine_migrate.migration ON DELETE CASCADE,
    segment integer NOT NULL,
    leaf_schema text NOT NULL,
    leaf_table text NOT NULL,
    filenode bigint NOT NULL,
    low_block bigint NOT NULL,
    high_block bigint,
    position text NOT NULL,
    rows_moved bigint NOT NULL DEFAULT 0,
    rows_adopted bigint NOT NULL DEFAULT 0 CHECK (rows_adopted >= 0),
    rows_quarantined bigint NOT NULL DEFAULT 0 CHECK (rows_quarantined >= 0),
    batches bigint NOT NULL DEFAULT 0 CHECK (batches >= 0),
    batch_size integer CHECK (batch_size > 0),
    done boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (migration_id, segment),
    CONSTRAINT checkpoint_rows_moved_check CHECK (rows_moved >= 0 OR segment < 0)
);

-- Source rows that could not be carried, whole, with the reason
CREATE TABLE spine_migrate.quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration_id bigint NOT NULL REFERENCES spine_migrate.migration ON DELETE CASCADE,
    source_key text NOT NULL,
    source_row json NOT NULL,
    reason text NOT NULL,
    field text,
    detail text NOT NULL,
    sqlstate text,
    constraint_name text,
    colliding_row json,
    attempts integer NOT NULL DEFAULT 1 CHECK (attempts >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    discarded_at timestamptz,
    discarded_by text,
    accepted_at timestamptz,
    accepted_by text,
    accepted_reason text,
    accepted_digest text,
    UNIQUE (migration_id, source_key),
    CONSTRAINT quarantine_discarded_check CHECK ((discarded_at IS NULL) = (discarded_by IS NULL)),
    CONSTRAINT quarantine_accepted_check CHECK (num_nulls(accepted_at, accepted_by, accepted_reason, accepted_digest) IN (0, 4))
);

CREATE INDEX ix_quarantine_reason ON spine_migrate.quarantine (migration_id, reason);

-- References to rows that had not arrived yet; gone once completed
CREATE TABLE spine_migrate.link (
    migration_id bigint NOT NULL REFERENCES spine_migrate.migration ON DELETE CASCADE,
    target_key text NOT NULL,
    field text NOT NULL,
    wanted text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'broken')),
    PRIMARY KEY (migration_id, target_key, field)
);

-- Indexes and foreign keys taken away for an offline load, to be built again after it
CREATE TABLE spine_migrate.deferred_ddl (
    migration_id bigint NOT NULL REFERENCES spine_migrate.migration ON DELETE CASCADE,
    ordinal integer NOT NULL,
    object text NOT NULL,
    kind text NOT NULL,
    drop_sql text NOT NULL,
    create_sql text NOT NULL,
    facts jsonb NOT NULL DEFAULT '{}',
    built_at timestamptz,
    PRIMARY KEY (migration_id, ordinal)
);

-- Who did what; no foreign key, so that it outlives the migration it names
CREATE TABLE spine_migrate.audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL DEFAULT session_user,
    tool_version text NOT NULL,
    migration_id bigint,
    action text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);

-- Target rows that a repair has made, changed or removed; before is the row as it was. No foreign key, as for audit
CREATE TABLE spine_migrate.repair (
    repair_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL DEFAULT session_user,
    tool_version text NOT NULL,
    migration_id bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('missing', 'quarantined', 'differing', 'extra')),
    source_key text,
    target_key text,
    fields text[] NOT NULL DEFAULT '{}',
    before json
);

CREATE INDEX ix_repair_migration ON spine_migrate.repair (migration_id, target_key);

-- Tables whose changes are captured: forward from the legacy table, reverse from the target after a cutover. A trigger
-- function of the name capture_ID belongs to each
CREATE TABLE spine_migrate.capture (
    capture_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration_id bigint NOT NULL REFERENCES spine_migrate.migration ON DELETE CASCADE,
    direction text NOT NULL CHECK (direction IN ('forward', 'reverse')),
    relation text NOT NULL,
    style text NOT NULL CHECK (style IN ('statement', 'row')),
    why text,
    tool_version text NOT NULL,
    installed_by text NOT NULL DEFAULT session_user,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    caught_up boolean NOT NULL DEFAULT false,
    applied bigint NOT NULL DEFAULT 0,
    applied_at timestamptz,
    UNIQUE (migration_id, direction)
);

-- Keys of rows that were written, in the writer's own transaction; row_key NULL: the table was truncated. What is applied
-- is deleted
CREATE TABLE spine_migrate.change_log (
    capture_id bigint NOT NULL,
    row_key text,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 200000
);

ALTER TABLE spine_migrate.change_log REPLICA IDENTITY FULL;

CREATE INDEX ix_change_log ON spine_migrate.change_log (capture_id, at);

-- Changes that are applied again: keys that were gone while a batch may have been in flight, and all keys after a TRUNCATE;
-- and rows that are put off because something they need is not there yet, or is taken
CREATE TABLE spine_migrate.pending (
    capture_id bigint NOT NULL REFERENCES spine_migrate.capture ON DELETE CASCADE,
    why text NOT NULL CHECK (why IN ('gone', 'deferred', 'all')),
    row_key text NOT NULL,
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    detail text,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (capture_id, why, row_key)
);

-- What an operator asks of a run from another terminal, and which signal holds it back
CREATE TABLE spine_migrate.control (
    migration_id bigint PRIMARY KEY REFERENCES spine_migrate.migration ON DELETE CASCADE,
    paused_at timestamptz,
    paused_by text,
    settings jsonb NOT NULL DEFAULT '{}',
    held_by text,
    held_detail text,
    held_since timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT control_paused_check CHECK ((paused_at IS NULL) = (paused_by IS NULL)),
    CONSTRAINT control_held_check CHECK ((held_by IS NULL) = (held_since IS NULL))
);

-- What has been switched: source_table is the application's name, which the view has now, legacy_table what the table is
-- called since; triggers are those of the application that are off, with how they were; remade are statements that point views and
-- functions to whatever has the name; foreign_keys those of other tables, as they were. After a rollback the row stays
CREATE TABLE spine_migrate.cutover (
    migration_id bigint PRIMARY KEY REFERENCES spine_migrate.migration ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by text NOT NULL DEFAULT session_user,
    tool_version text NOT NULL,
    source_table text NOT NULL,
    legacy_table text NOT NULL,
    view boolean NOT NULL,
    triggers jsonb NOT NULL DEFAULT '{}',
    remade jsonb NOT NULL DEFAULT '[]',
    foreign_keys jsonb NOT NULL DEFAULT '[]',
    rolled_back_at timestamptz,
    settled_at timestamptz
);

-- Writes through the views, at most one per session and hour; only ever inserted, so that no writer waits for another
CREATE TABLE spine_migrate.view_write (
    migration_id bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role text NOT NULL,
    application text,
    operation text
);

-- Target rows as they were before a rollback gave them what their legacy rows say
CREATE TABLE spine_migrate.set_aside (
    set_aside_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration_id bigint NOT NULL,
    target_key text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    before json NOT NULL
);

CREATE INDEX ix_set_aside_migration ON spine_migrate.set_aside (migration_id, target_key);

-- What meets a transaction whose snapshot is older than a switch and that comes to its tables after it
CREATE FUNCTION spine_migrate.old_snapshot() RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN
    RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = 'could not serialize access due to a cutover',
        DETAIL = 'The snapshot of the transaction is older than the switch of its tables.',
        HINT = 'Run the transaction again.';
END$$;

-- Who reads a view must be able to call what its condition names, also where default privileges say otherwise.
GRANT EXECUTE ON FUNCTION spine_migrate.old_snapshot() TO PUBLIC;

CREATE FUNCTION spine_migrate.refuse_old_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = 'could not serialize access due to a cutover',
        DETAIL = 'The snapshot of the transaction is older than the switch of its tables.',
        HINT = 'Run the transaction again.';
END$$;

-- What may be dropped, and what was: members go together, rows_digest is of the legacy table's rows when its archive was written.
-- The functions that drop it are those of the revision 0009.
CREATE TABLE spine_migrate.retirement (
    migration_id bigint PRIMARY KEY REFERENCES spine_migrate.migration ON DELETE CASCADE,
    members bigint[] NOT NULL,
    allowed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    allowed_by text NOT NULL DEFAULT session_user,
    tool_version text NOT NULL,
    mapping_digest text NOT NULL,
    cutover_at timestamptz NOT NULL,
    source_table text NOT NULL,
    rows_digest text NOT NULL,
    archive text,
    archive_digest text,
    without_archive text,
    evidence jsonb NOT NULL,
    retired_at timestamptz,
    retired_by text,
    retired_how text,
    dropped jsonb,
    CONSTRAINT retirement_archive_check
        CHECK (num_nulls(archive, archive_digest) IN (0, 2) AND num_nulls(archive, without_archive) = 1),
    CONSTRAINT retirement_retired_check CHECK (num_nulls(retired_at, retired_by, retired_how, dropped) IN (0, 4))
);
