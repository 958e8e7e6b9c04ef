-- name: installed
-- Whether the ledger knows cutovers (spine_0008).
SELECT to_regclass('spine_migrate.cutover') IS NOT NULL;

-- name: cutovers
-- The last cutover of each of some migrations.
SELECT migration_id, at, source_table, legacy_table, view, triggers, remade, foreign_keys, rolled_back_at,
       settled_at
  FROM spine_migrate.cutover
 WHERE migration_id = ANY(%(migrations)s::bigint[])
 ORDER BY migration_id;

-- name: readable
-- Whether the ledger knows cutovers, and this role may read them.
SELECT coalesce(has_table_privilege(to_regclass('spine_migrate.cutover')::oid, 'SELECT')
                AND has_schema_privilege('spine_migrate', 'USAGE'), false);

-- name: over
-- Migrations of these numbers, or from a legacy table by this name, that are cut over: when, and by whom.
SELECT m.migration_id, m.mapping, m.step, c.at, c.by
  FROM spine_migrate.cutover c
  JOIN spine_migrate.migration m USING (migration_id)
 WHERE m.step IN ('cutover', 'retired')
   AND (m.migration_id = ANY(%(migrations)s::bigint[])
        OR (parse_ident(c.source_table))[2] = %(table)s AND coalesce((parse_ident(c.source_table))[1] = %(schema)s, true))
 ORDER BY c.at;

-- name: record
-- A cutover, in the transaction that switches; it takes the place of an earlier one that was rolled back.
INSERT INTO spine_migrate.cutover (migration_id, tool_version, source_table, legacy_table, view, triggers, remade,
                                   foreign_keys)
VALUES (%(migration_id)s, %(tool_version)s, %(source_table)s, %(legacy_table)s, %(view)s, %(triggers)s, %(remade)s,
        %(foreign_keys)s)
ON CONFLICT (migration_id) DO UPDATE
   SET at = clock_timestamp(), by = session_user, tool_version = EXCLUDED.tool_version,
       source_table = EXCLUDED.source_table, legacy_table = EXCLUDED.legacy_table, view = EXCLUDED.view,
       triggers = EXCLUDED.triggers, remade = EXCLUDED.remade, foreign_keys = EXCLUDED.foreign_keys, rolled_back_at = NULL, settled_at = NULL;

-- name: rolled_back
-- The way back, in the transaction that switches.
UPDATE spine_migrate.cutover SET rolled_back_at = clock_timestamp(), settled_at = NULL
 WHERE migration_id = %(migration_id)s;

-- name: settled
-- After a rollback the target follows the legacy table in every row.
UPDATE spine_migrate.cutover SET settled_at = clock_timestamp() WHERE migration_id = %(migration_id)s;

-- name: move_to
-- The step of a migration, and what its legacy table is called.
UPDATE spine_migrate.migration SET step = %(step)s, source_table = %(source_table)s
 WHERE migration_id = %(migration_id)s;

-- name: unvalidated
-- Whether a table has a foreign key by this name that holds for new rows only.
SELECT FROM pg_constraint
 WHERE conrelid = to_regclass(%(table)s) AND conname = %(name)s AND contype = 'f' AND NOT convalidated;

-- name: triggers
-- The application's own triggers of a table that are on, and when they fire (pg_trigger.tgenabled).
SELECT tgname, tgenabled::text
  FROM pg_trigger
 WHERE tgrelid = %(oid)s::oid AND NOT tgisinternal AND tgparentid = 0 AND tgenabled <> 'D'
   AND tgname !~ '^spine_(capture_[0-9]+_|fence$)'
 ORDER BY tgname;

-- name: prepared
-- Prepared transactions that hold locks on some tables: they may have written what nobody sees yet.
SELECT DISTINCT p.gid
  FROM pg_prepared_xacts p
  -- It has the number of the session that prepared it, or one of its own after a restart.
  JOIN pg_locks x ON x.locktype = 'transactionid' AND x.transactionid = p.transaction AND x.pid IS NULL
  JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction AND l.pid IS NULL
 WHERE p.database = current_database() AND l.relation = ANY(%(oids)s::oid[])
 ORDER BY p.gid;

