-- name: snapshot
-- What an archive stands on. A standby has no position of its own, it has replayed up to one.
SELECT pg_current_snapshot()::text AS snapshot,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text AS lsn,
       current_database()::text AS database, current_setting('server_version') AS server_version,
       current_setting('server_encoding') AS encoding, session_user::text AS made_by, transaction_timestamp() AS made_at;

-- name: tree
-- The tables and all that inherits from them, what is inherited from first; parents as far as they are among them.
WITH RECURSIVE tree(oid, depth) AS (
    SELECT oid, 0 FROM unnest(%(oids)s::oid[]) AS oid
    UNION
    SELECT i.inhrelid, t.depth + 1 FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
), place(oid, depth) AS (
    SELECT oid, max(depth) FROM tree GROUP BY oid
)
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind = 'p' AS partitioned,
       c.relpersistence = 'u' AS unlogged, pg_get_partkeydef(c.oid) AS partition_by,
       CASE WHEN c.relispartition THEN pg_get_expr(c.relpartbound, c.oid) END AS bound,
       obj_description(c.oid, 'pg_class') AS comment,
       ARRAY(SELECT i.inhparent::bigint FROM pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno) AS parents
  FROM place p
  JOIN pg_class c ON c.oid = p.oid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY p.depth, n.nspname, c.relname;

-- name: columns
-- The columns of a table. Where the default is the next value of a sequence and nothing else, the sequence is named.
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(cn.nspname) || '.' || quote_ident(c.collname) END AS collation,
       -- Since PostgreSQL 18 it may be NOT VALID.
       a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint k
                                     WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
                                       AND NOT k.convalidated) AS not_null,
       CASE WHEN s.name IS NULL THEN pg_get_expr(d.adbin, d.adrelid) END AS default,
       CASE a.attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' END AS generated,
       CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END AS identity,
       s.schema AS sequence_schema, s.name AS sequence, col_description(a.attrelid, a.attnum) AS comment
  FROM pg_attribute a
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_collation c ON c.oid = a.attcollation
  LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN LATERAL (
      SELECT n.nspname AS schema, r.relname AS name
        FROM pg_depend e
        JOIN pg_class r ON r.oid = e.refobjid AND r.relkind = 'S'
        JOIN pg_namespace n ON n.oid = r.relnamespace
       WHERE e.classid = 'pg_attrdef'::regclass AND e.objid = d.oid AND e.refclassid = 'pg_class'::regclass
         AND pg_get_expr(d.adbin, d.adrelid) = format('nextval(%%L::regclass)', r.oid::regclass::text)) s ON true
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum;

-- name: sequences
-- The sequences that a table's columns own or take their defaults from, without those that an expression calls in
-- another way: such an expression names its sequence, which must be there.
WITH owned AS (
    SELECT d.objid AS oid, a.attname, d.deptype = 'i' AS identity
      FROM pg_depend d
      JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s::oid
       AND d.deptype IN ('a', 'i')
), called AS (
    SELECT e.refobjid AS oid,
           bool_and(pg_get_expr(d.adbin, d.adrelid) = format('nextval(%%L::regclass)', e.refobjid::regclass::text)) AS plainly
      FROM pg_attrdef d
      JOIN pg_depend e ON e.classid = 'pg_attrdef'::regclass AND e.objid = d.oid AND e.refclassid = 'pg_class'::regclass
     WHERE d.adrelid = %(oid)s::oid
     GROUP BY e.refobjid
)
SELECT n.nspname AS schema, c.relname AS name,
       CASE WHEN o.oid IS NULL THEN 'used' WHEN o.identity THEN 'identity' ELSE 'owned' END AS how, o.attname AS column,
       format_type(s.seqtypid, NULL) AS type, s.seqstart AS start, s.seqincrement AS increment, s.seqmin AS minimum,
       s.seqmax AS maximum, s.seqcache AS cache, s.seqcycle AS cycle
  FROM pg_sequence s
  JOIN pg_class c ON c.oid = s.seqrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN owned o ON o.oid = s.seqrelid
  LEFT JOIN called l ON l.oid = s.seqrelid
 WHERE (o.oid IS NOT NULL OR l.oid IS NOT NULL) AND coalesce(l.plainly, true)
 ORDER BY n.nspname, c.relname;

