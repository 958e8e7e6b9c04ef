-- name: lock_revisions
-- One upgrade or downgrade at a time on this database.
SELECT pg_advisory_xact_lock(hashtextextended('spine_migrate.alembic_version', 0))

-- name: create_ledger_schema
-- Looks first: CREATE SCHEMA IF NOT EXISTS asks for CREATE on the database even where a DBA has made the schema already.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'spine_migrate') THEN
        CREATE SCHEMA spine_migrate;
    END IF;
END
$$

-- name: record_search_path_target
-- The version table remembers where the search_path put the target tables.
DO $$
BEGIN
    EXECUTE format('COMMENT ON TABLE spine_migrate.alembic_version IS %L', current_schema());
END
$$

-- name: drop_version_table
-- At base nothing is left to remember.
DROP TABLE IF EXISTS spine_migrate.alembic_version

-- name: drop_ledger_schema
-- Stays where something else lives in it, or where a DBA made it for this role.
DO $$
BEGIN
    DROP SCHEMA IF EXISTS spine_migrate;
EXCEPTION
    WHEN dependent_objects_still_exist OR insufficient_privilege THEN NULL;
END
$$

-- name: recorded_target
-- The schema that the target tables were created in; no row before the first upgrade.
SELECT pg_catalog.obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'spine_migrate' AND c.relname = 'alembic_version'

-- name: current_schema
-- Where the search_path creates tables; NULL where it names no schema that exists.
SELECT current_schema()::text

-- name: schema_exists
-- Whether a schema of that name exists.
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)

-- name: taken_by
-- What kind of relation has this name in the schema; no row where the name is free.
SELECT CASE c.relkind
    WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence'
    WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'type' ELSE 'table'
END
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s
