-- name: advance
-- Move a checkpoint, as long as the table's file is still the one that positions were counted in.
UPDATE spine_migrate.checkpoint AS c
   SET position = %(position)s, rows_moved = rows_moved + %(moved)s, rows_adopted = rows_adopted + %(adopted)s,
       rows_quarantined = rows_quarantined + %(quarantined)s, batches = batches + 1, batch_size = %(batch_size)s,
       done = %(done)s, updated_at = clock_timestamp()
 WHERE migration_id = %(migration_id)s AND segment = %(segment)s
   AND filenode = pg_relation_filenode(format('%%I.%%I', leaf_schema, leaf_table)::regclass);

-- name: add_segment
-- A range of blocks to do.
INSERT INTO spine_migrate.checkpoint (migration_id, segment, leaf_schema, leaf_table, filenode, low_block, high_block,
                                      position)
VALUES (%(migration_id)s, %(segment)s, %(leaf_schema)s, %(leaf_table)s, %(filenode)s, %(low_block)s, %(high_block)s,
        %(position)s);

-- name: add_repairs
-- Where rows are counted that did not come from the scan.
INSERT INTO spine_migrate.checkpoint (migration_id, segment, leaf_schema, leaf_table, filenode, low_block, high_block,
                                      position, done)
VALUES (%(migration_id)s, %(segment)s, %(leaf_schema)s, %(leaf_table)s, 0, 0, 0, '(0,0)', true);

-- name: brief
-- Half of the default deadlock_timeout. No query, so that no snapshot is taken by it.
SET LOCAL lock_timeout = '500ms';

-- name: count_repairs
-- Count rows that were moved by key.
UPDATE spine_migrate.checkpoint
   SET rows_moved = rows_moved + %(moved)s, rows_adopted = rows_adopted + %(adopted)s,
       rows_quarantined = rows_quarantined + %(quarantined)s, batches = batches + 1, updated_at = clock_timestamp()
 WHERE migration_id = %(migration_id)s AND segment = %(segment)s;

-- name: abandon_rewritten
-- Segments of tables whose file changed: what they have not reached is left to the sweep.
UPDATE spine_migrate.checkpoint
   SET done = true, updated_at = clock_timestamp()
 WHERE migration_id = %(migration_id)s AND NOT done
   AND filenode IS DISTINCT FROM
       pg_relation_filenode(to_regclass(format('%%I.%%I', leaf_schema, leaf_table)));

-- name: leaf_blocks
-- How many blocks a table has now.
SELECT pg_relation_size(format('%%I.%%I', %(leaf_schema)s::text, %(leaf_table)s::text)::regclass)
       / current_setting('block_size')::bigint;

-- name: counts
-- What a migration has accounted for: moved, adopted, in quarantine.
SELECT coalesce(sum(rows_moved), 0)::bigint, coalesce(sum(rows_adopted), 0)::bigint,
       (SELECT count(*) FROM spine_migrate.quarantine q WHERE q.migration_id = %(migration_id)s)
  FROM spine_migrate.checkpoint c
 WHERE c.migration_id = %(migration_id)s;

-- name: unscanned
-- Whether rows may be there that no scan has met: in a file that came since, by a rewrite or with a part that was attached;
-- or because they were left to an applier, and given up when the capture was; segment -2 counts what one does.
WITH RECURSIVE tree(oid) AS (
    SELECT to_regclass(%(source)s)::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT EXISTS (
    SELECT FROM tree t
      JOIN pg_class c ON c.oid = t.oid
     WHERE c.relkind = 'r'
       AND NOT EXISTS (SELECT FROM spine_migrate.checkpoint k
                        WHERE k.migration_id = %(migration_id)s AND k.leaf_table = c.relname
                          AND k.leaf_schema = c.relnamespace::regnamespace::text
                          AND k.filenode = pg_relation_filenode(c.oid)::bigint))
    OR EXISTS (SELECT FROM spine_migrate.checkpoint
                WHERE migration_id = %(migration_id)s AND segment = -2 AND batches > 0);

-- name: reasons
-- The quarantine by reason.
SELECT reason, count(*) FROM spine_migrate.quarantine WHERE migration_id = %(migration_id)s GROUP BY reason ORDER BY reason;

-- name: link_counts
-- Links that are not completed, by field and state.
SELECT field, state, count(*) FROM spine_migrate.link WHERE migration_id = %(migration_id)s
 GROUP BY field, state ORDER BY field, state;

-- name: has_quarantine
-- Whether any row of a migration is in quarantine.
SELECT EXISTS (SELECT FROM spine_migrate.quarantine WHERE migration_id = %(migration_id)s);

-- name: try_lock
-- The lock that one run of the tool holds on a migration.
SELECT pg_try_advisory_lock(hashtextextended(%(name)s, 7741));

-- name: unlock_all
-- All that the session holds.
SELECT pg_advisory_unlock_all();

-- name: oldest_xid
-- The oldest transaction that is still running: everything before it is seen by every batch.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint;

-- name: since
-- What oldest_xid was before a migration began.
SELECT (options ->> 'since_xid')::bigint FROM spine_migrate.migration WHERE migration_id = %(migration_id)s;
