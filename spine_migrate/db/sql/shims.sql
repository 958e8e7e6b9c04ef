-- name: now
-- By which everything here was stamped.
SELECT clock_timestamp();

-- name: calls
-- Who called what, hosts together, the latest first; of some tasks, or of all, since a time, or ever.
SELECT task, caller, array_agg(DISTINCT host ORDER BY host) AS hosts, version, mode, side, sum(count)::bigint AS count,
       min(first_seen) AS first_seen, max(last_seen) AS last_seen
  FROM {shim_call}
 WHERE (%(tasks)s::text[] IS NULL OR task = ANY (%(tasks)s))
 GROUP BY task, caller, version, mode, side
HAVING %(since)s::timestamptz IS NULL OR max(last_seen) >= %(since)s
 ORDER BY max(last_seen) DESC, task, caller, version, mode, side;

-- name: known_tasks
-- Every task that was called or announced.
SELECT task FROM {shim_call} UNION SELECT task FROM {shim_worker} WHERE version <> '' ORDER BY task;

-- name: watched
-- From when to when somebody was there to count the calls of some tasks, as far as it touches the time since a moment.
SELECT task, since, seen_at
  FROM {shim_worker}
 WHERE task = ANY (%(tasks)s) AND seen_at >= %(since)s AND version <> ''
 ORDER BY task, since, seen_at;

-- name: ready
-- Whether a worker has ever announced a task.
SELECT EXISTS (SELECT FROM {shim_worker} WHERE task = %(task)s AND version <> '');

-- name: purgeable
-- How many callers and workers were last seen before a moment, and how many workers go back beyond it.
SELECT (SELECT count(*) FROM {shim_call} WHERE last_seen < %(before)s),
       count(*) FILTER (WHERE seen_at < %(before)s), count(*) FILTER (WHERE since < %(before)s AND seen_at >= %(before)s)
  FROM {shim_worker};

-- name: purge
-- Take them away, and the time before from the workers that stay; two of one host and version may be one then.
WITH called AS (
    DELETE FROM {shim_call} WHERE last_seen < %(before)s RETURNING 1
), seen AS (
    DELETE FROM {shim_worker} WHERE since < %(before)s RETURNING task, host, version, seen_at
), shortened AS (
    INSERT INTO {shim_worker} AS w (task, host, version, since, seen_at)
    SELECT task, host, version, %(before)s, max(seen_at)
      FROM seen
     WHERE seen_at >= %(before)s
     GROUP BY task, host, version
        ON CONFLICT (task, host, version, since) DO UPDATE SET seen_at = greatest(w.seen_at, EXCLUDED.seen_at)
)
SELECT (SELECT count(*) FROM called),
       count(*) FILTER (WHERE seen_at < %(before)s), count(*) FILTER (WHERE seen_at >= %(before)s)
  FROM seen;

-- name: modes
-- The modes that were set, of one task or of all.
SELECT task, mode, set_by, set_at
  FROM {shim_mode}
 WHERE %(task)s::text IS NULL OR task = %(task)s
 ORDER BY task;

-- name: set_mode
-- A mode and who set it, in the place of the one before, which is given.
WITH before AS (
    SELECT mode FROM {shim_mode} WHERE task = %(task)s
), changed AS (
    INSERT INTO {shim_mode} (task, mode) VALUES (%(task)s, %(mode)s)
    ON CONFLICT (task) DO UPDATE SET mode = EXCLUDED.mode, set_by = session_user, set_at = now()
)
SELECT (SELECT mode FROM before);

-- name: clear_mode
-- No mode any more; the one that was.
DELETE FROM {shim_mode} WHERE task = %(task)s RETURNING mode;
