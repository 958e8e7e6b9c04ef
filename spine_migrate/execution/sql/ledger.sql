-- name: create
-- A pending run, its handoff and its first event; no row where its idempotency key is taken. Who does not wait for the
-- disk loses, by a crash of the server, the runs of its last moment, whole.
WITH made AS (
    INSERT INTO {runs} (
        run_id, kind, name, params, priority, lane, idempotency_key, correlation_id, parent_run_id, status, attempt,
        retry_of_run_id, max_retries, trigger_source, metadata, tags, created_at
    ) VALUES (
        %(run_id)s, %(kind)s, %(name)s, %(params)s, %(priority)s, %(lane)s, %(idempotency_key)s, %(correlation_id)s,
        %(parent_run_id)s, 'pending', %(attempt)s, %(retry_of_run_id)s, %(max_retries)s, %(trigger_source)s,
        %(metadata)s, %(tags)s, clock_timestamp()
    )
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING run_id, created_at
), handed AS (
    INSERT INTO {run_handoff} (
        run_id, lane, due_at, next_at, expires_at, timeout_seconds, retry_delay_seconds, retries_left, message
    )
    SELECT run_id, %(lane)s, greatest(coalesce(%(due_at)s, created_at), created_at),
           greatest(coalesce(%(due_at)s, created_at), created_at) + make_interval(secs => %(publish_in)s),
           %(expires_at)s, %(timeout_seconds)s, %(retry_delay_seconds)s, %(max_retries)s, %(message)s::jsonb
      FROM made
), noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, 'created', created_at, '{{}}', 'ledger' FROM made
)
SELECT created_at, CASE WHEN NOT %(wait_for_disk)s THEN set_config('synchronous_commit', 'off', true) END FROM made;

-- name: of_key
-- The run that has an idempotency key.
SELECT {record}, h.retry_delay_seconds, h.timeout_seconds, h.message
  FROM {runs} r LEFT JOIN {run_handoff} h USING (run_id)
 WHERE r.idempotency_key = %(idempotency_key)s;

-- name: known_keys
-- Idempotency keys that are taken.
SELECT idempotency_key FROM {runs} WHERE idempotency_key = ANY (%(keys)s);

-- name: active_of_entity
-- The active run of an entity.
SELECT run_id
  FROM {runs}
 WHERE metadata ->> 'entity_type' = %(entity_type)s AND metadata ->> 'entity_id' = %(entity_id)s
   AND status IN ('pending', 'queued', 'running');

-- name: waiting_in_lane
-- How many runs wait for a worker in a lane, counted no further than the bound.
SELECT count(*)
  FROM (SELECT FROM {run_handoff} WHERE lane = %(lane)s AND waiting LIMIT %(bound)s) AS counted;

-- name: get
-- One run.
SELECT {record}, h.retry_delay_seconds, h.timeout_seconds, h.message
  FROM {runs} r LEFT JOIN {run_handoff} h USING (run_id)
 WHERE r.run_id = %(run_id)s;

-- name: get_many
-- Some runs, in the order in which they are asked for.
SELECT {record}, h.retry_delay_seconds, h.timeout_seconds, h.message
  FROM unnest(%(run_ids)s::uuid[]) WITH ORDINALITY AS wanted (run_id, place)
  JOIN {runs} r USING (run_id) LEFT JOIN {run_handoff} h USING (run_id)
 ORDER BY wanted.place;

-- name: tag_in_order
-- Whether an index has the values of one key of tags in the order of a list.
SELECT EXISTS (
    SELECT FROM pg_index i
     CROSS JOIN (SELECT '(tags ->> ''' || replace(%(key)s, '''', '''''') || '''::text)') AS of_key (expression)
     WHERE i.indrelid = to_regclass(%(runs)s) AND i.indisvalid AND i.indnkeyatts >= 2
       AND pg_get_indexdef(i.indexrelid, 1, true) = expression
       AND pg_get_indexdef(i.indexrelid, 2, true) = 'created_at'
       AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = '(' || expression || ' IS NOT NULL)')
) AS found;

-- name: events
-- What happened to a run.
SELECT event_id, run_id, event_type, timestamp, coalesce(data, '{{}}') AS data, coalesce(source, '') AS source
  FROM {run_events}
 WHERE run_id = %(run_id)s
 ORDER BY timestamp, event_id;

