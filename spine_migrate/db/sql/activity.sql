-- name: activity
-- Per migration: the writes its source has had since its statistics began, the sessions that wait for a lock and have or
-- want one on the source or the target, and what holds a run back. Tables are looked up in the catalog, since to_regclass
-- asks for USAGE on their schemas.
WITH RECURSIVE tables AS (
    SELECT m.migration_id, c.oid, c.name = m.source_table AS is_source
      FROM spine_migrate.migration m
      JOIN (SELECT x.oid, '"' || replace(s.nspname, '"', '""') || '"."' || replace(x.relname, '"', '""') || '"' AS name
              FROM pg_class x JOIN pg_namespace s ON s.oid = x.relnamespace
             WHERE x.relkind IN ('r', 'p')) c ON c.name IN (m.source_table, m.target_table)
     WHERE m.step <> 'undone'
     UNION
    SELECT t.migration_id, i.inhrelid, t.is_source FROM tables t JOIN pg_inherits i ON i.inhparent = t.oid
), written AS (
    SELECT migration_id, sum(pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid)
                             + pg_stat_get_tuples_deleted(oid))::bigint AS writes
      FROM tables WHERE is_source GROUP BY migration_id
), waiting AS (
    SELECT t.migration_id, count(DISTINCT w.pid) AS sessions,
           extract(epoch FROM max(clock_timestamp() - w.waitstart))::float AS seconds
      FROM tables t
      JOIN pg_locks h ON h.relation = t.oid
                     AND h.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      JOIN pg_locks w ON w.pid = h.pid AND NOT w.granted
     GROUP BY t.migration_id
)
SELECT m.migration_id, coalesce(r.writes, 0) AS source_writes, coalesce(w.sessions, 0) AS lock_waits,
       coalesce(w.seconds, 0) AS longest_wait, c.paused_at, c.paused_by, c.held_by, c.held_detail, c.held_since
  FROM spine_migrate.migration m
  LEFT JOIN written r USING (migration_id)
  LEFT JOIN waiting w USING (migration_id)
  LEFT JOIN spine_migrate.control c USING (migration_id)
 WHERE m.step <> 'undone';
