-- name: installed
-- Whether the ledger's tables are there.
SELECT to_regclass('spine_migrate.quarantine') IS NOT NULL AND to_regclass('spine_migrate.audit') IS NOT NULL;

-- name: live
-- The migration of a mapping between two tables that is not undone.
SELECT migration_id, mapping, mapping_digest, source_table, target_table, step, options, tool_version, started_by,
       started_at, finished_at, rows_estimated
  FROM spine_migrate.migration
 WHERE mapping = %(mapping)s AND source_table = %(source_table)s AND target_table = %(target_table)s
   AND step <> 'undone';

-- name: migrations
-- All migrations, oldest first.
SELECT migration_id, mapping, mapping_digest, source_table, target_table, step, options, tool_version, started_by,
       started_at, finished_at, rows_estimated
  FROM spine_migrate.migration
 WHERE %(undone)s OR step <> 'undone'
 ORDER BY migration_id;

-- name: start
-- A new migration.
INSERT INTO spine_migrate.migration (mapping, mapping_digest, source_table, target_table, step, options, tool_version,
                                     rows_estimated)
VALUES (%(mapping)s, %(digest)s, %(source_table)s, %(target_table)s, 'backfill', %(options)s, %(tool_version)s,
        %(rows_estimated)s)
RETURNING migration_id;

-- name: set_step
-- A transition; done and undone are ends and carry their time.
UPDATE spine_migrate.migration
   SET step = %(step)s, finished_at = CASE WHEN %(step)s IN ('done', 'undone') THEN clock_timestamp() END
 WHERE migration_id = %(migration_id)s;

-- name: checkpoints
-- How far each segment has come.
SELECT migration_id, segment, leaf_schema, leaf_table, filenode, low_block, high_block, position, rows_moved,
       rows_adopted, rows_quarantined, batches, batch_size, done, updated_at
  FROM spine_migrate.checkpoint
 WHERE migration_id = %(migration_id)s
 ORDER BY segment;

-- name: checkpoint
-- One segment.
SELECT migration_id, segment, leaf_schema, leaf_table, filenode, low_block, high_block, position, rows_moved,
       rows_adopted, rows_quarantined, batches, batch_size, done, updated_at
  FROM spine_migrate.checkpoint
 WHERE migration_id = %(migration_id)s AND segment = %(segment)s;

-- name: checkpoint_locked
-- One segment, locked until the transaction ends.
SELECT migration_id, segment, leaf_schema, leaf_table, filenode, low_block, high_block, position, rows_moved,
       rows_adopted, rows_quarantined, batches, batch_size, done, updated_at
  FROM spine_migrate.checkpoint
 WHERE migration_id = %(migration_id)s AND segment = %(segment)s
   FOR UPDATE;

-- name: audit
-- Who did what.
INSERT INTO spine_migrate.audit (tool_version, migration_id, action, detail)
VALUES (%(tool_version)s, %(migration_id)s, %(action)s, %(detail)s);