-- name: record
-- An event, at the time of this server: one clock tells the order of a run's events, whatever the machines' own say.
INSERT INTO {run_events} (event_id, run_id, event_type, timestamp, data, source)
VALUES (%(event_id)s, %(run_id)s, %(event_type)s, clock_timestamp(), %(data)s, %(source)s)
ON CONFLICT (event_id) DO NOTHING;

-- name: adopt
-- A handoff for a run that has none, such as one that was migrated; the relay leaves it alone.
INSERT INTO {run_handoff} (run_id, lane, due_at, retry_delay_seconds, retries_left, waiting)
SELECT run_id, coalesce(lane, 'default'), coalesce(created_at, statement_timestamp()), 60,
       greatest(0, coalesce(max_retries, 3) - coalesce(attempt, 1) + 1), status IN ('pending', 'queued')
  FROM {runs}
 WHERE run_id = %(run_id)s
ON CONFLICT (run_id) DO NOTHING;

-- name: refuse
-- Record a step that was not taken; the status that stood in its way.
WITH noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, 'transition_refused', clock_timestamp(),
           jsonb_build_object('status', status, 'wanted', %(wanted)s::text, 'why', %(why)s::text), 'ledger'
      FROM {runs}
     WHERE run_id = %(run_id)s
    RETURNING data ->> 'status' AS status
)
SELECT status FROM noted;

-- name: hold
-- What a run and its handoff are now, and stay until the transaction ends.
SELECT r.status, coalesce(r.attempt, 1) AS attempt, h.fence, h.due_at > statement_timestamp() AS early,
       h.expires_at <= statement_timestamp() AS expired
  FROM {run_handoff} h JOIN {runs} r USING (run_id)
 WHERE h.run_id = %(run_id)s
   FOR NO KEY UPDATE;

-- name: mark_queued
-- Published; a run that waits already only waits longer. One that a worker has given back meanwhile is not due: it has
-- taken its message with it. Not waited for to be on disk: a server that crashes and forgets
-- it has a run that is published once more.
WITH held AS (
    SELECT h.run_id, r.status AS was
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.run_id = %(run_id)s AND r.status IN ('pending', 'queued')
       AND (%(attempt)s::int IS NULL OR coalesce(r.attempt, 1) = %(attempt)s AND h.due_at <= statement_timestamp())
       FOR NO KEY UPDATE
), moved AS (
    UPDATE {runs} r
       SET status = 'queued', external_ref = %(external_ref)s, executor_name = %(executor_name)s
      FROM held
     WHERE r.run_id = held.run_id
    RETURNING r.run_id, held.was
), kept AS (
    UPDATE {run_handoff} h
       SET next_at = clock_timestamp() + make_interval(secs => %(claim_within)s)
      FROM moved
     WHERE h.run_id = moved.run_id
), noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, 'queued', clock_timestamp(), jsonb_build_object('executor', %(executor_name)s::text), 'ledger'
      FROM moved
     WHERE was = 'pending'
)
SELECT run_id, set_config('synchronous_commit', 'off', true) FROM moved;

-- name: mark_carried
-- Who carried a run whose worker was faster than its submitter.
UPDATE {runs}
   SET external_ref = %(external_ref)s, executor_name = %(executor_name)s
 WHERE run_id = %(run_id)s AND external_ref IS NULL
   AND (status NOT IN ('pending', 'queued') OR coalesce(attempt, 1) <> %(attempt)s::int)
RETURNING set_config('synchronous_commit', 'off', true);

-- name: mark_many_queued
-- The same for many, each at the attempt that was published. Locked in one order by everybody who marks; not passed over
-- where locked, since another relay that only looks at a run holds it for a moment.
WITH published AS (
    SELECT * FROM unnest(%(run_ids)s::uuid[], %(external_refs)s::text[], %(attempts)s::int[])
        AS p (run_id, external_ref, attempt)
), held AS (
    SELECT p.*, r.status AS was
      FROM published p JOIN {run_handoff} h USING (run_id) JOIN {runs} r USING (run_id)
     WHERE r.status IN ('pending', 'queued') AND coalesce(r.attempt, 1) = p.attempt
       AND h.due_at <= statement_timestamp()
     ORDER BY p.run_id
       FOR NO KEY UPDATE OF h, r
), moved AS (
    UPDATE {runs} r
       SET status = 'queued', external_ref = held.external_ref, executor_name = %(executor_name)s
      FROM held
     WHERE r.run_id = held.run_id
    RETURNING r.run_id, held.was
), kept AS (
    UPDATE {run_handoff} h
       SET next_at = clock_timestamp() + make_interval(secs => %(claim_within)s)
      FROM moved
     WHERE h.run_id = moved.run_id
), noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, 'queued', clock_timestamp(), jsonb_build_object('executor', %(executor_name)s::text), 'ledger'
      FROM moved
     WHERE was = 'pending'
)
SELECT count(*) AS queued, set_config('synchronous_commit', 'off', true) FROM moved;

