-- name: counts
-- The quarantine by migration and reason, the most frequent first.
SELECT m.migration_id, m.mapping, q.reason, count(*) FILTER (WHERE q.discarded_at IS NULL) AS open,
       count(*) FILTER (WHERE q.discarded_at IS NOT NULL) AS discarded
  FROM spine_migrate.quarantine q
  JOIN spine_migrate.migration m USING (migration_id)
 WHERE q.migration_id = ANY (%(migrations)s) AND (%(reasons)s::text[] IS NULL OR q.reason = ANY (%(reasons)s))
 GROUP BY m.migration_id, m.mapping, q.reason
 ORDER BY m.migration_id, count(*) DESC, q.reason;

-- name: rows
-- Entries in the order in which they came.
SELECT q.quarantine_id, q.migration_id, m.mapping, q.source_key, q.reason, q.field, q.detail, q.attempts,
       q.discarded_at IS NOT NULL AS discarded
  FROM spine_migrate.quarantine q
  JOIN spine_migrate.migration m USING (migration_id)
 WHERE q.migration_id = ANY (%(migrations)s) AND (%(reasons)s::text[] IS NULL OR q.reason = ANY (%(reasons)s))
 ORDER BY q.quarantine_id
 LIMIT %(limit)s;

-- name: entry
-- Entries with a key, or the one with a number, whole.
SELECT q.quarantine_id, q.migration_id, m.mapping, m.target_table, q.source_key, q.reason, q.field, q.detail, q.sqlstate,
       q.constraint_name, q.attempts, q.created_at, q.updated_at, q.discarded_at, q.discarded_by,
       q.source_row::text AS source_row, q.colliding_row::text AS colliding_row
  FROM spine_migrate.quarantine q
  JOIN spine_migrate.migration m USING (migration_id)
 WHERE q.migration_id = ANY (%(migrations)s)
   AND CASE WHEN %(quarantine_id)s::bigint IS NULL THEN q.source_key = %(key)s
            ELSE q.quarantine_id = %(quarantine_id)s END
 ORDER BY q.quarantine_id;

-- name: export
-- Entries whole, as text. JSON that was kept as it was may hold line ends between its tokens, never inside a string.
SELECT q.quarantine_id::text, q.migration_id::text, m.mapping, q.source_key, q.reason, q.field, q.detail, q.sqlstate,
       q.constraint_name, q.attempts::text, q.created_at::text, q.updated_at::text, q.discarded_at::text,
       q.discarded_by, translate(q.source_row::text, E'\n\r', '  ') AS source_row,
       translate(q.colliding_row::text, E'\n\r', '  ') AS colliding_row
  FROM spine_migrate.quarantine q
  JOIN spine_migrate.migration m USING (migration_id)
 WHERE q.migration_id = ANY (%(migrations)s) AND (%(reasons)s::text[] IS NULL OR q.reason = ANY (%(reasons)s))
 ORDER BY q.quarantine_id;

-- name: discard
-- Mark entries as settled; counts by migration and reason. Those that are marked already stay as they are.
WITH marked AS (
    UPDATE spine_migrate.quarantine
       SET discarded_at = clock_timestamp(), discarded_by = session_user
     WHERE migration_id = ANY (%(migrations)s) AND discarded_at IS NULL
       AND (%(reasons)s::text[] IS NULL OR reason = ANY (%(reasons)s))
       AND (%(keys)s::text[] IS NULL OR source_key = ANY (%(keys)s))
 RETURNING migration_id, reason
)
SELECT migration_id, reason, count(*) FROM marked GROUP BY migration_id, reason ORDER BY migration_id, reason;

-- name: discardable
-- How many entries a discard would mark.
SELECT count(*)
  FROM spine_migrate.quarantine
 WHERE migration_id = ANY (%(migrations)s) AND discarded_at IS NULL
   AND (%(reasons)s::text[] IS NULL OR reason = ANY (%(reasons)s))
   AND (%(keys)s::text[] IS NULL OR source_key = ANY (%(keys)s));

-- name: present
-- Which of these keys are in the quarantine of these migrations.
SELECT DISTINCT source_key FROM spine_migrate.quarantine
 WHERE migration_id = ANY (%(migrations)s) AND source_key = ANY (%(keys)s);

-- name: selection
-- How many entries a retry takes, and the last number among them: what comes in later is not part of it.
SELECT count(*), coalesce(max(quarantine_id), 0)
  FROM spine_migrate.quarantine
 WHERE migration_id = %(migration_id)s AND (discarded_at IS NULL OR %(keys)s::text[] IS NOT NULL)
   AND (%(reasons)s::text[] IS NULL OR reason = ANY (%(reasons)s))
   AND (%(keys)s::text[] IS NULL OR source_key = ANY (%(keys)s));

-- name: page
-- The next entries that a retry takes. Discarded ones only where they are named.
SELECT quarantine_id, source_key
  FROM spine_migrate.quarantine
 WHERE migration_id = %(migration_id)s AND (discarded_at IS NULL OR %(keys)s::text[] IS NOT NULL)
   AND (%(reasons)s::text[] IS NULL OR reason = ANY (%(reasons)s))
   AND (%(keys)s::text[] IS NULL OR source_key = ANY (%(keys)s))
   AND quarantine_id > %(after)s AND quarantine_id <= %(last)s
 ORDER BY quarantine_id
 LIMIT %(limit)s;

-- name: hold
-- Lock the entries of a batch, with their attempts so far.
SELECT source_key, attempts
  FROM spine_migrate.quarantine
 WHERE migration_id = %(migration_id)s AND source_key = ANY (%(keys)s)
 ORDER BY quarantine_id
   FOR UPDATE;

-- name: refused_again
-- Of the entries of a batch those that were refused once more, by reason.
SELECT q.reason, count(*)
  FROM spine_migrate.quarantine q
  JOIN unnest(%(keys)s::text[], %(attempts)s::int[]) AS x (source_key, attempts) USING (source_key)
 WHERE q.migration_id = %(migration_id)s AND q.attempts > x.attempts
 GROUP BY q.reason
 ORDER BY q.reason;

-- name: untried
-- Of the entries of a batch those that were neither moved nor refused: their source row is gone.
SELECT q.source_key
  FROM spine_migrate.quarantine q
  JOIN unnest(%(keys)s::text[], %(attempts)s::int[]) AS x (source_key, attempts) USING (source_key)
 WHERE q.migration_id = %(migration_id)s AND q.attempts = x.attempts
 ORDER BY q.source_key;

-- name: discard_keys
-- Mark entries of one migration as settled.
UPDATE spine_migrate.quarantine
   SET discarded_at = clock_timestamp(), discarded_by = session_user
 WHERE migration_id = %(migration_id)s AND source_key = ANY (%(keys)s) AND discarded_at IS NULL;

-- name: accept_mapping
-- The digest that a migration goes by from now on.
UPDATE spine_migrate.migration SET mapping_digest = %(digest)s WHERE migration_id = %(migration_id)s;
