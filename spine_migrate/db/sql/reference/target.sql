-- The target tables as seed 000 ("SQL Schema Migration") gives them. The revisions under alembic/versions must build exactly this;
-- tests/integration/test_schema_structure.py compares the two catalogs.

-- runs: one row per unit of work
CREATE TABLE runs (
    run_id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    kind VARCHAR(20) NOT NULL,          -- task | pipeline | workflow | step
    name VARCHAR(100) NOT NULL,         -- handler or pipeline name
    params JSONB DEFAULT '{}',

    -- Routing
    priority VARCHAR(20) DEFAULT 'normal',
    lane VARCHAR(50) DEFAULT 'default',

    -- Tracking
    idempotency_key VARCHAR(255),
    correlation_id VARCHAR(255),
    parent_run_id UUID REFERENCES runs(run_id),

    -- Status
    status VARCHAR(20) NOT NULL DEFAULT 'pending',
    external_ref VARCHAR(255),          -- Celery task_id and the like
    executor_name VARCHAR(50),

    -- Results
    result JSONB,
    error TEXT,
    error_type VARCHAR(100),

    -- Retry
    attempt INTEGER DEFAULT 1,
    retry_of_run_id UUID REFERENCES runs(run_id),
    max_retries INTEGER DEFAULT 3,

    -- Context
    trigger_source VARCHAR(50) DEFAULT 'api',
    metadata JSONB DEFAULT '{}',
    tags JSONB DEFAULT '{}',

    -- Timestamps
    created_at TIMESTAMPTZ DEFAULT now(),
    started_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ,

    CONSTRAINT uq_idempotency UNIQUE (idempotency_key)
);

-- One active run per entity
CREATE UNIQUE INDEX ix_runs_one_active_per_entity
ON runs ((metadata->>'entity_type'), (metadata->>'entity_id'))
WHERE status IN ('pending', 'queued', 'running');

-- run_events: what happened to a run, in order
CREATE TABLE run_events (
    event_id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    run_id UUID NOT NULL REFERENCES runs(run_id),
    event_type VARCHAR(50) NOT NULL,
    timestamp TIMESTAMPTZ DEFAULT now(),
    data JSONB DEFAULT '{}',
    source VARCHAR(50) DEFAULT 'dispatcher'
);

CREATE INDEX ix_run_events_run_id ON run_events(run_id);
