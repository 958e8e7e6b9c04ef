-- name: is_view
-- Whether there is a view by this name.
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind = 'v');

-- name: may
-- Whether the role may delete or change rows of a table by what they hold.
SELECT has_table_privilege(%(oid)s::oid, 'SELECT') AND has_table_privilege(%(oid)s::oid, %(privilege)s);

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

-- name: hides_rows
-- Whether row security of a table holds for a role.
SELECT c.relrowsecurity AND NOT (r.rolsuper OR r.rolbypassrls)
       AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE'))
  FROM pg_class c, pg_roles r
 WHERE c.oid = %(oid)s::oid AND r.rolname = %(role)s;

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

-- name: expressions
-- What the view's triggers evaluate in the table's stead: enforced CHECK constraints and generated columns (a mapping takes no
-- column of a domain). Of each, the functions that it calls which somebody has defined in a language that runs as whoever calls it
-- (written), and the server's own that are not immutable (settled). In a node tree a function stands as funcid, that of an
-- operator as opfuncid.
WITH expressions AS (
    SELECT 'check constraint' AS kind, format('%%I ON %%s', k.conname, k.conrelid::regclass) AS name,
           k.conbin::text AS tree, pg_get_expr(k.conbin, k.conrelid) AS expression
      FROM pg_constraint k
     WHERE k.conrelid = %(oid)s::oid AND k.contype = 'c' AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
     UNION ALL
    SELECT 'generated column', format('%%s.%%I', a.attrelid::regclass, a.attname), f.adbin::text, pg_get_expr(f.adbin, f.adrelid)
      FROM pg_attribute a JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
     WHERE a.attrelid = %(oid)s::oid AND a.attgenerated <> ''
)
SELECT e.kind, e.name, e.expression,
       coalesce(array_agg(DISTINCT p.oid::regprocedure::text) FILTER (WHERE p.pronamespace <> 'pg_catalog'::regnamespace
                          AND l.lanname NOT IN ('c', 'internal')), '{}') AS written,
       coalesce(array_agg(DISTINCT p.proname::text) FILTER (WHERE p.pronamespace = 'pg_catalog'::regnamespace
                          AND p.provolatile <> 'i'), '{}') AS settled
  FROM expressions e
  LEFT JOIN LATERAL regexp_matches(e.tree, ':(?:op)?funcid (\d+)', 'g') AS m (oids) ON true
  LEFT JOIN pg_proc p ON p.oid = m.oids[1]::oid
  LEFT JOIN pg_language l ON l.oid = p.prolang
 GROUP BY e.kind, e.name, e.expression
 ORDER BY 1, 2;
