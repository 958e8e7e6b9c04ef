-- name: relation
-- A relation by name, in a schema or on the search_path.
SELECT c.oid::bigint AS oid, n.nspname, c.relname, c.relkind::text AS relkind, c.relrowsecurity,
       coalesce((SELECT sum(pg_table_size(t.relid)) FROM pg_partition_tree(c.oid) t), pg_table_size(c.oid))::bigint
           AS bytes_total,
       coalesce((SELECT sum(greatest(l.reltuples, 0)) FROM pg_partition_tree(c.oid) t JOIN pg_class l ON l.oid = t.relid
                  WHERE t.isleaf), greatest(c.reltuples, 0))::bigint AS rows_estimated
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = %(table)s
   AND CASE WHEN %(schema)s::text IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = %(schema)s END
   AND c.relkind IN ('r', 'p', 'v', 'm', 'f');

-- name: name_parts
-- A quoted, schema-qualified name in its two parts.
SELECT parse_ident(%(name)s);

-- name: columns
-- The columns of a table, with enum types named as such and lengths in characters. The type citext comes with an extension,
-- which can be in any schema. From PostgreSQL 18 on a NOT NULL may be NOT VALID, and rows from before may be NULL all the same.
SELECT a.attname AS name,
       CASE WHEN t.typtype = 'e' THEN 'enum'
            WHEN t.typtype = 'b' AND t.typname = 'citext' THEN 'citext'
            ELSE format_type(a.atttypid, NULL) END AS type,
       format_type(a.atttypid, a.atttypmod) AS sql_type,
       CASE WHEN a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod > 4
            THEN a.atttypmod - 4 END AS length,
       a.attnotnull
       AND NOT EXISTS (SELECT FROM pg_constraint v
                        WHERE v.conrelid = a.attrelid AND v.contype = 'n' AND NOT v.convalidated
                          AND v.conkey = ARRAY[a.attnum]) AS not_null,
       a.atthasdef AND a.attgenerated = '' OR a.attidentity <> '' AS has_default,
       a.attgenerated <> '' AS generated
  FROM pg_attribute a
  JOIN pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum;

-- name: foreign_child
-- A foreign table among those that inherit from a table.
WITH RECURSIVE tree(oid) AS (
    SELECT %(oid)s::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT format('%%I.%%I', n.nspname, c.relname) AS name
  FROM tree t
  JOIN pg_class c ON c.oid = t.oid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'f'
 ORDER BY 1
 LIMIT 1;

-- name: leaves
-- The table and everything that inherits from it, without those that hold no rows themselves.
WITH RECURSIVE tree(oid) AS (
    SELECT %(oid)s::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT n.nspname, c.relname, pg_relation_filenode(c.oid)::bigint AS filenode,
       pg_relation_size(c.oid) / current_setting('block_size')::bigint AS blocks
  FROM tree t
  JOIN pg_class c ON c.oid = t.oid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r'
 ORDER BY n.nspname, c.relname;

-- name: child_columns
-- What tables that inherit from it add to its columns; partitions cannot.
WITH RECURSIVE tree(oid) AS (
    SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = %(oid)s::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT format('%%s.%%I', t.oid::regclass, a.attname)
  FROM tree t
  JOIN pg_attribute a ON a.attrelid = t.oid
 WHERE a.attnum > 0 AND NOT a.attisdropped
   AND NOT EXISTS (SELECT FROM pg_attribute p
                    WHERE p.attrelid = %(oid)s::oid AND p.attname = a.attname AND NOT p.attisdropped)
 ORDER BY 1;

-- name: unique_indexes
-- Unique indexes but the primary key's, with what they are over and for which rows.
SELECT c.relname AS name,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false)
               FROM generate_series(1, i.indnkeyatts) AS k ORDER BY k) AS expressions,
       ARRAY(SELECT coalesce(a.attname::text, '')
               FROM generate_series(0, i.indnkeyatts - 1) AS k
               LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k] AND a.attnum > 0
              ORDER BY k) AS columns,
       ARRAY(SELECT a.attname::text
               FROM pg_attribute a
              WHERE a.attrelid = i.indrelid AND a.attnum > 0
                AND (a.attnum = ANY (i.indkey)
                     OR EXISTS (SELECT FROM pg_depend d
                                 WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                                   AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
                                   AND d.refobjsubid = a.attnum))
              ORDER BY a.attnum) AS reads,
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       NOT coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_distinct,
       i.indisvalid AS valid
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = %(oid)s::oid AND i.indisunique AND NOT i.indisprimary
 ORDER BY c.relname;

-- name: primary_keys
-- Indexes of a primary key, those of partitions included.
SELECT c.relname
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indisprimary
   AND i.indrelid IN (SELECT %(oid)s::oid UNION SELECT relid FROM pg_partition_tree(%(oid)s::oid));

-- name: is_unique
-- Whether one column alone is covered by a valid unique index without a predicate, in the tables that inherit from it
-- too, where those are asked for: each has indexes of its own.
SELECT EXISTS (
    SELECT FROM pg_index i
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
     WHERE i.indrelid = %(oid)s::oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1
       AND a.attname = %(column)s
       AND NOT (%(children)s AND EXISTS (SELECT FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhparent
                        WHERE h.inhparent = %(oid)s::oid AND c.relkind = 'r'))
);
