-- name: migrations
-- Every migration with what its checkpoints, its quarantine and its links add up to. Tables are looked up in the catalog,
-- since to_regclass asks for USAGE on their schemas.
SELECT m.migration_id, m.mapping, m.source_table, m.target_table, m.step, m.tool_version, m.started_by, m.started_at,
       m.finished_at, coalesce(c.rows_moved, 0) AS rows_moved, coalesce(c.rows_adopted, 0) AS rows_adopted,
       c.last_batch_at, c.blocks_done, c.blocks_total,
       coalesce(q.quarantined, '{}') AS quarantined, coalesce(q.discarded, 0) AS discarded,
       coalesce(l.waiting, 0) AS links_waiting, coalesce(l.broken, 0) AS links_broken,
       coalesce(u.names, '{}') AS undo_indexes,
       EXISTS (SELECT FROM pg_locks k
                WHERE k.locktype = 'advisory' AND k.objsubid = 1 AND k.granted
                  AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND (k.classid::bigint << 32 | k.objid::bigint) =
                      hashtextextended(m.mapping || '|' || m.source_table || '|' || m.target_table, 7741)) AS at_work,
       EXISTS (SELECT FROM pg_locks k
                WHERE k.locktype = 'advisory' AND k.objsubid = 1 AND k.granted
                  AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND (k.classid::bigint << 32 | k.objid::bigint) =
                      hashtextextended(m.mapping || '|' || m.source_table || '|' || m.target_table, 7743)) AS following
  FROM spine_migrate.migration m
  LEFT JOIN LATERAL (
       SELECT sum(p.rows_moved)::bigint AS rows_moved, sum(p.rows_adopted)::bigint AS rows_adopted,
              max(p.updated_at) FILTER (WHERE p.batches > 0) AS last_batch_at,
              sum(CASE WHEN p.done THEN p.ends ELSE least(p.reached, p.ends) END - p.low_block)
                  FILTER (WHERE p.segment >= 0)::bigint AS blocks_done,
              sum(p.ends - p.low_block) FILTER (WHERE p.segment >= 0)::bigint AS blocks_total
         FROM (SELECT s.*, (s.position::tid::text::point)[0]::bigint AS reached,
                      coalesce(s.high_block, greatest(s.low_block, coalesce(
                          -- By name: to_regclass asks for USAGE on the schema, which a size does not.
                          (SELECT pg_relation_size(f.oid) / current_setting('block_size')::bigint
                             FROM pg_class f JOIN pg_namespace n ON n.oid = f.relnamespace
                            WHERE n.nspname = s.leaf_schema AND f.relname = s.leaf_table), s.low_block))) AS ends
                 FROM spine_migrate.checkpoint s WHERE s.migration_id = m.migration_id) p
       ) c ON true
  LEFT JOIN LATERAL (
       SELECT jsonb_object_agg(r.reason, r.rows) AS quarantined, sum(r.discarded)::bigint AS discarded
         FROM (SELECT reason, count(*) AS rows, count(discarded_at) AS discarded
                 FROM spine_migrate.quarantine WHERE migration_id = m.migration_id GROUP BY reason) r
       ) q ON true
  LEFT JOIN LATERAL (
       SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'broken') AS broken
         FROM spine_migrate.link WHERE migration_id = m.migration_id
       ) l ON true
  LEFT JOIN LATERAL (
       SELECT array_agg(x.relname::text ORDER BY x.relname) AS names
         FROM pg_index i
         JOIN pg_class x ON x.oid = i.indexrelid
         JOIN pg_class t ON t.oid = i.indrelid
         JOIN pg_namespace n ON n.oid = t.relnamespace
        WHERE x.relname LIKE 'spine\_undo\_%%'
          AND m.target_table = format('"%%s"."%%s"', replace(n.nspname, '"', '""'), replace(t.relname, '"', '""'))
       ) u ON true
 WHERE %(undone)s OR m.step <> 'undone'
 ORDER BY m.migration_id;

-- name: waiting
-- Changes of each migration that are not applied yet, at most a hundred thousand are counted, and rows that are put off.
SELECT c.migration_id, sum(l.entries + p.rows)::bigint AS changes
  FROM spine_migrate.capture c
  LEFT JOIN LATERAL (
       SELECT count(*) AS entries
         FROM (SELECT FROM spine_migrate.change_log WHERE capture_id = c.capture_id LIMIT 100000) x) l ON true
  LEFT JOIN LATERAL (
       SELECT count(*) AS rows FROM spine_migrate.pending WHERE capture_id = c.capture_id) p ON true
 GROUP BY c.migration_id;
