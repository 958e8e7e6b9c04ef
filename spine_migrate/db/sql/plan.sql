-- name: row_shape
-- A table's columns as an INSERT fills them. A default that calls a volatile function counts as none: it gives each row
-- a value of its own, and calling it may write (nextval).
SELECT a.attname AS name,
       format_type(a.atttypid, -1) AS type,
       CASE WHEN a.attcollation <> t.typcollation
            THEN (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname)
                    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
                   WHERE c.oid = a.attcollation) END AS collation,
       CASE WHEN a.attgenerated <> '' OR NOT EXISTS (
                     SELECT FROM regexp_matches(d.adbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') AS called
                       JOIN pg_proc p ON p.oid = called[1]::oid
                      WHERE p.provolatile = 'v')
            THEN pg_get_expr(d.adbin, d.adrelid) END AS expression,
       a.attgenerated <> '' AS generated
  FROM pg_attribute a
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum;
