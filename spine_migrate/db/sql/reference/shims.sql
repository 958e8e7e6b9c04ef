-- The shims' tables, in the schema of runs. The revisions under alembic/versions must build exactly this;
-- tests/integration/test_schema_structure.py compares the two catalogs.

-- shim_mode: which mode an old task is in, where neither environment nor file says so; '*' is for all others
CREATE TABLE shim_mode (
    task TEXT PRIMARY KEY,
    mode TEXT NOT NULL CHECK (
        mode ~ '^(legacy|dispatch|shadow|canary=(100(\.0{1,9})?|0?[0-9]{1,2}(\.[0-9]{1,9})?)%)$'
    ),
    set_by TEXT NOT NULL DEFAULT session_user,
    set_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- shim_call: who still calls an old task, and how often; no argument is kept
CREATE TABLE shim_call (
    task TEXT NOT NULL,
    caller TEXT NOT NULL,               -- file:line function, or who sent it: a beat entry, another host
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    mode TEXT NOT NULL,
    side TEXT NOT NULL,                 -- what became of it: legacy, dispatch, shadow
    count BIGINT NOT NULL,
    first_seen TIMESTAMPTZ NOT NULL,
    last_seen TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (task, caller, host, version, mode, side)
);

-- shim_worker: from when to when a host's workers had the shim of a task, and counted its calls; gaps begin a new row.
-- Where the version is empty, host is a node that had the task and not its shim, and seen_at when that was seen last
CREATE TABLE shim_worker (
    task TEXT NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    since TIMESTAMPTZ NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (task, host, version, since)
);
