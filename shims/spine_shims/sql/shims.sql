-- name: limit_statement
-- What hangs for longer is given up, by the transaction; a pooler may hand the session to somebody else after it.
SELECT set_config('statement_timeout', %(milliseconds)s, true);

-- name: modes_and_ready
-- The mode of each task that has one; and, without a mode, the tasks that a worker has announced lately, and those that a
-- worker has which has not their shim: it has no version.
SELECT task, mode, NULL AS shimmed FROM {shim_mode}
UNION ALL
SELECT DISTINCT task, NULL, version <> ''
  FROM {shim_worker}
 WHERE seen_at > now() - make_interval(
           secs => CASE version WHEN '' THEN %(mixed_seconds)s::float8 ELSE %(ready_seconds)s::float8 END);

-- name: seen_without
-- That some nodes have some tasks without their shims. In the order of the key, so that two who see the same do not
-- refuse each other.
INSERT INTO {shim_worker} (task, host, version, since, seen_at)
SELECT task, node, '', 'epoch', now()
  FROM unnest(%(tasks)s::text[], %(nodes)s::text[]) AS seen (task, node)
 ORDER BY task, node
ON CONFLICT (task, host, version, since) DO UPDATE SET seen_at = EXCLUDED.seen_at;

-- name: count
-- Add to who calls what. Ages are seconds before now: an application's clock may be wrong. In the order of the key, so
-- that two that add at the same time wait for each other instead of both being refused.
INSERT INTO {shim_call} AS c (task, caller, host, version, mode, side, count, first_seen, last_seen)
SELECT task, caller, %(host)s, %(version)s, mode, side, count,
       now() - make_interval(secs => first_age), now() - make_interval(secs => last_age)
  FROM unnest(%(tasks)s::text[], %(callers)s::text[], %(modes)s::text[], %(sides)s::text[], %(counts)s::bigint[],
              %(first_ages)s::float8[], %(last_ages)s::float8[])
    AS added (task, caller, mode, side, count, first_age, last_age)
 ORDER BY task, caller, mode, side
ON CONFLICT (task, caller, host, version, mode, side) DO UPDATE
   SET count = c.count + EXCLUDED.count,
       first_seen = least(c.first_seen, EXCLUDED.first_seen),
       last_seen = greatest(c.last_seen, EXCLUDED.last_seen);

-- name: announce
-- That a host's workers have the shims of some tasks, and have had them for as long as this process has. The row goes on
-- where that leaves no gap, else another one begins. One that is fresh, or that another process has in its hands, is
-- left alone: nobody waits here.
WITH mine AS (
    SELECT task, uptime FROM unnest(%(tasks)s::text[], %(uptimes)s::float8[]) AS m (task, uptime)
), going_on AS MATERIALIZED (
    SELECT w.task, max(w.since) AS since, max(w.seen_at) AS seen_at
      FROM {shim_worker} w JOIN mine m USING (task)
     WHERE w.host = %(host)s AND w.version = %(version)s
       AND w.seen_at >= now() - make_interval(secs => m.uptime + %(gap_seconds)s)
     GROUP BY w.task
), free AS MATERIALIZED (
    SELECT w.task, w.since
      FROM {shim_worker} w JOIN going_on g USING (task, since)
     WHERE w.host = %(host)s AND w.version = %(version)s
       AND g.seen_at < now() - make_interval(secs => %(fresh_seconds)s)
       FOR UPDATE OF w SKIP LOCKED
), moved AS (
    UPDATE {shim_worker} w SET seen_at = now()
      FROM free f
     WHERE w.task = f.task AND w.host = %(host)s AND w.version = %(version)s AND w.since = f.since
)
INSERT INTO {shim_worker} (task, host, version, since, seen_at)
SELECT task, %(host)s, %(version)s, now() - make_interval(secs => uptime), now()
  FROM mine
 WHERE task NOT IN (SELECT task FROM going_on)
 ORDER BY task
ON CONFLICT (task, host, version, since) DO NOTHING;
