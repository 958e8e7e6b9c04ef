-- name: snapshot
-- What one comparison stands on. A standby has no position of its own, it has replayed up to one.
SELECT pg_current_snapshot()::text AS snapshot,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text AS lsn,
       pg_is_in_recovery() AS standby, current_database()::text AS database,
       current_setting('server_version') AS server_version, transaction_timestamp() AS taken_at;

-- name: place
-- What tells one database of one running server from all others.
SELECT system_identifier, d.oid::bigint AS database, pg_postmaster_start_time() AS started
  FROM pg_control_system(), pg_database d
 WHERE d.datname = current_database();

-- name: unique_column
-- Whether the catalog keeps the values of a column unique, in all rows of the table and of what inherits from it.
SELECT EXISTS (
           SELECT FROM pg_index i
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            WHERE i.indrelid = %(oid)s::oid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
              AND i.indpred IS NULL AND i.indexprs IS NULL AND a.attname = %(column)s)
   AND NOT EXISTS (
           SELECT FROM pg_inherits h
             JOIN pg_class c ON c.oid = h.inhparent
            WHERE h.inhparent = %(oid)s::oid AND c.relkind = 'r');

-- name: rewritten
-- Tables among those that hold the rows of one whose file is not the one that this transaction's snapshot knows: the catalog is
-- read in the snapshot, the function tells what is there now.
WITH RECURSIVE tree(oid) AS (
    SELECT %(oid)s::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT c.oid::regclass::text
  FROM tree t
  JOIN pg_class c ON c.oid = t.oid
 WHERE c.relkind = 'r' AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)
 ORDER BY 1;

-- name: quarantine
-- The quarantine of a migration by reason.
SELECT reason, count(*) FILTER (WHERE discarded_at IS NULL) AS open,
       count(*) FILTER (WHERE discarded_at IS NOT NULL) AS discarded
  FROM spine_migrate.quarantine
 WHERE migration_id = %(migration_id)s
 GROUP BY reason
 ORDER BY reason;

-- name: links
-- References of a migration that are known to be NULL on the target.
SELECT field, count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'broken') AS broken
  FROM spine_migrate.link
 WHERE migration_id = %(migration_id)s
 GROUP BY field
 ORDER BY field;

-- name: counters
-- What the checkpoints of a migration say is on the target. Rows in quarantine are counted in the quarantine itself, which a
-- retry changes.
SELECT coalesce(sum(rows_moved), 0)::bigint, coalesce(sum(rows_adopted), 0)::bigint
  FROM spine_migrate.checkpoint
 WHERE migration_id = %(migration_id)s;

-- name: hash_memory
-- What a hash may take before it spills to disk, and what a session may spill, in bytes; NULL: as much as there is.
SELECT (pg_size_bytes(current_setting('work_mem')) * current_setting('hash_mem_multiplier')::float8)::bigint AS memory,
       pg_size_bytes(nullif(current_setting('temp_file_limit'), '-1')) AS temp;

-- name: row_width
-- Bytes of a row on average, as the last ANALYZE found it, and how many blocks there were then; NULL where there was none
-- or the role may not read it.
SELECT (SELECT sum(avg_width)
          FROM (SELECT DISTINCT ON (attname) avg_width
                  FROM pg_stats
                 WHERE schemaname = %(schema)s AND tablename = %(table)s
                 ORDER BY attname, inherited DESC) s)::bigint AS width,
       coalesce((SELECT sum(l.relpages) FROM pg_partition_tree(c.oid) t JOIN pg_class l ON l.oid = t.relid
                  WHERE t.isleaf), c.relpages)::bigint AS blocks
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = %(table)s;
