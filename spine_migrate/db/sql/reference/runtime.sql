-- The runtime's tables, in the schema of runs. The revisions under alembic/versions must build exactly this;
-- tests/integration/test_schema_structure.py compares the two catalogs.

-- Who holds a larger number has claimed later: of any run, of any entity.
CREATE SEQUENCE run_fence;

-- run_handoff: how a run gets from its row to the worker that has it; one row per run that the runtime made
CREATE TABLE run_handoff (
    run_id UUID PRIMARY KEY REFERENCES runs(run_id) ON DELETE CASCADE,
    lane VARCHAR(50) NOT NULL,
    waiting BOOLEAN NOT NULL DEFAULT true,             -- pending or queued: counts against the lane's bound
    due_at TIMESTAMPTZ NOT NULL,                       -- not published and not started before
    next_at TIMESTAMPTZ,                               -- when the relay looks: to publish, publish again, or reap
    expires_at TIMESTAMPTZ,                            -- not started after
    timeout_seconds DOUBLE PRECISION,                  -- of the handler
    retry_delay_seconds DOUBLE PRECISION NOT NULL,     -- before the first retry
    retries_left INTEGER NOT NULL,
    publications INTEGER NOT NULL DEFAULT 0,           -- by the relay, since the last claim
    fence BIGINT,                                      -- of the claim that has the run
    worker TEXT,                                       -- who claimed it last
    leased BOOLEAN NOT NULL DEFAULT false,             -- the claim ends at next_at unless it is renewed
    cancel_requested BOOLEAN NOT NULL DEFAULT false,
    message JSONB                                      -- published in the place of the executor's own
);

CREATE INDEX ix_run_handoff_next_at ON run_handoff(next_at) WHERE next_at IS NOT NULL;
CREATE INDEX ix_run_handoff_lane ON run_handoff(lane) WHERE waiting;

-- run_guard: locks on entities, held until released or expired
CREATE TABLE run_guard (
    entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    fence BIGINT NOT NULL,
    holder TEXT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (entity_type, entity_id)
);