-- name: constraints
-- The constraints of a table, but those of NOT NULL that its columns have and foreign keys that come with a parent. Of a
-- foreign key, the definition ends before the table that it refers to, and the remainder begins behind.
SELECT k.conname AS name,
       CASE k.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique' WHEN 'x' THEN 'exclusion' WHEN 'f' THEN 'foreign key'
                      WHEN 'c' THEN 'check' ELSE 'not null' END AS type,
       CASE WHEN k.contype = 'f' THEN f.head ELSE pg_get_constraintdef(k.oid) END AS definition,
       CASE WHEN k.contype = 'f' THEN substr(pg_get_constraintdef(k.oid), length(f.head || f.refers_to) + 1) ELSE '' END
           AS remainder,
       rn.nspname AS refers_schema, r.relname AS refers_table,
       k.contype <> 'f' OR starts_with(pg_get_constraintdef(k.oid), f.head || f.refers_to) AS understood,
       obj_description(k.oid, 'pg_constraint') AS comment
  FROM pg_constraint k
  LEFT JOIN pg_class r ON r.oid = k.confrelid
  LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
  LEFT JOIN LATERAL (
      SELECT 'FOREIGN KEY (' || string_agg(
                 CASE WHEN p.at = cardinality(k.conkey) AND coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false)
                      THEN 'PERIOD ' ELSE '' END || quote_ident(a.attname), ', ' ORDER BY p.at) || ') REFERENCES ' AS head,
             quote_ident(rn.nspname) || '.' || quote_ident(r.relname) AS refers_to
        FROM unnest(k.conkey) WITH ORDINALITY AS p(attnum, at)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = p.attnum) f ON k.contype = 'f'
 WHERE k.conrelid = %(oid)s::oid
   AND (k.contype IN ('p', 'u', 'x', 'c') OR k.contype = 'f' AND k.conparentid = 0
        OR k.contype = 'n' AND NOT k.convalidated)
 ORDER BY k.contype <> 'p', k.conname;

-- name: indexes
-- The valid indexes of a table that belong to no constraint. The definition begins behind the name of the table.
SELECT c.relname AS name, i.indisunique AS unique, substr(pg_get_indexdef(c.oid), length(h.head) + 1) AS definition,
       starts_with(pg_get_indexdef(c.oid), h.head) AS understood, obj_description(c.oid, 'pg_class') AS comment
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = t.relnamespace
  CROSS JOIN LATERAL (
      SELECT format('CREATE %%sINDEX %%I ON %%s%%I.%%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, c.relname,
                    CASE WHEN c.relkind = 'I' THEN 'ONLY ' END, n.nspname, t.relname) AS head) h
 WHERE i.indrelid = %(oid)s::oid AND i.indisvalid
   AND NOT EXISTS (SELECT FROM pg_constraint k
                    WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x'))
 ORDER BY c.relname;

-- name: left_out
-- What a table has that no archive holds.
SELECT 'trigger ' || quote_ident(tgname) AS left_out FROM pg_trigger WHERE tgrelid = %(oid)s::oid AND NOT tgisinternal
UNION ALL
SELECT 'policy ' || quote_ident(polname) FROM pg_policy WHERE polrelid = %(oid)s::oid
UNION ALL
SELECT 'rule ' || quote_ident(rulename) FROM pg_rewrite WHERE ev_class = %(oid)s::oid
UNION ALL
SELECT 'statistics ' || quote_ident(stxname) FROM pg_statistic_ext WHERE stxrelid = %(oid)s::oid
UNION ALL
SELECT 'invalid index ' || quote_ident(c.relname)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = %(oid)s::oid AND NOT i.indisvalid
 ORDER BY 1;

-- name: used_types
-- The types that tables need: of their columns, and those that their expressions name.
SELECT a.atttypid::bigint AS oid
  FROM pg_attribute a
 WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
UNION
SELECT d.refobjid::bigint
  FROM pg_depend d
 WHERE d.refclassid = 'pg_type'::regclass
   AND (d.classid = 'pg_attrdef'::regclass
            AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = ANY (%(oids)s::oid[]))
        OR d.classid = 'pg_constraint'::regclass
            AND d.objid IN (SELECT oid FROM pg_constraint WHERE conrelid = ANY (%(oids)s::oid[]))
        OR d.classid = 'pg_class'::regclass
            AND d.objid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY (%(oids)s::oid[])));

