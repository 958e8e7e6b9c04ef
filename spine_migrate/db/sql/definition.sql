-- name: relation
-- Who owns a table and what is said of it.
SELECT pg_get_userbyid(c.relowner)::text AS owner, obj_description(c.oid, 'pg_class') AS comment, c.relrowsecurity AS row_security,
       current_setting('server_version_num')::int AS server_version
  FROM pg_class c
 WHERE c.oid = %(oid)s::oid;

-- name: columns
-- The columns of a table as its DDL has them.
SELECT a.attname::text AS name,
       format_type(a.atttypid, a.atttypmod) AS sql_type,
       CASE WHEN a.attcollation <> t.typcollation
            THEN (SELECT format('%%I.%%I', n.nspname, l.collname)
                    FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
                   WHERE l.oid = a.attcollation) END AS collation,
       a.attnotnull AS not_null,
       a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint v
                                     WHERE v.conrelid = a.attrelid AND v.contype = 'n' AND NOT v.convalidated
                                       AND v.conkey = ARRAY[a.attnum]) AS never_null,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS default_value,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS generated,
       a.attidentity::text AS identity,
       pg_get_serial_sequence(a.attrelid::regclass::text, a.attname) AS sequence,
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = a.atttypid ORDER BY e.enumsortorder) AS labels,
       col_description(a.attrelid, a.attnum) AS comment
  FROM pg_attribute a
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum;

-- name: checks
-- CHECK constraints that are enforced, valid for old rows or not.
SELECT k.conname::text AS name, pg_get_expr(k.conbin, k.conrelid) AS expression,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey) ORDER BY a.attnum) AS columns
  FROM pg_constraint k
 WHERE k.conrelid = %(oid)s::oid AND k.contype = 'c'
   AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
 ORDER BY k.conname;

-- name: foreign_keys
-- Foreign keys of a table, and those of others that point to it; a partition's copies of its parent's are left out.
SELECT k.conname::text AS name,
       k.conrelid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS table_name,
       k.confrelid::bigint AS referenced_oid, rn.nspname::text AS referenced_schema, r.relname::text AS referenced_table,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, n)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.n) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (attnum, n)
               JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.n) AS referenced,
       ARRAY(SELECT format('OPERATOR(%%s.%%s)', o.oprnamespace::regnamespace, o.oprname)
               FROM unnest(k.conpfeqop) WITH ORDINALITY AS u (opr, n)
               JOIN pg_operator o ON o.oid = u.opr ORDER BY u.n) AS operators,
       k.confdeltype::text AS on_delete, k.confupdtype::text AS on_update,
       pg_get_constraintdef(k.oid) AS definition,
       c.relkind <> 'p' OR current_setting('server_version_num')::int >= 180000 AS takes_not_valid
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class r ON r.oid = k.confrelid
  JOIN pg_namespace rn ON rn.oid = r.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0 AND %(oid)s::oid IN (k.conrelid, k.confrelid)
   AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
 ORDER BY n.nspname, c.relname, k.conname;

-- name: grants
-- Who but the owner may do what, with a table or with columns of it; the role is NULL for PUBLIC.
SELECT NULLIF(pg_get_userbyid(x.grantee)::text, 'unknown (OID=0)') AS role, a.attname::text AS column_name,
       x.privilege_type AS privilege, x.is_grantable AS grantable
  FROM pg_class c
 CROSS JOIN LATERAL (SELECT NULL::name AS attname, c.relacl AS acl
                      UNION ALL
                     SELECT t.attname, t.attacl FROM pg_attribute t
                      WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL AND NOT t.attisdropped) AS a
 CROSS JOIN LATERAL aclexplode(a.acl) AS x
 WHERE c.oid = %(oid)s::oid AND x.grantee <> c.relowner
 ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, 3;

-- name: indexes
-- Valid indexes with what they are over: columns, and expressions in the place of each, as the server prints them.
SELECT c.relname::text AS name, m.amname::text AS method, i.indisprimary AS is_primary, pg_get_expr(i.indpred, i.indrelid) AS predicate,
       ARRAY(SELECT a.attname::text FROM generate_series(0, i.indnkeyatts - 1) AS k
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k] ORDER BY k) AS columns,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false)
               FROM generate_series(1, i.indnkeyatts) AS k ORDER BY k) AS expressions
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_am m ON m.oid = c.relam
 WHERE i.indrelid = %(oid)s::oid AND i.indisvalid
 ORDER BY c.relname;