-- name: mark_many_carried
-- Who carried those whose workers were faster, and how many are left that somebody has locked.
WITH published AS (
    SELECT * FROM unnest(%(run_ids)s::uuid[], %(external_refs)s::text[], %(attempts)s::int[])
        AS p (run_id, external_ref, attempt)
), wanted AS (
    SELECT p.run_id
      FROM published p JOIN {runs} r USING (run_id)
     WHERE r.external_ref IS NULL
       AND (r.status NOT IN ('pending', 'queued') OR coalesce(r.attempt, 1) <> p.attempt)
), held AS (
    SELECT p.run_id, p.external_ref
      FROM published p JOIN {runs} r USING (run_id)
     WHERE r.external_ref IS NULL
       AND (r.status NOT IN ('pending', 'queued') OR coalesce(r.attempt, 1) <> p.attempt)
       FOR NO KEY UPDATE OF r SKIP LOCKED
), carried AS (
    UPDATE {runs} r
       SET external_ref = held.external_ref, executor_name = %(executor_name)s
      FROM held
     WHERE r.run_id = held.run_id
    RETURNING r.run_id
)
SELECT count(*) AS left_over, set_config('synchronous_commit', 'off', true)
  FROM wanted
 WHERE run_id NOT IN (SELECT run_id FROM carried);

-- name: claim
-- Start a run that is due. Whoever changes a run locks its handoff first and then the run, so that nobody waits in a
-- circle and a fence cannot go stale meanwhile. NO KEY, as the UPDATE itself: an application's transaction that has added
-- a child or an event holds FOR KEY SHARE on the run.
WITH held AS (
    SELECT h.run_id, h.retry_delay_seconds, h.retries_left, h.timeout_seconds, h.message
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.run_id = %(run_id)s AND r.status IN ('pending', 'queued') AND h.due_at <= statement_timestamp()
       AND (h.expires_at IS NULL OR h.expires_at > statement_timestamp())
       AND (%(attempt)s::int IS NULL OR coalesce(r.attempt, 1) = %(attempt)s)
       FOR NO KEY UPDATE
), moved AS (
    UPDATE {runs} r
       SET status = 'running', completed_at = NULL,
           started_at = greatest(clock_timestamp(), r.created_at + interval '1 microsecond')
      FROM held
     WHERE r.run_id = held.run_id
    RETURNING r.*
), kept AS (
    UPDATE {run_handoff} h
       SET fence = nextval({run_fence}), leased = %(lease)s::float8 IS NOT NULL, worker = %(worker)s, waiting = false,
           next_at = clock_timestamp() + make_interval(secs => %(lease)s::float8), publications = 0,
           cancel_requested = false
      FROM moved
     WHERE h.run_id = moved.run_id
    RETURNING h.run_id, h.fence
), noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, 'started', started_at, jsonb_build_object('worker', %(worker)s::text, 'attempt', attempt), 'ledger'
      FROM moved
)
SELECT {record}, held.retry_delay_seconds, held.retries_left, held.timeout_seconds, held.message, kept.fence
  FROM moved r JOIN held USING (run_id) JOIN kept USING (run_id);

-- name: renew
-- Extend a lease; whether the run is to be cancelled.
WITH held AS (
    SELECT h.run_id
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.run_id = %(run_id)s AND r.status = 'running' AND h.fence = %(fence)s
       FOR NO KEY UPDATE OF h
)
UPDATE {run_handoff} h
   SET next_at = clock_timestamp() + make_interval(secs => %(lease)s)
  FROM held
 WHERE h.run_id = held.run_id
RETURNING h.cancel_requested;