-- name: types
-- Of the given types and all that they are made of, those that can be created anew: enums, domains, composites and ranges
-- that belong to no extension. A range with a canonical function cannot, that function needs the type first.
WITH RECURSIVE used(oid) AS (
    SELECT oid FROM unnest(%(oids)s::oid[]) AS oid
    UNION
    SELECT f.oid
      FROM used u
      JOIN pg_type t ON t.oid = u.oid
      CROSS JOIN LATERAL (
          SELECT t.typelem WHERE t.typelem <> 0
          UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
          UNION ALL SELECT a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                     WHERE a.attrelid = t.typrelid AND c.relkind = 'c' AND a.attnum > 0 AND NOT a.attisdropped
          UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
          UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid) f(oid)
), collations(oid, name) AS (
    SELECT c.oid, format('%%I.%%I', n.nspname, c.collname)
      FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
)
SELECT t.oid::bigint AS oid, n.nspname AS schema, t.typname AS name,
       CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'r' THEN 'range' ELSE 'composite' END AS kind,
       CASE t.typtype
       WHEN 'e' THEN
           (SELECT 'ENUM (' || coalesce(string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder), '') || ')'
              FROM pg_enum e WHERE e.enumtypid = t.oid)
       WHEN 'd' THEN
           format_type(t.typbasetype, t.typtypmod)
           || CASE WHEN t.typcollation <> b.typcollation THEN ' COLLATE ' || tc.name ELSE '' END
           || coalesce(' DEFAULT ' || pg_get_expr(t.typdefaultbin, 0), '') || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
       WHEN 'r' THEN
           (SELECT 'RANGE (SUBTYPE = ' || format_type(r.rngsubtype, NULL)
                   || ', SUBTYPE_OPCLASS = ' || format('%%I.%%I', oc.nspname, o.opcname)
                   || CASE WHEN r.rngcollation <> 0 THEN ', COLLATION = ' || rc.name ELSE '' END
                   || CASE WHEN r.rngsubdiff <> 0 THEN ', SUBTYPE_DIFF = ' || r.rngsubdiff::text ELSE '' END
                   || ', MULTIRANGE_TYPE_NAME = ' || format('%%I.%%I', mn.nspname, m.typname) || ')'
              FROM pg_range r
              JOIN pg_opclass o ON o.oid = r.rngsubopc
              JOIN pg_namespace oc ON oc.oid = o.opcnamespace
              JOIN pg_type m ON m.oid = r.rngmultitypid
              JOIN pg_namespace mn ON mn.oid = m.typnamespace
              LEFT JOIN collations rc ON rc.oid = r.rngcollation
             WHERE r.rngtypid = t.oid)
       ELSE
           (SELECT '(' || coalesce(string_agg(
                       quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
                       || CASE WHEN a.attcollation <> at.typcollation THEN ' COLLATE ' || ac.name ELSE '' END,
                       ', ' ORDER BY a.attnum), '') || ')'
              FROM pg_attribute a
              JOIN pg_type at ON at.oid = a.atttypid
              LEFT JOIN collations ac ON ac.oid = a.attcollation
             WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
       END AS definition,
       coalesce((SELECT jsonb_agg(jsonb_build_object('name', k.conname, 'definition', pg_get_constraintdef(k.oid),
                                                     'validated', k.convalidated) ORDER BY k.conname)
                   FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'), '[]') AS constraints,
       obj_description(t.oid, 'pg_type') AS comment,
       ARRAY(SELECT coalesce(nullif(d.typelem, 0), m.rngtypid, d.oid)::bigint
               FROM pg_depend e
               JOIN pg_type d ON d.oid = e.refobjid
               LEFT JOIN pg_range m ON m.rngmultitypid = d.oid
              WHERE e.refclassid = 'pg_type'::regclass
                AND (e.classid = 'pg_type'::regclass AND e.objid = t.oid
                     OR e.classid = 'pg_class'::regclass AND e.objid = t.typrelid
                     OR e.classid = 'pg_constraint'::regclass
                         AND e.objid IN (SELECT oid FROM pg_constraint WHERE contypid = t.oid))) AS needs
  FROM used u
  JOIN pg_type t ON t.oid = u.oid
  JOIN pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_class c ON c.oid = t.typrelid
  LEFT JOIN pg_type b ON b.oid = t.typbasetype
  LEFT JOIN collations tc ON tc.oid = t.typcollation
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND (t.typtype IN ('e', 'd') OR t.typtype = 'c' AND c.relkind = 'c'
        OR t.typtype = 'r' AND EXISTS (SELECT FROM pg_range r WHERE r.rngtypid = t.oid AND r.rngcanonical = 0))
   AND NOT EXISTS (SELECT FROM pg_depend e
                    WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid AND e.deptype = 'e')
 ORDER BY n.nspname, t.typname;

-- name: type_oid
-- A type by its name.
SELECT t.oid::bigint
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE n.nspname = %(schema)s AND t.typname = %(name)s;

-- name: requires
-- What the tables and types name and an archive does not hold: functions, collations, operators and the like, or the
-- extension that they come with. What is part of every server has no entry in pg_depend.
WITH roots(classid, objid) AS (
    SELECT 'pg_class'::regclass, oid FROM unnest(%(tables)s::oid[]) AS oid
    UNION ALL SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid = ANY (%(tables)s::oid[]) AND indisvalid
    UNION ALL SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = ANY (%(tables)s::oid[])
    UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint
               WHERE (conrelid = ANY (%(tables)s::oid[]) AND contype <> 'f') OR contypid = ANY (%(types)s::oid[])
    UNION ALL SELECT 'pg_type'::regclass, oid FROM unnest(%(types)s::oid[]) AS oid
    UNION ALL SELECT 'pg_class'::regclass, typrelid FROM pg_type WHERE oid = ANY (%(types)s::oid[]) AND typrelid <> 0
), named AS (
    SELECT DISTINCT d.refclassid, d.refobjid
      FROM roots r
      JOIN pg_depend d ON d.classid = r.classid AND d.objid = r.objid AND d.deptype IN ('n', 'a')
     WHERE d.refclassid NOT IN ('pg_namespace'::regclass, 'pg_constraint'::regclass, 'pg_class'::regclass)
       AND (d.refclassid <> 'pg_type'::regclass OR NOT EXISTS (
           SELECT FROM pg_type t
             LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
            WHERE t.oid = d.refobjid AND coalesce(nullif(t.typelem, 0), m.rngtypid, t.oid) = ANY (%(types)s::oid[])))
    UNION
    -- A sequence that an expression calls, but not as a plain default; any other relation that is named as a constant.
    SELECT d.refclassid, d.refobjid
      FROM roots r
      JOIN pg_depend d ON d.classid = r.classid AND d.objid = r.objid AND d.deptype = 'n'
     WHERE r.classid IN ('pg_attrdef'::regclass, 'pg_constraint'::regclass) AND d.refclassid = 'pg_class'::regclass
       AND d.refobjid <> ALL (%(tables)s::oid[])
       AND NOT EXISTS (SELECT FROM pg_attrdef f
                        WHERE f.oid = r.objid AND r.classid = 'pg_attrdef'::regclass
                          AND pg_get_expr(f.adbin, f.adrelid)
                              = format('nextval(%%L::regclass)', d.refobjid::regclass::text))
), outermost AS (
    SELECT DISTINCT coalesce(e.refclassid, n.refclassid) AS classid, coalesce(e.refobjid, n.refobjid) AS objid
      FROM named n
      LEFT JOIN pg_depend e ON e.classid = n.refclassid AND e.objid = n.refobjid AND e.deptype = 'e'
)
SELECT a.type, a.object_names AS names, a.object_args AS args,
       coalesce((pg_identify_object(o.classid, o.objid, 0)).identity, '') AS identity
  FROM outermost o, pg_identify_object_as_address(o.classid, o.objid, 0) AS a
 ORDER BY 1, 4;

-- name: find_object
-- Raises undefined_object or a sister of it where there is no such object.
SELECT objid FROM pg_get_object_address(%(type)s, %(names)s::text[], %(args)s::text[]);

-- name: taken
-- Whether a schema has a relation of this name: a table, view, index or sequence.
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = %(schema)s AND c.relname = %(name)s);

-- name: schema_exists
-- Whether there is a schema of this name.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s);

-- name: sequence_exists
-- Whether a schema has a sequence of this name.
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind = 'S');
