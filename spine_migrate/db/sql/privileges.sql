-- name: owner
-- Who owns a table.
SELECT r.rolname::text AS name, r.rolsuper AS superuser
  FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
 WHERE c.oid = %(oid)s::oid;

-- name: captured
-- Whether changes of a table are captured.
SELECT EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = %(oid)s::oid AND starts_with(tgname::text, 'spine_capture_'));

-- name: pointing
-- Tables that have a foreign key to a table or one of its partitions, itself left out, and who owns them.
WITH RECURSIVE tree(oid) AS (
    SELECT %(oid)s::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT DISTINCT n.nspname AS schema, c.relname AS table, r.rolname::text AS owner, r.rolsuper AS superuser
  FROM pg_constraint con
  JOIN pg_class c ON c.oid = con.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_roles r ON r.oid = c.relowner
 WHERE con.contype = 'f' AND con.conparentid = 0 AND con.confrelid IN (TABLE tree) AND con.conrelid NOT IN (TABLE tree)
 ORDER BY n.nspname, c.relname;

-- name: default_sequences
-- The sequences that a table's defaults take numbers from; an identity column's needs no privilege.
SELECT n.nspname, s.relname
  FROM pg_attrdef d
  JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
  JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S'
  JOIN pg_namespace n ON n.oid = s.relnamespace
 WHERE d.adrelid = %(oid)s::oid
 ORDER BY n.nspname, s.relname;

-- name: here
-- The database, and the schema that the search_path creates tables in.
SELECT current_database()::text, coalesce(current_schema(), 'public')::text;

-- name: version_table_owner
-- Who installed the ledger; no row before the first upgrade.
SELECT r.rolname::text AS name, r.rolsuper AS superuser
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
 WHERE n.nspname = 'spine_migrate' AND c.relname = 'alembic_version';

-- name: ledger_schema_exists
-- Whether a DBA or an earlier upgrade has made the schema already.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'spine_migrate');

-- name: role_exists
-- Whether a role of this name is there.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s);

-- name: current_role
-- Whom the session acts as.
SELECT current_user::text;

-- name: held_database
-- Whether a role holds a privilege on this database.
SELECT has_database_privilege(%(role)s, %(object)s, %(privilege)s);

-- name: held_schema
-- Whether a role holds a privilege on a schema; no row where there is none.
SELECT has_schema_privilege(%(role)s, n.oid, %(privilege)s) FROM pg_namespace n WHERE n.nspname = %(schema)s;

-- name: held_table
-- Whether a role holds a privilege on a table; no row where there is none.
SELECT has_table_privilege(%(role)s, c.oid, %(privilege)s)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = %(object)s;

-- name: held_columns
-- Whether a role holds a privilege on each of these columns; no row where the table is not there.
SELECT coalesce(bool_and(has_column_privilege(%(role)s, c.oid, a.attnum, %(privilege)s)), true)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = ANY(%(columns)s) AND NOT a.attisdropped
 WHERE n.nspname = %(schema)s AND c.relname = %(object)s
 GROUP BY c.oid;

-- name: held_sequence
-- Whether a role holds a privilege on a sequence; no row where there is none.
SELECT has_sequence_privilege(%(role)s, c.oid, %(privilege)s)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = %(object)s;

-- name: held_role
-- Whether a role acts with the privileges of another without SET ROLE.
SELECT pg_has_role(%(role)s, %(object)s, 'USAGE');
