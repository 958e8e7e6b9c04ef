-- name: states
-- Indexes of a table by name: size in bytes, and whether each is valid.
SELECT c.relname AS name, pg_relation_size(c.oid) AS bytes, i.indisvalid AS valid
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = %(oid)s::oid AND c.relname = ANY (%(names)s);

-- name: taken
-- What else has one of the names in a schema.
SELECT c.relname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = ANY (%(names)s)
   AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND i.indrelid = %(oid)s::oid)
 ORDER BY c.relname;

-- name: owned
-- Whether the role may build indexes on a table.
SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = %(oid)s::oid;

-- name: unfinished
-- Migrations whose offline load has taken the target's indexes away and not built them again.
SELECT m.mapping
  FROM spine_migrate.migration m
 WHERE m.step = 'backfill' AND m.target_table = %(table)s
   AND EXISTS (SELECT FROM spine_migrate.deferred_ddl d WHERE d.migration_id = m.migration_id AND d.built_at IS NULL)
 ORDER BY m.migration_id;

-- name: of_prefix
-- Indexes of a table whose names begin so.
SELECT c.relname
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = %(oid)s::oid AND starts_with(c.relname::text, %(prefix)s) AND c.relkind = 'i'
 ORDER BY c.relname;
