-- name: installed
-- Whether the ledger knows retire (spine_0009).
SELECT to_regclass('spine_migrate.retirement') IS NOT NULL;

-- name: readable
-- Whether the role may read them; false also where they are not there.
SELECT coalesce(has_table_privilege(to_regclass('spine_migrate.retirement')::oid, 'SELECT'), false);

-- name: retirements
-- What was allowed or done, of some migrations.
SELECT r.migration_id, m.mapping, r.members, r.allowed_at, r.allowed_by, r.tool_version, r.cutover_at, r.source_table,
       r.rows_digest, r.archive, r.archive_digest, r.without_archive, r.retired_at, r.retired_by, r.retired_how
  FROM spine_migrate.retirement r JOIN spine_migrate.migration m USING (migration_id)
 WHERE r.migration_id = ANY(%(migrations)s::bigint[])
 ORDER BY r.migration_id;

-- name: allow
-- What may be dropped, in the transaction that has locked the legacy tables and read them; as of when the gates were looked at.
INSERT INTO spine_migrate.retirement (migration_id, members, allowed_at, tool_version, mapping_digest, cutover_at,
                                      source_table, rows_digest, archive, archive_digest, without_archive, evidence)
SELECT c.migration_id, %(members)s::bigint[], %(looked_at)s, %(tool_version)s, m.mapping_digest, c.at, c.source_table,
       spine_migrate.legacy_digest(to_regclass(m.source_table)), %(archive)s, %(archive_digest)s, %(without_archive)s,
       %(evidence)s
  FROM spine_migrate.cutover c JOIN spine_migrate.migration m USING (migration_id)
 WHERE c.migration_id = %(migration_id)s
ON CONFLICT (migration_id) DO UPDATE
   SET members = EXCLUDED.members, allowed_at = EXCLUDED.allowed_at, allowed_by = session_user,
       tool_version = EXCLUDED.tool_version, mapping_digest = EXCLUDED.mapping_digest,
       cutover_at = EXCLUDED.cutover_at, rows_digest = EXCLUDED.rows_digest, archive = EXCLUDED.archive,
       archive_digest = EXCLUDED.archive_digest, without_archive = EXCLUDED.without_archive,
       evidence = EXCLUDED.evidence;

-- name: revoke
-- What is allowed and not done, not any more.
DELETE FROM spine_migrate.retirement WHERE migration_id = %(migration_id)s AND retired_at IS NULL;

-- name: refusals
-- Why some migrations may not be dropped now, whatever was allowed.
SELECT why FROM spine_migrate.retire_refusals(%(migrations)s::bigint[]);

-- name: check
-- The legacy tables are locked and are as they were when it was allowed. Raises 55000.
SELECT spine_migrate.retire_check(%(migrations)s::bigint[]);

-- name: drop
-- All of it; what was run.
SELECT spine_migrate.retire_drop(%(migrations)s::bigint[], make_interval(secs => %(milliseconds)s / 1000.0), 'retire');

-- name: statements
-- What would be run, with the bytes that it gives back.
SELECT kind, object, bytes, statement FROM spine_migrate.retire_statements(%(migrations)s::bigint[]) ORDER BY ordinal;

-- name: now
-- The server's clock.
SELECT clock_timestamp();

-- name: written_until
-- Until when a session may have written through a view without another note: the end of the hour of its last one.
SELECT max(least(%(now)s::timestamptz,
                 to_timestamp((floor(extract(epoch FROM w.at) / %(seconds)s) + 1) * %(seconds)s)))
  FROM spine_migrate.view_write w
 WHERE w.migration_id = %(migration_id)s AND w.at >= %(since)s;

-- name: writing
-- Sessions that have written through a view in a transaction which is under way: nobody else sees their notes before its end.
SELECT DISTINCT a.usename::text, a.application_name
  FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted AND l.relation = to_regclass(%(name)s)
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
 ORDER BY 1, 2;

-- name: view_writes
-- How many notes of writes there are since a moment: one for each session and hour.
SELECT count(*) FROM spine_migrate.view_write WHERE migration_id = %(migration_id)s AND at >= %(since)s;

-- name: lacking
-- Ownership that the role has not: of what is dropped, and of what loses a trigger.
SELECT format('ownership of %%s', c.oid::regclass)
  FROM pg_class c
 WHERE c.oid = ANY(%(oids)s::oid[]) AND NOT pg_has_role(c.relowner, 'USAGE')
UNION ALL
SELECT format('ownership of %%s', p.oid::regprocedure)
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = 'spine_migrate' AND p.proname ~ '^(view|capture)_[0-9]+'
   AND NOT pg_has_role(p.proowner, 'USAGE') AND NOT pg_has_role(n.nspowner, 'USAGE')
 ORDER BY 1;

-- name: relation
-- The oid of a name as the ledger has it; NULL where there is nothing.
SELECT to_regclass(%(name)s)::oid::bigint;

-- name: sequences
-- Sequences that columns of some tables own, with what else takes its default from them.
SELECT s.oid::bigint AS oid, n.nspname::text AS schema, s.relname::text AS name,
       ARRAY(SELECT DISTINCT f.adrelid::regclass::text
               FROM pg_depend u JOIN pg_attrdef f ON f.oid = u.objid
              WHERE u.classid = 'pg_attrdef'::regclass AND u.refclassid = 'pg_class'::regclass AND u.refobjid = s.oid
                AND f.adrelid <> ALL (%(ours)s::oid[]) ORDER BY 1) AS used_by
  FROM pg_depend d
  JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  JOIN pg_namespace n ON n.oid = s.relnamespace
 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
   AND d.refobjid = ANY (%(tables)s::oid[]) AND d.deptype IN ('a', 'i')
 ORDER BY 2, 3;
