-- name: installed
-- Whether the table is there that a repair is recorded in.
SELECT to_regclass('spine_migrate.repair') IS NOT NULL;

-- name: note_moved
-- Record legacy rows that were moved by key: on the target now, or in quarantine.
INSERT INTO spine_migrate.repair (migration_id, kind, source_key, target_key, tool_version)
SELECT %(migration_id)s, CASE WHEN q.source_key IS NULL THEN 'missing' ELSE 'quarantined' END, x.source_key, x.target_key,
       %(tool_version)s
  FROM unnest(%(keys)s::text[], %(target_keys)s::text[]) AS x (source_key, target_key)
  LEFT JOIN spine_migrate.quarantine q ON q.migration_id = %(migration_id)s AND q.source_key = x.source_key;
