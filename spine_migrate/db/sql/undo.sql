-- name: unwritten
-- Columns that no rule writes and whose value after an INSERT is known: NULL, or a default that is the same at any time.
-- None of them where a trigger may fill in others.
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, pg_get_expr(d.adbin, d.adrelid) AS expression
  FROM pg_attribute a
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''
   AND a.attname <> ALL (%(written)s::text[])
   AND NOT coalesce(d.adbin::text ~ 'SQLVALUEFUNCTION|NEXTVALUEEXPR', false)
   AND NOT EXISTS (SELECT FROM regexp_matches(d.adbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') AS called
                     JOIN pg_proc p ON p.oid = called[1]::oid
                    WHERE p.provolatile <> 'i')
   AND NOT EXISTS (SELECT FROM pg_trigger t
                    WHERE t.tgrelid = a.attrelid AND NOT t.tgisinternal AND t.tgtype & 1 <> 0 AND t.tgtype & 2 <> 0
                      AND t.tgtype & 4 <> 0)
 ORDER BY a.attnum;

-- name: references
-- Foreign keys that point to a table or one of its partitions, whether a deletion there deletes or changes rows here, and
-- whether an index serves them.
WITH RECURSIVE tree(oid) AS (
    SELECT %(oid)s::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT n.nspname AS schema, c.relname AS table_name, con.conname AS name,
       ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY AS k (num, place)
               JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.num ORDER BY k.place) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(con.confkey) WITH ORDINALITY AS k (num, place)
               JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.num ORDER BY k.place) AS referenced,
       con.conrelid IN (TABLE tree) AS own, con.confdeltype IN ('c', 'n', 'd') AS acts,
       EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
                WHERE i.indrelid = con.conrelid AND i.indisvalid AND i.indkey[0] = con.conkey[1]
                  AND m.amname IN ('btree', 'hash')
                  AND (i.indpred IS NULL
                       OR pg_get_expr(i.indpred, i.indrelid) = format('(%%I IS NOT NULL)', f.attname))) AS indexed,
       pg_has_role(c.relowner, 'USAGE') AS owned, c.relkind = 'p' AS partitioned,
       coalesce((SELECT sum(pg_relation_size(t.relid)) FROM pg_partition_tree(c.oid) t), pg_relation_size(c.oid))::bigint
           AS bytes
  FROM pg_constraint con
  JOIN pg_class c ON c.oid = con.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute f ON f.attrelid = con.conrelid AND f.attnum = con.conkey[1]
 WHERE con.contype = 'f' AND con.conparentid = 0 AND con.confrelid IN (TABLE tree)
 ORDER BY n.nspname, c.relname, con.conname;

-- name: index_state
-- An index by name: whether it is valid; no row where there is none.
SELECT i.indisvalid
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = %(name)s;

-- name: try_indexes
-- The lock of whoever builds or drops indexes of ours on a target.
SELECT pg_try_advisory_lock(hashtextextended(%(oid)s::text, 7745));

-- name: leave_indexes
SELECT pg_advisory_unlock(hashtextextended(%(oid)s::text, 7745));

-- name: captured_into
-- Whether changes are captured of any migration into a target.
SELECT EXISTS (SELECT FROM spine_migrate.capture c JOIN spine_migrate.migration m USING (migration_id)
                WHERE to_regclass(m.target_table) = %(oid)s::oid);

-- name: leftovers
-- Indexes of a target that an undo has built, as far as the role may drop them; none while the undo of a migration other
-- than this one is at work on the target.
SELECT n.nspname, c.relname
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE i.indrelid = %(oid)s::oid AND c.relname LIKE 'spine\_undo\_%%' AND pg_has_role(c.relowner, 'USAGE')
   AND NOT EXISTS (
       SELECT FROM spine_migrate.migration m
         JOIN pg_locks k ON k.locktype = 'advisory' AND k.objsubid = 1 AND k.granted
          AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (k.classid::bigint << 32 | k.objid::bigint) =
              hashtextextended(m.mapping || '|' || m.source_table || '|' || m.target_table, 7741)
        WHERE m.step = 'undoing' AND m.migration_id IS DISTINCT FROM %(migration_id)s::bigint
          AND to_regclass(m.target_table) = i.indrelid)
 ORDER BY c.relname;

-- name: unlink
-- Links of target rows that are gone.
DELETE FROM spine_migrate.link WHERE migration_id = %(migration_id)s AND target_key = ANY (%(keys)s);

-- name: held
-- The quarantine of a migration by reason.
SELECT reason, count(*) FROM spine_migrate.quarantine WHERE migration_id = %(migration_id)s GROUP BY reason
 ORDER BY reason;

-- name: forget_quarantine
-- What an undone migration leaves in the ledger is its own row and its audit.
DELETE FROM spine_migrate.quarantine WHERE migration_id = %(migration_id)s;

-- name: forget_links
-- As above.
DELETE FROM spine_migrate.link WHERE migration_id = %(migration_id)s;

-- name: forget_deferred
-- As above.
DELETE FROM spine_migrate.deferred_ddl WHERE migration_id = %(migration_id)s;

-- name: forget_checkpoints
-- As above.
DELETE FROM spine_migrate.checkpoint WHERE migration_id = %(migration_id)s;
