-- name: references
-- Foreign keys of other tables, and of runs itself, that keep a run from being deleted; whether an index serves each.
SELECT n.nspname AS schema, c.relname AS table_name, a.attname AS column_name, f.attname AS referenced,
       con.conrelid = con.confrelid AS own,
       EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
                WHERE i.indrelid = con.conrelid AND i.indisvalid AND i.indkey[0] = con.conkey[1]
                  AND m.amname IN ('btree', 'hash')
                  AND (i.indpred IS NULL
                       OR pg_get_expr(i.indpred, i.indrelid) = format('(%%I IS NOT NULL)', a.attname))) AS indexed,
       pg_table_size(con.conrelid) AS bytes
  FROM pg_constraint con
  JOIN pg_class c ON c.oid = con.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = con.conkey[1]
  JOIN pg_attribute f ON f.attrelid = con.confrelid AND f.attnum = con.confkey[1]
 WHERE con.contype = 'f' AND con.conparentid = 0 AND con.confrelid = to_regclass(%(runs)s)
   AND con.confdeltype IN ('a', 'r') AND con.conrelid IS DISTINCT FROM to_regclass(%(run_events)s)
 ORDER BY n.nspname, c.relname, con.conname;

-- name: ordered
-- Whether an index gives runs by age, and the size of the table in bytes.
SELECT EXISTS (SELECT FROM pg_index i
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attname = 'created_at'
                WHERE i.indrelid = to_regclass(%(runs)s) AND i.indisvalid AND i.indpred IS NULL) AS indexed,
       pg_table_size(to_regclass(%(runs)s)) AS bytes;

-- name: window
-- The next runs that are old enough, from the newest to the oldest, so that a run comes after those it has led to.
SELECT r.run_id, r.created_at::text AS at, h.run_id IS NOT NULL AS handed
  FROM {runs} r LEFT JOIN {run_handoff} h USING (run_id)
 WHERE r.created_at < %(before)s AND {wanted}
   AND (r.created_at, r.run_id) < (%(last_at)s::timestamptz, %(last_id)s::uuid)
 ORDER BY r.created_at DESC NULLS LAST, r.run_id DESC
 LIMIT %(limit)s;

-- name: lock_handoffs
-- Whoever changes a run locks its handoff first; here too, and without waiting, so that nobody can wait for both sides.
SELECT run_id FROM {run_handoff} WHERE run_id = ANY (%(keys)s) ORDER BY run_id FOR UPDATE SKIP LOCKED;

-- name: lock_runs
-- Of some runs those that are still to go.
SELECT r.run_id
  FROM {runs} r
 WHERE r.run_id = ANY (%(keys)s) AND {final}
 ORDER BY r.run_id
   FOR UPDATE SKIP LOCKED;

-- name: staying
-- Of some runs those that a row which stays names, through as many runs as it takes.
WITH RECURSIVE going AS MATERIALIZED (
    SELECT r.run_id, r.parent_run_id, r.retry_of_run_id FROM {runs} r WHERE r.run_id = ANY (%(keys)s)
), kept (run_id, reason) AS (
    SELECT found.run_id, found.reason
      FROM (SELECT r.run_id,
                   CASE WHEN EXISTS (SELECT FROM {runs} c
                                      WHERE c.parent_run_id = r.run_id AND c.run_id NOT IN (SELECT run_id FROM going))
                        THEN 'parent'
                        WHEN EXISTS (SELECT FROM {runs} c
                                      WHERE c.retry_of_run_id = r.run_id AND c.run_id NOT IN (SELECT run_id FROM going))
                        THEN 'retried'
                        WHEN {named} THEN 'referenced' END AS reason
              FROM {runs} r WHERE r.run_id = ANY (%(keys)s)) AS found
     WHERE found.reason IS NOT NULL
    UNION
    SELECT p.run_id, CASE WHEN p.run_id = c.parent_run_id THEN 'parent' ELSE 'retried' END
      FROM kept k JOIN going c USING (run_id) JOIN going p ON p.run_id IN (c.parent_run_id, c.retry_of_run_id)
)
SELECT run_id, min(reason) AS reason FROM kept GROUP BY run_id;

-- name: delete_events
-- What happened to runs that go.
DELETE FROM {run_events} WHERE run_id = ANY (%(keys)s);

-- name: delete_handoffs
-- How they came to their workers.
DELETE FROM {run_handoff} WHERE run_id = ANY (%(keys)s);

-- name: delete_runs
-- The runs; parents and children of one batch in one statement, at whose end the foreign keys are looked at.
DELETE FROM {runs} WHERE run_id = ANY (%(keys)s) RETURNING status, parent_run_id, retry_of_run_id;

-- name: passed_over
-- Whether a run that was just named no longer had been passed over: it is newer than the one that named it.
SELECT EXISTS (
    SELECT FROM {runs} r
     WHERE r.run_id = ANY (%(named)s) AND r.created_at < %(before)s
       AND (r.created_at, r.run_id) >= (%(last_at)s::timestamptz, %(last_id)s::uuid)
);

-- name: count
-- What a purge would do: how many runs of each status would go, and how many would stay for which reason.
WITH RECURSIVE old AS MATERIALIZED (
    SELECT r.run_id, r.parent_run_id, r.retry_of_run_id, r.status, {named} AS named
      FROM {runs} r LEFT JOIN {run_handoff} h USING (run_id)
     WHERE r.created_at < %(before)s AND {wanted}
), pointing AS MATERIALIZED (
    SELECT c.run_id, o.run_id AS pointed, 'parent' AS reason FROM old o JOIN {runs} c ON c.parent_run_id = o.run_id
    UNION ALL
    SELECT c.run_id, o.run_id, 'retried' FROM old o JOIN {runs} c ON c.retry_of_run_id = o.run_id
), kept (run_id, reason) AS (
    SELECT first.run_id, first.reason
      FROM (SELECT p.pointed AS run_id, p.reason
              FROM pointing p WHERE p.run_id NOT IN (SELECT run_id FROM old)
            UNION
            SELECT run_id, 'referenced' FROM old WHERE named) AS first
    UNION
    SELECT p.pointed, p.reason FROM kept k JOIN pointing p ON p.run_id = k.run_id
), told AS (
    SELECT run_id, min(reason) AS reason FROM kept GROUP BY run_id
)
SELECT CASE WHEN told.run_id IS NULL THEN 'go' ELSE 'stay' END AS fate, coalesce(told.reason, old.status) AS what,
       count(*) AS runs
  FROM old LEFT JOIN told USING (run_id)
 GROUP BY 1, 2
 ORDER BY 1, 2;
