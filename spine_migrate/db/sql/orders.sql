-- name: installed
-- Whether the ledger is new enough to take orders.
SELECT to_regclass('spine_migrate.control') IS NOT NULL;

-- name: begin
-- A run takes orders from here on; what a killed one has left to say is over.
INSERT INTO spine_migrate.control (migration_id) VALUES (%(migration_id)s)
ON CONFLICT (migration_id) DO UPDATE
   SET held_by = NULL, held_detail = NULL, held_since = NULL, updated_at = clock_timestamp();

-- name: read
-- The orders for a run: its own settings, and the oldest pause, its own or that of the migration whose rows it needs.
SELECT coalesce((SELECT o.settings FROM spine_migrate.control o WHERE o.migration_id = %(migration_id)s), '{}') AS settings,
       p.migration_id, p.paused_at, p.paused_by
  FROM (SELECT) one
  LEFT JOIN LATERAL (
       SELECT c.migration_id, c.paused_at, c.paused_by
         FROM spine_migrate.control c
        WHERE c.migration_id IN (%(migration_id)s, %(parent)s) AND c.paused_at IS NOT NULL
        ORDER BY c.paused_at, c.migration_id
        LIMIT 1
       ) p ON true;

-- name: record
-- What holds a run back, since when by the server's clock; or nothing. Nothing is written where it says so already.
UPDATE spine_migrate.control
   SET held_by = %(by)s::text, held_detail = %(detail)s,
       held_since = CASE WHEN held_by = %(by)s::text THEN held_since
                         WHEN %(by)s::text IS NOT NULL THEN clock_timestamp() END,
       updated_at = clock_timestamp()
 WHERE migration_id = %(migration_id)s
   AND (held_by, held_detail) IS DISTINCT FROM (%(by)s::text, %(detail)s::text);

-- name: pause
-- Of migrations that are paused already, who did so first stays on record.
INSERT INTO spine_migrate.control AS c (migration_id, paused_at, paused_by)
SELECT m, clock_timestamp(), session_user FROM unnest(%(migrations)s::bigint[]) AS m
ON CONFLICT (migration_id) DO UPDATE
   SET paused_at = excluded.paused_at, paused_by = excluded.paused_by, updated_at = clock_timestamp()
 WHERE c.paused_at IS NULL
RETURNING migration_id;

-- name: resume
-- Let go on.
UPDATE spine_migrate.control
   SET paused_at = NULL, paused_by = NULL, updated_at = clock_timestamp()
 WHERE migration_id = ANY (%(migrations)s::bigint[]) AND paused_at IS NOT NULL
RETURNING migration_id;

-- name: change
-- Add settings, or replace those of the same name, and take others away.
INSERT INTO spine_migrate.control AS c (migration_id, settings)
SELECT m, %(given)s FROM unnest(%(migrations)s::bigint[]) AS m
ON CONFLICT (migration_id) DO UPDATE
   SET settings = (c.settings || excluded.settings) - %(removed)s::text[], updated_at = clock_timestamp();

-- name: all
-- What every migration was told, and what holds it back.
SELECT migration_id, paused_at, paused_by, settings, held_by, held_detail, held_since FROM spine_migrate.control;
