-- name: replica_lag
-- The replica or slot that is furthest behind, in bytes of WAL. Of a standby counts what it has replayed; what only
-- receives (pg_receivewal) has written it. A base backup and the slot that it makes for itself wait for nothing. Others'
-- walsenders are shown to nobody without pg_read_all_stats.
SELECT pg_has_role('pg_read_all_stats', 'USAGE') AS readable, f.name, f.behind
  FROM (SELECT) one
  LEFT JOIN LATERAL (
       SELECT p.name, pg_wal_lsn_diff(pg_current_wal_lsn(), p.reached)::bigint AS behind
         FROM (SELECT 'the replica ' || coalesce(nullif(r.application_name, ''), r.client_addr::text, r.pid::text) AS name,
                      coalesce(r.replay_lsn, r.write_lsn) AS reached
                 FROM pg_stat_replication r WHERE r.state <> 'backup'
               UNION ALL
               SELECT CASE WHEN s.active THEN 'the slot ' ELSE 'the slot, which nobody reads, ' END || s.slot_name,
                      CASE s.slot_type WHEN 'physical' THEN s.restart_lsn ELSE s.confirmed_flush_lsn END
                 FROM pg_replication_slots s WHERE NOT s.temporary AND s.wal_status IS DISTINCT FROM 'lost') p
        WHERE p.reached IS NOT NULL
        ORDER BY behind DESC
        LIMIT 1
       ) f ON true;

-- name: lock_waits
-- Sessions that have been waiting for a while for a lock on one of these tables or what inherits from them, or for another
-- transaction while they have one of the tables locked: a row of it, or a key that somebody is about to write. One look at
-- pg_locks, since two would see two moments.
WITH RECURSIVE tree(oid) AS (
    SELECT o FROM unnest(%(oids)s::oid[]) AS o
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
), locks AS MATERIALIZED (
    SELECT l.pid, l.locktype, l.granted, l.waitstart,
           l.relation IN (SELECT oid FROM tree)
           AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AS on_tables
      FROM pg_locks l
)
SELECT count(DISTINCT w.pid)
  FROM locks w
 WHERE NOT w.granted AND w.waitstart < clock_timestamp() - make_interval(secs => %(seconds)s)
   AND w.pid <> ALL (%(ours)s::int[])
   AND (w.on_tables AND w.locktype <> 'extend'
        OR w.locktype IN ('transactionid', 'virtualxid', 'spectoken')
           AND EXISTS (SELECT FROM locks h WHERE h.pid = w.pid AND h.granted AND h.on_tables));

-- name: active_sessions
-- Sessions of the whole server that are executing a statement. Whether others' are is shown to nobody without
-- pg_read_all_stats.
SELECT pg_has_role('pg_read_all_stats', 'USAGE') AS readable, count(*) AS active
  FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND state = 'active'
   AND pid <> pg_backend_pid() AND pid <> ALL (%(ours)s::int[]);

-- name: wal_position
-- How many bytes of WAL the server has written in its life, and when that was, in seconds of its clock.
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, extract(epoch FROM clock_timestamp())::float8;
