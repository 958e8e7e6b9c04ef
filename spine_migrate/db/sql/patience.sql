-- name: lock_timeout
-- The longest that a statement of this transaction waits for a lock.
SELECT set_config('lock_timeout', %(milliseconds)s, true);

-- name: holders
-- The locks that other sessions and prepared transactions have on some tables, or wait for. What a session executes is
-- not told; an autovacuum says in its text, which is the server's own, why it runs.
SELECT n.nspname AS schema, c.relname AS table_name, l.mode, l.granted,
       CASE WHEN p.gid IS NOT NULL THEN 'prepared transaction'
            WHEN a.backend_type = 'client backend' OR a.usesysid IS NOT NULL THEN 'client'
            WHEN a.backend_type = 'autovacuum worker' AND a.query LIKE '%%(to prevent wraparound)'
            THEN 'autovacuum to prevent wraparound'
            WHEN a.backend_type = 'autovacuum worker' THEN 'autovacuum'
            ELSE 'another process' END AS what,
       l.pid, coalesce(p.owner, a.usename)::text AS role, nullif(a.application_name, '') AS application, a.state,
       extract(epoch FROM clock_timestamp() - coalesce(p.prepared, a.xact_start))::int AS seconds
  FROM (SELECT DISTINCT given.schema, given.name
          FROM unnest(%(schemas)s::text[], %(tables)s::text[]) AS given (schema, name)) AS given
  JOIN pg_namespace n ON n.nspname = given.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = given.name
  JOIN pg_locks l ON l.relation = c.oid AND l.locktype = 'relation'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.pid IS DISTINCT FROM pg_backend_pid()
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  -- A prepared transaction has the number of the session that prepared it, or one of its own after a restart.
  LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.virtualtransaction = l.virtualtransaction
        AND x.locktype = 'transactionid'
  LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
 ORDER BY coalesce(p.prepared, a.xact_start) NULLS LAST, l.pid, n.nspname, c.relname, l.mode;