-- name: finish
-- Bring a run to one of its last statuses. A result goes with completion, an error with the others.
WITH held AS (
    SELECT h.run_id, h.retry_delay_seconds, h.timeout_seconds, h.message
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.run_id = %(run_id)s AND r.status = ANY (%(sources)s)
       AND (%(fence)s::bigint IS NULL OR h.fence = %(fence)s)
       AND (%(attempt)s::int IS NULL OR coalesce(r.attempt, 1) = %(attempt)s)
       FOR NO KEY UPDATE
), moved AS (
    UPDATE {runs} r
       SET status = %(status)s::text,
           completed_at = greatest(clock_timestamp(), r.started_at + interval '1 microsecond'),
           result = CASE WHEN %(status)s::text = 'completed' THEN %(result)s::jsonb ELSE result END,
           error = %(error)s::text, error_type = %(error_type)s::text
      FROM held
     WHERE r.run_id = held.run_id
    RETURNING r.*
), kept AS (
    UPDATE {run_handoff} h
       SET fence = NULL, leased = false, next_at = NULL, waiting = false, cancel_requested = false
      FROM moved
     WHERE h.run_id = moved.run_id
), noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, %(status)s::text, completed_at, %(data)s::jsonb, 'ledger' FROM moved
)
SELECT {record}, held.retry_delay_seconds, held.timeout_seconds, held.message
  FROM moved r JOIN held USING (run_id);

-- name: try_again
-- Back to pending, for another attempt after a while, with another message where one is given.
WITH held AS (
    SELECT h.run_id, h.retry_delay_seconds, h.timeout_seconds
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.run_id = %(run_id)s AND r.status = 'running' AND (%(fence)s::bigint IS NULL OR h.fence = %(fence)s)
       AND NOT h.cancel_requested
       FOR NO KEY UPDATE
), moved AS (
    UPDATE {runs} r
       SET status = 'pending', attempt = coalesce(r.attempt, 1) + 1, error = %(error)s, error_type = %(error_type)s
      FROM held
     WHERE r.run_id = held.run_id
    RETURNING r.*
), kept AS (
    UPDATE {run_handoff} h
       SET fence = NULL, leased = false, cancel_requested = false, waiting = true,
           due_at = clock_timestamp() + make_interval(secs => %(in_seconds)s),
           next_at = clock_timestamp() + make_interval(secs => %(in_seconds)s + %(publish_in)s),
           retries_left = greatest(0, h.retries_left - 1), message = coalesce(%(message)s::jsonb, h.message)
      FROM moved
     WHERE h.run_id = moved.run_id
    RETURNING h.run_id, h.message
), noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, 'retry_scheduled', clock_timestamp(),
           jsonb_build_object('error', error, 'error_type', error_type, 'attempt', attempt,
                              'in_seconds', %(in_seconds)s::float8), 'ledger'
      FROM moved
)
SELECT {record}, held.retry_delay_seconds, held.timeout_seconds, kept.message
  FROM moved r JOIN held USING (run_id) JOIN kept USING (run_id);

-- name: postpone
-- Back to pending, for the same attempt after a while.
WITH held AS (
    SELECT h.run_id, h.retry_delay_seconds, h.timeout_seconds, h.message
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.run_id = %(run_id)s AND r.status = 'running' AND h.fence = %(fence)s AND NOT h.cancel_requested
       FOR NO KEY UPDATE
), moved AS (
    UPDATE {runs} r
       SET status = 'pending'
      FROM held
     WHERE r.run_id = held.run_id
    RETURNING r.*
), kept AS (
    UPDATE {run_handoff} h
       SET fence = NULL, leased = false, waiting = true,
           due_at = clock_timestamp() + make_interval(secs => %(in_seconds)s),
           next_at = clock_timestamp() + make_interval(secs => %(in_seconds)s)
      FROM moved
     WHERE h.run_id = moved.run_id
), noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, 'postponed', clock_timestamp(),
           jsonb_build_object('why', %(why)s::text, 'attempt', attempt, 'in_seconds', %(in_seconds)s::float8), 'ledger'
      FROM moved
)
SELECT {record}, held.retry_delay_seconds, held.timeout_seconds, held.message
  FROM moved r JOIN held USING (run_id);

