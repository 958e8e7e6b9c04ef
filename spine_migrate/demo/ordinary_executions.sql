-- Row i of %(rows)s, oldest first. Every draw is hashint8extended(i, salt + n) cut to some bits: the function is the same
-- in all server versions (hash partitions depend on it), and a draw does not depend on the rows before it.
-- Four parents of five are among the %(near)s executions before; the others may lie anywhere, also further on in the table,
-- where a row goes that was updated late.
-- The newest %(active)s rows are the active ones, one per feed; the feeds of active jobs are others.
INSERT INTO executions (
    execution_id, pipeline_name, params, lane, trigger_source, status, backend_task_id, feed_id, retry_count,
    max_retries, parent_execution_id, retry_of_execution_id, idempotency_key, result, error, error_type,
    created_at, started_at, completed_at
)
SELECT
    spine_demo.uuid_of(%(seed)s || ':execution:' || i),
    pipeline,
    jsonb_build_object(
        'url', 'https://feeds.example.org/' || pipeline || '/' || to_hex(i * 2654435761 + d.payload),
        'since', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'limit', 10 * (1 + d.payload %% 50),
        'options', jsonb_build_object(
            'follow_redirects', d.payload %% 3 > 0,
            'timeout_s', 5 + d.payload %% 55,
            'headers', jsonb_build_object(
                'User-Agent', 'capture-spine/3.' || d.payload %% 9, 'Accept', 'application/rss+xml'
            )
        ),
        'tags', jsonb_build_array('tier-' || 1 + d.payload %% 3, 'region-' || 1 + d.payload %% 7, pipeline)
    ),
    (ARRAY['normal', 'normal', 'normal', 'normal', 'normal', 'background', 'background', 'background', 'high', 'bulk'])
        [1 + d.lane %% 10],
    (ARRAY['schedule', 'schedule', 'schedule', 'schedule', 'schedule', 'schedule', 'api', 'api', 'webhook', 'manual'])
        [1 + d.trigger %% 10],
    status,
    CASE WHEN status <> 'pending' THEN spine_demo.uuid_of(%(seed)s || ':task:' || i)::text END,
    CASE WHEN feed IS NOT NULL THEN spine_demo.uuid_of(%(seed)s || ':feed:' || feed) END,
    CASE WHEN status = 'failed' THEN 1 + d.retries %% 3 WHEN d.retries %% 20 = 0 THEN 1 ELSE 0 END,
    CASE WHEN d.retries %% 7 = 0 THEN 5 ELSE 3 END,
    CASE WHEN d.parent %% 100 < 5 AND total > 1
        THEN spine_demo.uuid_of(%(seed)s || ':execution:' || CASE WHEN d.parent %% 100 < 4 AND i > 0
            THEN i - 1 - d.parent_offset %% least(i, %(near)s::bigint)
            ELSE (i + 1 + d.parent_offset %% (total - 1)) %% total END) END,
    CASE WHEN d.retried %% 100 < 2 AND total > 1
        THEN spine_demo.uuid_of(%(seed)s || ':execution:' || CASE WHEN d.retried %% 1000 < 800 AND i > 0
            THEN i - 1 - d.retried_offset %% least(i, %(near)s::bigint)
            ELSE (i + 1 + d.retried_offset %% (total - 1)) %% total END) END,
    CASE WHEN d.idempotency %% 10 < 3
        THEN pipeline || ':' || to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ':' || i END,
    CASE WHEN status = 'completed' THEN jsonb_build_object(
        'captured', d.payload %% 400,
        'skipped', d.retries %% 40,
        'bytes', d.payload * 37,
        'etag', to_hex(d.payload * 99991)
    ) END,
    CASE WHEN status = 'failed' THEN
        'Traceback (most recent call last):' || E'\n  File "app/runtime/runner.py", line ' || 40 + d.payload %% 300
        || ', in run_execution' || E'\n    await pipeline.run(params)' || E'\n  File "app/pipelines/' || pipeline
        || '.py", line ' || 10 + d.retries %% 200 || ', in run' || E'\n' || failure || ': attempt '
        || 1 + d.retries %% 3 || ' gave up after ' || d.payload %% 60 || ' s' END,
    CASE WHEN status = 'failed' THEN failure END,
    created_at,
    started_at,
    CASE WHEN NOT is_active THEN started_at + interval '1 microsecond' * (200000 + work) END
