-- Job i of %(rows)s, oldest first; draws as for the executions. Keys have the gaps that a sequence leaves, and the
-- awkward jobs stand in them. The newest %(active)s jobs are the active ones, on feeds that no active execution has.
INSERT INTO jobs (
    job_id, job_type, payload, status, priority, attempts, max_attempts, user_id, feed_id, celery_task_id,
    error_message, result, created_at, started_at, finished_at
)
SELECT
    3 * i + 1,
    job_type,
    jsonb_build_object(
        'document_ids', jsonb_build_array(d.payload, d.payload + 1, d.payload + 2),
        'format', (ARRAY['pdf', 'html', 'markdown', 'epub'])[1 + d.payload %% 4],
        'notify', d.payload %% 3 = 0,
        'options', jsonb_build_object(
            'language', (ARRAY['en', 'de', 'ja', 'pt'])[1 + d.type %% 4], 'depth', d.payload %% 6
        )
    ),
    status,
    CASE WHEN d.priority %% 10 < 6 THEN 5 ELSE d.priority / 10 %% 10 END,
    CASE status WHEN 'queued' THEN 0 WHEN 'error' THEN 3 WHEN 'retrying' THEN 1 + d.payload %% 2 ELSE 1 END,
    3,
    CASE WHEN d.payload %% 8 > 0 THEN 1 + ((d.type * d.type >> 20) * 20000 >> 20) END,
    CASE WHEN feed IS NOT NULL THEN spine_demo.uuid_of(%(seed)s || ':feed:' || feed) END,
    CASE WHEN status <> 'queued' THEN spine_demo.uuid_of(%(seed)s || ':job-task:' || i)::text END,
    CASE WHEN status IN ('error', 'retrying')
        THEN (%(failures)s::text[])[1 + d.payload %% %(failure_count)s::bigint] || ': ' || job_type || ' gave up' END,
    CASE WHEN status = 'done' THEN jsonb_build_object(
        'written', d.payload %% 900, 'location', 's3://spine/' || to_hex(d.payload)
    ) END,
    created_at,
    CASE WHEN status <> 'queued' THEN created_at + interval '1 microsecond' * (90000 + d.wait * 30) END,
    CASE WHEN NOT is_active
        THEN created_at + interval '1 microsecond' * (90000 + d.wait * 30 + 500000 + d.effort * 300) END
FROM (SELECT %(rows)s::bigint AS total, %(active)s::bigint AS active, %(feeds)s::bigint AS feeds) AS size
CROSS JOIN LATERAL generate_series(0, total - 1) AS i
CROSS JOIN LATERAL (
    SELECT
        hashint8extended(i, %(salt)s::bigint + 1) & 1048575 AS type,
        hashint8extended(i, %(salt)s::bigint + 2) & 1048575 AS payload,
        hashint8extended(i, %(salt)s::bigint + 3) & 1048575 AS outcome,
        hashint8extended(i, %(salt)s::bigint + 4) & 1048575 AS priority,
        hashint8extended(i, %(salt)s::bigint + 5) & 1048575 AS which_feed,
        hashint8extended(i, %(salt)s::bigint + 6) & 1048575 AS wait,
        hashint8extended(i, %(salt)s::bigint + 7) & 1048575 AS effort,
        hashint8extended(i, %(salt)s::bigint + 8) & 2147483647 AS jitter
    OFFSET 0
) AS d
CROSS JOIN LATERAL (
    SELECT
        i >= total - active AS is_active,
        (%(job_types)s::text[])[1 + d.type %% %(job_type_count)s::bigint] AS job_type,
        CASE
            WHEN i >= total - active THEN (ARRAY['queued', 'processing', 'retrying'])[1 + d.outcome %% 3]
            WHEN d.outcome %% 100 < 88 THEN 'done'
            WHEN d.outcome %% 100 < 96 THEN 'error'
            ELSE 'cancelled'
        END AS status,
        CASE
            WHEN i >= total - active THEN %(first_active_feed)s::bigint + i - (total - active)
            WHEN d.which_feed %% 100 >= 40 THEN (d.which_feed * d.which_feed >> 20) * feeds >> 20
        END AS feed,
        timestamp '2016-01-04 00:00:00'
            + interval '1 microsecond' * (i * %(step)s::bigint + d.jitter %% %(step)s::bigint) AS created_at
    OFFSET 0
) AS life
ORDER BY i
