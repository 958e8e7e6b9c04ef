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

-- name: server
-- Whom and what we talk to, and whether it takes writes.
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
       current_user::text AS role, pg_is_in_recovery() AS standby,
       coalesce(current_setting('default_transaction_read_only')::boolean, false) AS read_only,
       has_database_privilege(current_database(), 'TEMPORARY') AS temporary;

-- name: table_facts
-- What kind of table it is and what hangs on it.
SELECT CASE c.relkind WHEN 'p' THEN 'partitioned table' ELSE 'table' END AS kind,
       CASE c.relpersistence WHEN 'u' THEN 'unlogged' WHEN 't' THEN 'temporary' ELSE 'permanent' END AS persistence,
       CASE c.relreplident WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full' WHEN 'i' THEN 'index' ELSE 'default' END
           AS replica_identity,
       EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid) AS has_rules,
       row_security_active(c.oid) AS row_security,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.atttypid = 'json'::regtype AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attnum) AS json_columns,
       ARRAY(SELECT i.indexrelid::regclass::text FROM pg_index i
              WHERE i.indrelid = c.oid AND NOT (i.indisvalid AND i.indisready)
              ORDER BY 1) AS invalid_indexes,
       ARRAY(SELECT format('%%I on %%s', k.conname, k.conrelid::regclass) FROM pg_constraint k
              WHERE k.confrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0
              ORDER BY 1) AS inbound_keys,
       ARRAY(SELECT format('%%I (%%s)', t.tgname, CASE t.tgenabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica'
                                                 WHEN 'A' THEN 'always' ELSE 'enabled' END)
               FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
              ORDER BY 1) AS triggers,
       ARRAY(SELECT DISTINCT p.pubname::text FROM pg_publication_tables p
              WHERE p.schemaname = n.nspname AND p.tablename = c.relname
              ORDER BY 1) AS publications
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = %(oid)s::oid;

-- name: locks
-- What other sessions hold or wait for on these tables and what inherits from them.
WITH RECURSIVE tree(root, oid) AS (
    SELECT o, o FROM unnest(%(oids)s::oid[]) AS o
    UNION
    SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT n.nspname AS schema, c.relname AS table, l.mode, l.granted, count(DISTINCT l.pid)::int AS sessions
  FROM tree t
  JOIN pg_locks l ON l.relation = t.oid AND l.locktype = 'relation'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.pid IS DISTINCT FROM pg_backend_pid()
  JOIN pg_class c ON c.oid = t.root
  JOIN pg_namespace n ON n.oid = c.relnamespace
 GROUP BY n.nspname, c.relname, l.mode, l.granted
 ORDER BY 1, 2, 3, 4;

-- name: long_transactions
-- Transactions of this database that have been open for longer than so many seconds, prepared ones too.
SELECT a.pid, a.usename::text AS role, extract(epoch FROM clock_timestamp() - a.xact_start)::int AS seconds,
       coalesce(a.state, a.backend_type) AS what
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
   AND a.xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)
UNION ALL
SELECT NULL, p.owner::text, extract(epoch FROM clock_timestamp() - p.prepared)::int, 'prepared transaction'
  FROM pg_prepared_xacts p
 WHERE p.database = current_database() AND p.prepared < clock_timestamp() - make_interval(secs => %(seconds)s)
 ORDER BY 3 DESC;

-- name: hidden_sessions
-- Sessions of other roles, whose transactions this one is not shown. Nobody's are the server's own, autovacuum's.
SELECT count(*) FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
   AND a.usesysid IS NOT NULL AND a.query = '<insufficient privilege>';

-- name: not_null_columns
-- The columns of a session's own temporary copy that it must not be strict about.
SELECT a.attname::text FROM pg_attribute a
 WHERE a.attrelid = to_regclass('pg_temp.spine_sample') AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
   AND a.attname <> ALL(%(produced)s);

-- name: sample_bytes
-- The temporary copy with its indexes.
SELECT pg_total_relation_size(to_regclass('pg_temp.spine_sample'));
