-- name: is_view
-- Whether there is a view by this name.
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind = 'v');

-- name: odd_constraints
-- Constraints of a table of which the view's triggers know nothing: exclusion, and those that wait for the commit.
SELECT k.conname::text AS name, k.contype = 'x' AS exclusion, pg_get_constraintdef(k.oid) AS definition
  FROM pg_constraint k
 WHERE k.conrelid = %(oid)s::oid AND (k.contype = 'x' OR k.condeferrable)
 ORDER BY 1;

-- name: missing_privileges
-- What the owner of a view must be able to do beneath it, and is not.
SELECT w.privilege, %(target)s AS object
  FROM unnest(%(wanted)s::text[]) AS w (privilege)
 WHERE NOT has_table_privilege(%(role)s, %(target)s, w.privilege)
 UNION ALL
SELECT 'SELECT', 'spine_migrate.link' WHERE NOT has_table_privilege(%(role)s, 'spine_migrate.link', 'SELECT');

-- name: may_reference
-- Whether this role may look for a row and hold it (FOR KEY SHARE), and its name.
SELECT has_table_privilege(%(table)s, 'SELECT') AND has_any_column_privilege(%(table)s, 'UPDATE'), current_user::text;

-- name: writers
-- Who has written through a view, with what, and when last: up to an hour later than it says.
SELECT w.role, w.application, array_agg(DISTINCT w.operation ORDER BY w.operation) AS operations, max(w.at) AS noted_at
  FROM spine_migrate.view_write w
 WHERE w.migration_id = %(migration_id)s
 GROUP BY w.role, w.application
 ORDER BY noted_at DESC;
