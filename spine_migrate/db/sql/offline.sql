-- name: table_facts
-- Whether a table is a plain one, the role's own, without an index as its replica identity, which publication publishes
-- updates or deletes of it, and which of its indexes and constraints, and of the foreign keys that point to it, carry what
-- their definition does not tell.
SELECT c.relkind = 'r' AND NOT c.relispartition AS plain, pg_has_role(c.relowner, 'USAGE') AS owned,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident) AS identity,
       (SELECT min(p.pubname::text)
          FROM pg_publication_tables t
          JOIN pg_publication p USING (pubname)
         WHERE (t.schemaname, t.tablename) = (c.relnamespace::regnamespace::name, c.relname)
           AND (p.pubupdate OR p.pubdelete)) AS published,
       ARRAY(SELECT DISTINCT x.relname::text
               FROM pg_index i
               JOIN pg_class x ON x.oid = i.indexrelid
               LEFT JOIN pg_constraint k ON k.conindid = x.oid AND k.conrelid = c.oid
              WHERE i.indrelid = c.oid
                AND (i.indisclustered OR x.reltablespace <> 0 OR obj_description(x.oid, 'pg_class') IS NOT NULL
                     OR obj_description(k.oid, 'pg_constraint') IS NOT NULL
                     OR k.contype IN ('p', 'u') AND x.reloptions IS NOT NULL
                     OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0
                                   AND a.attnum > 0))
             UNION
             SELECT f.conname::text
               FROM pg_constraint f
              WHERE f.contype = 'f' AND c.oid IN (f.conrelid, f.confrelid)
                AND obj_description(f.oid, 'pg_constraint') IS NOT NULL
              ORDER BY 1) AS special
  FROM pg_class c
 WHERE c.oid = %(oid)s::oid;

-- name: writers
-- Other sessions, and prepared transactions, that hold a lock on one of the tables which neither a reader takes nor VACUUM
-- and ANALYZE do. A copy of a database has tables of the same numbers.
SELECT count(DISTINCT virtualtransaction)
  FROM pg_locks
 WHERE relation = ANY (%(oids)s::oid[]) AND pid IS DISTINCT FROM pg_backend_pid() AND granted
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareUpdateExclusiveLock');

-- name: objects
-- What hangs on a table and is built again after a load, in the order of building: keys, indexes, foreign keys. A foreign
-- key of a table to itself proves, once it is built, that its column leads somewhere in every row.
SELECT kind, object, drop_sql, create_sql, index_oid, proves
  FROM (
    SELECT CASE con.contype WHEN 'p' THEN 1 WHEN 'u' THEN 2 ELSE 4 END AS place,
           CASE con.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique constraint' ELSE 'foreign key' END AS kind,
           con.conname AS object,
           format('ALTER TABLE %%s DROP CONSTRAINT %%I', con.conrelid::regclass, con.conname) AS drop_sql,
           format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', con.conrelid::regclass, con.conname,
                  pg_get_constraintdef(con.oid)) AS create_sql,
           CASE WHEN con.contype = 'u' THEN con.conindid END::bigint AS index_oid,
           CASE WHEN con.contype = 'f' AND con.conrelid = con.confrelid AND con.convalidated AND cardinality(con.conkey) = 1
                THEN (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = con.conrelid AND a.attnum = con.conkey[1])
            END::text AS proves
      FROM pg_constraint con
     WHERE (con.conrelid = %(oid)s::oid AND con.contype IN ('p', 'u', 'f')
            OR con.confrelid = %(oid)s::oid AND con.contype = 'f')
       AND con.conparentid = 0
    UNION ALL
    SELECT 3, CASE WHEN i.indisunique THEN 'unique index' ELSE 'index' END, c.relname,
           format('DROP INDEX %%s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid),
           CASE WHEN i.indisunique THEN i.indexrelid END::bigint, NULL
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
     WHERE i.indrelid = %(oid)s::oid
       AND NOT EXISTS (SELECT FROM pg_constraint con WHERE con.conindid = i.indexrelid AND con.contype IN ('p', 'u', 'x'))
  ) AS found
 ORDER BY place, object;

-- name: under_way
-- Other migrations that have taken the indexes of a target away and not built them again.
SELECT DISTINCT m.mapping
  FROM spine_migrate.deferred_ddl d
  JOIN spine_migrate.migration m USING (migration_id)
 WHERE d.built_at IS NULL AND m.target_table = %(target_table)s AND m.mapping <> %(mapping)s;

-- name: defer
-- Remember how to build an object again.
INSERT INTO spine_migrate.deferred_ddl (migration_id, ordinal, object, kind, drop_sql, create_sql, facts)
VALUES (%(migration_id)s, %(ordinal)s, %(object)s, %(kind)s, %(drop_sql)s, %(create_sql)s, %(facts)s);

-- name: deferred
-- What is still to be built, in order.
SELECT ordinal, object, kind, create_sql, facts
  FROM spine_migrate.deferred_ddl
 WHERE migration_id = %(migration_id)s AND built_at IS NULL
 ORDER BY ordinal;

-- name: proven_links
-- Columns whose foreign key was taken away, and is checked for every row when it is built again.
SELECT facts->>'proves'
  FROM spine_migrate.deferred_ddl
 WHERE migration_id = %(migration_id)s AND facts->>'proves' IS NOT NULL;

-- name: begun
-- Whether a migration was begun offline.
SELECT coalesce((options ->> 'offline')::boolean, false) FROM spine_migrate.migration
 WHERE migration_id = %(migration_id)s;

-- name: built
-- An object is there again.
UPDATE spine_migrate.deferred_ddl SET built_at = clock_timestamp()
 WHERE migration_id = %(migration_id)s AND ordinal = %(ordinal)s;

-- name: for_building
-- Memory for sorting one index at a time.
SELECT set_config('maintenance_work_mem', '512MB', true);
