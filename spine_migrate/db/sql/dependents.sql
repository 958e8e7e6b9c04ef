-- name: views
-- Views that read a table or a view, itself not among them. pg_depend has one row per column, and whether the view needs the primary key (GROUP BY).
SELECT format('%%I.%%I', n.nspname, v.relname) AS name, v.relkind::text AS kind, pg_get_viewdef(v.oid) AS definition,
       coalesce(array_to_string(v.reloptions, ', '), '') AS options, v.relpersistence = 't' AS temporary,
       bool_or(d.refclassid = 'pg_constraint'::regclass) AS needs_key
  FROM pg_depend d
  JOIN pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN'
  JOIN pg_class v ON v.oid = r.ev_class
  JOIN pg_namespace n ON n.oid = v.relnamespace
 WHERE d.classid = 'pg_rewrite'::regclass AND v.oid <> %(oid)s::oid
   AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s::oid
        OR d.refclassid = 'pg_constraint'::regclass
           AND d.refobjid IN (SELECT k.oid FROM pg_constraint k WHERE k.conrelid = %(oid)s::oid))
 GROUP BY v.oid, n.nspname, v.relname, v.relkind, v.reloptions, v.relpersistence
 ORDER BY 1;

-- name: rules
-- Rules of a table, and rules of others that name it; those that are views are not among them.
SELECT DISTINCT r.rulename::text AS rule, r.ev_class::regclass::text AS on_table, r.ev_class = %(oid)s::oid AS own,
       pg_get_ruledef(r.oid) AS definition
  FROM pg_rewrite r
  LEFT JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
 WHERE r.rulename <> '_RETURN' AND %(oid)s::oid IN (r.ev_class, d.refobjid)
 ORDER BY 2, 1;

-- name: routines
-- Functions and procedures that the catalog knows to depend on a table: by a body of standard SQL, or by its row type.
SELECT p.oid::regprocedure::text AS name, bool_or(d.refclassid = 'pg_type'::regclass) AS by_type,
       CASE WHEN p.prokind IN ('f', 'p', 'w') THEN pg_get_functiondef(p.oid) END AS definition
  FROM pg_depend d
  JOIN pg_proc p ON p.oid = d.objid
  JOIN pg_class c ON c.oid = %(oid)s::oid
  JOIN pg_type t ON t.oid = c.reltype
 WHERE d.classid = 'pg_proc'::regclass
   AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
        OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray))
 GROUP BY p.oid, p.prokind
 ORDER BY 1;

-- name: texts
-- Functions and procedures whose text has the table's name in it, which nothing but the text knows of.
SELECT p.oid::regprocedure::text AS name, p.prosrc AS text
  FROM pg_proc p
  JOIN pg_language l ON l.oid = p.prolang
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE l.lanname NOT IN ('internal', 'c') AND p.prosqlbody IS NULL
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'spine_migrate')
   AND strpos(lower(p.prosrc), lower(%(table)s)) > 0
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
 ORDER BY 1;

-- name: row_type_columns
-- Columns of the table's row type, or of arrays of it.
SELECT format('%%s.%%I', a.attrelid::regclass, a.attname) AS name
  FROM pg_class c
  JOIN pg_type t ON t.oid = c.reltype
  JOIN pg_attribute a ON a.atttypid IN (t.oid, t.typarray)
 WHERE c.oid = %(oid)s::oid AND NOT a.attisdropped
 ORDER BY 1;

-- name: policies
-- Row security policies of the table, and those of others that look into it.
SELECT DISTINCT o.polname::text AS policy, o.polrelid::regclass::text AS on_table, o.polrelid = %(oid)s::oid AS own
  FROM pg_policy o
  LEFT JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = o.oid AND d.refclassid = 'pg_class'::regclass
 WHERE %(oid)s::oid IN (o.polrelid, d.refobjid)
 ORDER BY 2, 1;

-- name: triggers
-- Triggers that somebody made and that fire: of the table and of its partitions and children, not of the server and not of ours.
WITH RECURSIVE tree(oid) AS (
    SELECT %(oid)s::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT t.tgname::text AS name, t.tgrelid::regclass::text AS on_table, t.tgrelid = %(oid)s::oid AS own
  FROM tree
  JOIN pg_trigger t ON t.tgrelid = tree.oid
  JOIN pg_proc p ON p.oid = t.tgfoid
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled <> 'D' AND n.nspname <> 'spine_migrate'
 ORDER BY 3 DESC, 1, 2;

-- name: publications
-- Publications that the table is in, by name or with all tables of its schema or the database.
SELECT DISTINCT p.pubname::text AS name
  FROM pg_publication_tables p
  JOIN pg_namespace n ON n.nspname = p.schemaname
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
 WHERE c.oid = %(oid)s::oid
 ORDER BY 1;

-- name: subscriptions
-- Subscriptions that write to the table or to one of its partitions.
SELECT DISTINCT s.subname::text AS name
  FROM pg_subscription_rel r
  JOIN pg_subscription s ON s.oid = r.srsubid
 WHERE r.srrelid IN (SELECT %(oid)s::oid UNION SELECT relid FROM pg_partition_tree(%(oid)s::oid))
 ORDER BY 1;

-- name: relatives
-- What the table inherits from or is a partition of, and what inherits from it; its own partitions too.
SELECT h.inhparent::regclass::text AS name, 'parent' AS role, c.relispartition AS partition
  FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
 WHERE h.inhrelid = %(oid)s::oid
 UNION ALL
SELECT h.inhrelid::regclass::text, 'child', c.relispartition
  FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
 WHERE h.inhparent = %(oid)s::oid
 ORDER BY 2 DESC, 1;

-- name: sequences
-- Sequences that columns of the table own, and which other tables take values from them.
SELECT s.oid::regclass::text AS name,
       ARRAY(SELECT DISTINCT f.adrelid::regclass::text
               FROM pg_depend u JOIN pg_attrdef f ON f.oid = u.objid
              WHERE u.classid = 'pg_attrdef'::regclass AND u.refclassid = 'pg_class'::regclass AND u.refobjid = s.oid
                AND f.adrelid <> %(oid)s::oid ORDER BY 1) AS used_by
  FROM pg_depend d
  JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s::oid
   AND d.deptype IN ('a', 'i')
 ORDER BY 1;

-- name: statement_statistics
-- Where statements are kept: pg_stat_statements, or a view by that name that somebody has put before it for those who may
-- not read it all. Without the library, of which track is a setting, the extension's own fails.
SELECT n.nspname::text AS schema
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = 'pg_stat_statements' AND c.relkind = 'v' AND has_table_privilege(c.oid, 'SELECT')
   AND has_schema_privilege(n.oid, 'USAGE')
   AND (SELECT count(*) FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attname IN ('dbid', 'query', 'calls')) = 3
   AND (current_setting('pg_stat_statements.track', true) IS NOT NULL
        OR NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'));
