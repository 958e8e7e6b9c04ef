-- name: lock_timeout
-- The longest that a statement of this transaction waits for a lock.
SELECT set_config('lock_timeout', %(milliseconds)s, true);

-- name: holders
-- Sessions with a lock on some tables, those with the oldest transactions first.
SELECT l.pid, coalesce(a.usename, 'another role'), l.mode,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start)::int::text, '?')
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.granted AND l.pid <> pg_backend_pid()
   AND l.relation IN (SELECT to_regclass(name)::oid FROM unnest(%(tables)s::text[]) AS given(name))
 ORDER BY a.xact_start NULLS LAST, l.pid
 LIMIT 5;
