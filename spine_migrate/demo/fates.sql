-- What became of each kind of awkward row: expected fate, rows, in quarantine by reason, links left open.
SELECT a.entity, a.kind, a.fate, count(*) AS rows, count(q.reason) AS quarantined,
       array_to_string(array_agg(DISTINCT q.reason ORDER BY q.reason) FILTER (WHERE q.reason IS NOT NULL), ', ') AS reasons,
       count(*) FILTER (WHERE l.broken) AS broken, count(*) FILTER (WHERE l.waiting) AS waiting
  FROM spine_demo.awkward_row a
  JOIN spine_migrate.migration m ON m.mapping = 'capture-spine/' || a.entity AND m.step <> 'undone'
  LEFT JOIN spine_migrate.quarantine q ON q.migration_id = m.migration_id AND q.source_key = a.source_key
  LEFT JOIN LATERAL (
       SELECT bool_or(state = 'broken') AS broken, bool_or(state = 'waiting') AS waiting
         FROM spine_migrate.link
        WHERE migration_id = m.migration_id AND target_key = a.source_key
       ) l ON true
 GROUP BY a.entity, a.kind, a.fate
 ORDER BY min(CASE a.entity WHEN 'executions' THEN 1 WHEN 'execution_events' THEN 2 ELSE 3 END), a.fate, a.kind