-- name: open_quarantine
-- Rows in quarantine that nobody has accepted as they are now, by reason.
SELECT reason, count(*)
  FROM spine_migrate.quarantine
 WHERE migration_id = %(migration_id)s AND accepted_digest IS DISTINCT FROM md5(source_row::text)
 GROUP BY reason ORDER BY reason;

-- name: accepted_keys
-- Rows in quarantine that were accepted by name, and have not changed since.
SELECT source_key FROM spine_migrate.quarantine
 WHERE migration_id = %(migration_id)s AND accepted_digest = md5(source_row::text);

-- name: accept
-- Mark entries as accepted, as they are now; counts by migration and reason.
WITH marked AS (
    UPDATE spine_migrate.quarantine
       SET accepted_at = clock_timestamp(), accepted_by = session_user, accepted_reason = %(why)s,
           accepted_digest = md5(source_row::text)
     WHERE migration_id = ANY (%(migrations)s) AND accepted_digest IS DISTINCT FROM md5(source_row::text)
       AND (%(reasons)s::text[] IS NULL OR reason = ANY (%(reasons)s))
       AND (%(keys)s::text[] IS NULL OR source_key = ANY (%(keys)s))
 RETURNING migration_id, reason
)
SELECT migration_id, reason, count(*) FROM marked GROUP BY migration_id, reason ORDER BY migration_id, reason;

-- name: lacking
-- What the role needs and has not: ownership of the tables and of what is made again, and to create beside them.
SELECT format('ownership of %%s', c.oid::regclass)
  FROM pg_class c
 WHERE c.oid = ANY(%(oids)s::oid[]) AND NOT pg_has_role(c.relowner, 'USAGE')
UNION ALL
SELECT DISTINCT format('ownership of %%s', v.oid::regclass)
  FROM pg_depend d
  JOIN pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN'
  JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
 WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
   AND d.refobjid = ANY(%(followed)s::oid[]) AND NOT pg_has_role(v.relowner, 'USAGE')
UNION ALL
SELECT DISTINCT format('ownership of %%s', p.oid::regprocedure)
  FROM pg_depend d
  JOIN pg_proc p ON p.oid = d.objid
 WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_class'::regclass
   AND d.refobjid = ANY(%(followed)s::oid[]) AND NOT pg_has_role(p.proowner, 'USAGE')
UNION ALL
SELECT DISTINCT format('CREATE on the schema %%I', n.nspname)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace OR n.nspname = 'spine_migrate'
 WHERE c.oid = ANY(%(beside)s::oid[]) AND NOT has_schema_privilege(n.oid, 'CREATE');

-- name: taken
-- Whether a name is some relation's.
SELECT to_regclass(%(name)s) IS NOT NULL;

-- name: parts
-- A quoted name's schema and table.
SELECT parse_ident(%(name)s);

-- name: fence
-- The number of this transaction, and until when one with an older snapshot may come.
SELECT pg_current_xact_id()::text, (clock_timestamp() + interval '1 hour')::text;

-- name: fenced
-- Whether a rollback has left its trigger on a table.
SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = %(oid)s::oid AND tgname = 'spine_fence');

-- name: pointing
-- The table that has a foreign key to one of the targets, which may have been renamed since the cutover.
SELECT n.nspname::text, c.relname::text
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conname = %(name)s AND k.confrelid = ANY(%(targets)s::oid[])
   AND k.conrelid IN (%(oid)s::bigint, to_regclass(%(table)s)::oid::bigint);

-- name: place
-- What has a name: nothing, the view that a cutover has put there, or something else.
SELECT CASE WHEN c.oid IS NULL THEN 'nothing'
            WHEN EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                          WHERE t.tgrelid = c.oid AND p.pronamespace = 'spine_migrate'::regnamespace
                            AND p.proname = format('view_%%s_insert', %(migration_id)s::bigint)) THEN 'view'
            ELSE 'another' END
  FROM (SELECT to_regclass(%(name)s)::oid AS oid) AS asked LEFT JOIN pg_class c USING (oid);
