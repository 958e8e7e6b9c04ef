-- The life of every execution in the table, in legal order: created first, started before it ends, the last event says
-- how it ended. %(mean)s thousandths of an event on average, from half to one and a half times that; an execution that has
-- not started has one event at most, a queued one two.
INSERT INTO execution_events (event_id, execution_id, event_type, timestamp, data)
SELECT
    spine_demo.uuid_of(%(seed)s || ':event:' || execution_id || ':' || j),
    execution_id,
    event_type,
    CASE event_type
        WHEN 'created' THEN created_at
        WHEN 'queued' THEN created_at + interval '1 millisecond'
        WHEN 'started' THEN started_at
        WHEN 'heartbeat' THEN started_at + interval '1 microsecond' * (j * work / events)
        WHEN 'progress' THEN started_at + interval '1 microsecond' * (j * work / events)
        ELSE completed_at
    END,
    CASE event_type
        WHEN 'created' THEN jsonb_build_object('trigger', trigger_source, 'lane', lane)
        WHEN 'queued' THEN jsonb_build_object('queue', 'pipelines.' || lane)
        WHEN 'started' THEN jsonb_build_object('worker', 'capture-' || draw %% 24, 'attempt', retry_count + 1)
        WHEN 'progress' THEN jsonb_build_object('done', j * 10, 'total', events * 10, 'note', 'page ' || j)
        WHEN 'completed' THEN jsonb_build_object('captured', result -> 'captured')
        WHEN 'failed' THEN jsonb_build_object('error_type', error_type)
        ELSE '{}'
    END
FROM (
    SELECT
        *,
        status IN ('completed', 'failed', 'cancelled') AS ended,
        CASE status
            WHEN 'pending' THEN least(1, drawn_events)
            WHEN 'queued' THEN least(2, drawn_events)
            ELSE drawn_events
        END AS events,
        coalesce((extract(epoch FROM completed_at - started_at) * 1000000)::bigint, 1000000) AS work
    FROM executions
    CROSS JOIN LATERAL (
        SELECT
            hashint8extended(('x' || left(execution_id::text, 8))::bit(32)::bigint, %(salt)s::bigint) & 1048575 AS draw
    ) AS d
    CROSS JOIN LATERAL (
        SELECT (%(mean)s::bigint * (524288 + draw) / 1048576
            + (hashint8extended(draw, %(salt)s::bigint + 1) & 1048575) %% 1000) / 1000 AS drawn_events
    ) AS n
    OFFSET 0
) AS life
CROSS JOIN LATERAL generate_series(0, events - 1) AS j
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN j = events - 1 AND ended THEN status
        WHEN j = 0 AND (events > 2 OR NOT ended) THEN 'created'
        WHEN j = 1 AND (events > 4 OR status = 'queued') THEN 'queued'
        WHEN j < 2 OR j = 2 AND events > 4 THEN 'started'
        WHEN (draw + j) %% 2 = 0 THEN 'heartbeat'
        ELSE 'progress'
    END AS event_type
    OFFSET 0
) AS e