-- name: cancel
-- Cancel a run, or ask the worker that holds a lease on it to stop.
WITH held AS (
    SELECT r.*, h.retry_delay_seconds, h.timeout_seconds, h.message,
           r.status = 'running' AND h.leased AND %(fence)s::bigint IS NULL AS asked
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.run_id = %(run_id)s AND r.status IN ('pending', 'queued', 'running')
       AND (%(fence)s::bigint IS NULL OR h.fence = %(fence)s)
       FOR NO KEY UPDATE
), moved AS (
    UPDATE {runs} r
       SET status = 'cancelled', completed_at = greatest(clock_timestamp(), r.started_at + interval '1 microsecond')
      FROM held
     WHERE r.run_id = held.run_id AND NOT held.asked
    RETURNING r.*, held.retry_delay_seconds, held.timeout_seconds, held.message, held.asked
), kept AS (
    UPDATE {run_handoff} h
       SET cancel_requested = held.asked, waiting = false,
           fence = CASE WHEN held.asked THEN h.fence END, leased = held.asked,
           next_at = CASE WHEN held.asked THEN h.next_at END
      FROM held
     WHERE h.run_id = held.run_id
), noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, 'cancelled', completed_at, jsonb_build_object('reason', %(reason)s::text), 'ledger' FROM moved
)
-- As it was locked, which may be newer than what this statement sees of the table.
SELECT {record}, r.retry_delay_seconds, r.timeout_seconds, r.message
  FROM (TABLE moved UNION ALL SELECT * FROM held WHERE asked) r;

-- name: expire
-- Cancel a run that nobody started in time.
WITH held AS (
    SELECT h.run_id
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.run_id = %(run_id)s AND r.status IN ('pending', 'queued') AND h.expires_at <= statement_timestamp()
       FOR NO KEY UPDATE
), moved AS (
    UPDATE {runs} r SET status = 'cancelled', completed_at = clock_timestamp()
      FROM held
     WHERE r.run_id = held.run_id
    RETURNING r.run_id, r.completed_at
), kept AS (
    UPDATE {run_handoff} h SET next_at = NULL, waiting = false FROM moved WHERE h.run_id = moved.run_id
)
INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
SELECT run_id, 'cancelled', completed_at, '{{"reason": "expired"}}', 'ledger' FROM moved;

-- name: reprocess
-- A dead letter has all its retries again.
WITH held AS (
    SELECT h.run_id, h.retry_delay_seconds, h.timeout_seconds, h.message
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.run_id = %(run_id)s AND r.status = 'dead_lettered'
       FOR NO KEY UPDATE
), moved AS (
    UPDATE {runs} r
       SET status = 'pending', attempt = coalesce(r.attempt, 1) + 1, completed_at = NULL
      FROM held
     WHERE r.run_id = held.run_id
    RETURNING r.*
), kept AS (
    UPDATE {run_handoff} h
       SET due_at = clock_timestamp(), next_at = clock_timestamp(), expires_at = NULL, publications = 0, waiting = true,
           retries_left = coalesce(moved.max_retries, 3)
      FROM moved
     WHERE h.run_id = moved.run_id
), noted AS (
    INSERT INTO {run_events} (run_id, event_type, timestamp, data, source)
    SELECT run_id, 'reprocessed', clock_timestamp(), jsonb_build_object('attempt', attempt), 'ledger' FROM moved
)
SELECT {record}, held.retry_delay_seconds, held.timeout_seconds, held.message
  FROM moved r JOIN held USING (run_id);

-- name: take
-- Runs of one status whose time has come, for one relay alone until they come to nothing. Runs that somebody has locked
-- are left for the next time.
WITH ripe AS (
    SELECT r.*, h.retry_delay_seconds, h.timeout_seconds, h.message, h.due_at
      FROM {run_handoff} h JOIN {runs} r USING (run_id)
     WHERE h.next_at <= statement_timestamp() AND r.status = %(status)s
     ORDER BY h.next_at, h.run_id
     LIMIT %(limit)s
       FOR NO KEY UPDATE SKIP LOCKED
), taken AS (
    UPDATE {run_handoff} h
       SET next_at = statement_timestamp() + make_interval(secs => %(again_in)s * power(2, least(h.publications, 6))),
           publications = h.publications + 1
      FROM ripe
     WHERE h.run_id = ripe.run_id
)
SELECT {record}, r.retry_delay_seconds, r.timeout_seconds, r.message FROM ripe r ORDER BY r.due_at, r.run_id;

-- name: expired_leases
-- Claims whose lease ran out, locked until the transaction ends.
SELECT h.run_id, h.fence, h.retries_left, h.cancel_requested
  FROM {run_handoff} h JOIN {runs} r USING (run_id)
 WHERE h.next_at <= statement_timestamp() AND r.status = 'running' AND h.leased
 ORDER BY h.next_at, h.run_id
 LIMIT %(limit)s
   FOR NO KEY UPDATE SKIP LOCKED;