FROM (SELECT %(rows)s::bigint AS total, %(active)s::bigint AS active, %(feeds)s::bigint AS feeds) AS size
CROSS JOIN LATERAL generate_series(0, total - 1) AS i
CROSS JOIN LATERAL (
    SELECT
        hashint8extended(i, %(salt)s::bigint + 1) & 1048575 AS which_pipeline,
        hashint8extended(i, %(salt)s::bigint + 2) & 1048575 AS payload,
        hashint8extended(i, %(salt)s::bigint + 3) & 1048575 AS lane,
        hashint8extended(i, %(salt)s::bigint + 4) & 1048575 AS trigger,
        hashint8extended(i, %(salt)s::bigint + 5) & 1048575 AS outcome,
        hashint8extended(i, %(salt)s::bigint + 6) & 1048575 AS which_feed,
        hashint8extended(i, %(salt)s::bigint + 7) & 1048575 AS retries,
        hashint8extended(i, %(salt)s::bigint + 8) & 1048575 AS parent,
        hashint8extended(i, %(salt)s::bigint + 9) & 2147483647 AS parent_offset,
        hashint8extended(i, %(salt)s::bigint + 10) & 1048575 AS retried,
        hashint8extended(i, %(salt)s::bigint + 11) & 2147483647 AS retried_offset,
        hashint8extended(i, %(salt)s::bigint + 12) & 1048575 AS idempotency,
        hashint8extended(i, %(salt)s::bigint + 13) & 1048575 AS wait,
        hashint8extended(i, %(salt)s::bigint + 14) & 1048575 AS effort,
        hashint8extended(i, %(salt)s::bigint + 15) & 2147483647 AS jitter
    OFFSET 0
) AS d
CROSS JOIN LATERAL (
    SELECT
        i >= total - active AS is_active,
        -- Squaring a uniform draw makes a few pipelines and feeds do most of the work.
        (%(pipelines)s::text[])
            [1 + ((d.which_pipeline * d.which_pipeline >> 20) * %(pipeline_count)s::bigint >> 20)] AS pipeline,
        (%(failures)s::text[])[1 + d.payload %% %(failure_count)s::bigint] AS failure,
        -- A sixth power: up to two hours, half of all under two minutes.
        ((d.effort * d.effort >> 20) * (d.effort * d.effort >> 20) >> 20) * (d.effort * d.effort >> 20) / 146 AS work,
        CASE
            WHEN i >= total - active THEN (ARRAY['pending', 'queued', 'running'])[1 + d.outcome %% 3]
            WHEN d.outcome %% 100 < 90 THEN 'completed'
            WHEN d.outcome %% 100 < 97 THEN 'failed'
            ELSE 'cancelled'
        END AS status,
        CASE
            WHEN i >= total - active THEN i - (total - active)
            WHEN d.which_feed %% 100 >= 15 THEN (d.which_feed * d.which_feed >> 20) * feeds >> 20
        END AS feed,
        timestamptz '2016-01-04 00:00:00+00'
            + interval '1 microsecond' * (i * %(step)s::bigint + d.jitter %% %(step)s::bigint) AS created_at
    OFFSET 0
) AS life
CROSS JOIN LATERAL (
    SELECT CASE WHEN status NOT IN ('pending', 'queued')
        THEN created_at + interval '1 microsecond' * (50000 + d.wait * 20) END AS started_at
    OFFSET 0
) AS start
ORDER BY i
