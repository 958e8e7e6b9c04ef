-- name: shadows
-- What the mode shadow has compared, of each task, since a time, or ever. An event without a verdict compared nothing.
SELECT coalesce(r.metadata ->> 'celery_task', r.name) AS task,
       count(*) FILTER (WHERE e.data -> 'equal' = 'true') AS matches,
       count(*) FILTER (WHERE e.data -> 'equal' = 'false') AS mismatches,
       count(*) FILTER (WHERE e.data -> 'equal' IN ('true', 'false') IS NOT TRUE) AS unknown,
       min(e.timestamp) AS first_seen, max(e.timestamp) AS last_seen
  FROM {run_events} e JOIN {runs} r USING (run_id)
 WHERE e.event_type = 'shadow_compared'
   AND (%(since)s::timestamptz IS NULL OR e.timestamp >= %(since)s)
   AND (%(tasks)s::text[] IS NULL OR coalesce(r.metadata ->> 'celery_task', r.name) = ANY (%(tasks)s))
 GROUP BY 1
 ORDER BY 1;

-- name: places
-- Where they differ, with the items of an array together, and in how many comparisons; an error has the place of none.
WITH mismatch AS (
    SELECT e.event_id, coalesce(r.metadata ->> 'celery_task', r.name) AS task, e.data
      FROM {run_events} e JOIN {runs} r USING (run_id)
     WHERE e.event_type = 'shadow_compared' AND e.data -> 'equal' = 'false'
       AND (%(since)s::timestamptz IS NULL OR e.timestamp >= %(since)s)
       AND (%(tasks)s::text[] IS NULL OR coalesce(r.metadata ->> 'celery_task', r.name) = ANY (%(tasks)s))
), place AS (
    SELECT m.task, m.event_id, regexp_replace(p.path, '\[[0-9]+\]', '[*]', 'g') AS path
      FROM mismatch m,
           jsonb_array_elements_text(CASE jsonb_typeof(m.data -> 'paths') WHEN 'array' THEN m.data -> 'paths' END) AS p (path)
    UNION ALL
    SELECT m.task, m.event_id,
           format('error: %%s, was %%s', coalesce(m.data ->> 'error', 'none'), coalesce(m.data ->> 'old_error', 'none'))
      FROM mismatch m
     WHERE jsonb_typeof(m.data -> 'paths') IS DISTINCT FROM 'array'
)
SELECT task, path, count(DISTINCT event_id) AS count FROM place GROUP BY task, path ORDER BY task, count(DISTINCT event_id) DESC, path;
