-- name: installed
-- Whether the ledger knows change capture (spine_0007).
SELECT to_regclass('spine_migrate.capture') IS NOT NULL;

-- name: captures
-- What is captured for some migrations.
SELECT capture_id, migration_id, direction, relation, style, why, installed_at, caught_up, applied, applied_at
  FROM spine_migrate.capture
 WHERE migration_id = ANY(%(migrations)s::bigint[])
 ORDER BY capture_id;

-- name: add
-- A capture, in the transaction that makes its triggers.
INSERT INTO spine_migrate.capture (migration_id, direction, relation, style, why, tool_version)
VALUES (%(migration_id)s, %(direction)s, %(relation)s, %(style)s, %(why)s, %(tool_version)s)
RETURNING capture_id;

-- name: caught_up
-- Rows that were moved before their changes were captured have been compared.
UPDATE spine_migrate.capture SET caught_up = true WHERE capture_id = %(capture_id)s;

-- name: not_caught_up
-- Rows were written that no trigger has logged.
UPDATE spine_migrate.capture SET caught_up = false WHERE capture_id = %(capture_id)s;

-- name: logs
-- Whether the function of a capture writes to the log still, with its owner's rights.
SELECT FROM pg_proc
 WHERE oid = to_regproc(%(function)s)::oid AND prosecdef AND strpos(prosrc, 'INSERT INTO spine_migrate.change_log') > 0;

-- name: remove
-- A capture that is over, with what waits for it.
DELETE FROM spine_migrate.capture WHERE capture_id = %(capture_id)s;

-- name: forget
-- What was logged for a capture that is over.
DELETE FROM spine_migrate.change_log WHERE capture_id = %(capture_id)s;

-- name: forget_left
-- What is logged for captures that are over: who ended them was killed before it had forgotten it.
DELETE FROM spine_migrate.change_log l
 WHERE NOT EXISTS (SELECT FROM spine_migrate.capture c WHERE c.capture_id = l.capture_id);

-- name: members
-- The tables that a statement on a table may write to, itself first: its partitions, and what inherits from it.
WITH RECURSIVE tree(oid) AS (
    SELECT %(oid)s::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       c.relispartition AND c.oid <> %(oid)s AS partition
  FROM tree t
  JOIN pg_class c ON c.oid = t.oid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY c.oid <> %(oid)s::oid, n.nspname, c.relname;

-- name: place
-- A table by its name as the ledger has it.
SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE ARRAY[n.nspname::text, c.relname::text] = parse_ident(%(relation)s);

-- name: key_type
-- The type of a column, without its length.
SELECT format_type(atttypid, NULL) FROM pg_attribute
 WHERE attrelid = %(oid)s AND attname = %(key)s AND NOT attisdropped;

-- name: subscribed
-- Whether logical replication writes to a table or to one of its partitions.
SELECT EXISTS (
    SELECT FROM pg_subscription_rel s
     WHERE s.srrelid IN (SELECT %(oid)s::oid UNION SELECT relid FROM pg_partition_tree(%(oid)s::oid)));

-- name: above
-- A table that a table, or one that inherits from it, is a part of itself.
WITH RECURSIVE tree(oid) AS (
    SELECT %(oid)s::oid
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT min(i.inhparent::regclass::text)
  FROM tree t
  JOIN pg_inherits i ON i.inhrelid = t.oid
 WHERE i.inhparent NOT IN (TABLE tree);

-- name: limited
-- Whether a session may be refused the temporary files that a statement on the whole table takes, twice as large.
SELECT coalesce(min(x.bytes) < greatest(2 * max(s.bytes), 1 << 30), false)
  FROM (SELECT setting FROM pg_settings WHERE name = 'temp_file_limit'
         UNION ALL
        SELECT split_part(c.setting, '=', 2)
          FROM pg_db_role_setting r CROSS JOIN unnest(r.setconfig) AS c (setting)
         WHERE c.setting LIKE 'temp_file_limit=%%'
           AND r.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))) AS g
 CROSS JOIN LATERAL (SELECT CASE WHEN g.setting ~ '^\d+$' THEN g.setting::bigint * 1024
                                 WHEN g.setting !~ '^-' THEN pg_size_bytes(g.setting) END AS bytes) AS x
 CROSS JOIN (SELECT coalesce((SELECT sum(pg_table_size(t.relid)) FROM pg_partition_tree(%(oid)s::oid) t),
                             pg_table_size(%(oid)s::oid)) AS bytes) AS s;

-- name: noted
-- What a capture's function says of the tables that it was made for; NULL where it is gone or says nothing.
SELECT obj_description(to_regproc(%(function)s)::oid, 'pg_proc');

-- name: named
-- Whether a table has this name.
SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = %(oid)s::oid AND ARRAY[n.nspname::text, c.relname::text] = parse_ident(%(relation)s);

-- name: triggers
-- The triggers of a capture: on which tables, under which names, and whether they fire always.
SELECT n.nspname AS schema, c.relname AS table_name, t.tgname AS name, t.tgenabled = 'A' AS always,
       t.tgparentid <> 0 AS cloned
  FROM pg_trigger t
  JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE t.tgfoid = to_regproc(%(function)s)::oid
 ORDER BY 1, 2, 3;

-- name: hold
-- One applier at a time writes for a capture: whoever comes second at REPEATABLE READ fails and reads anew.
UPDATE spine_migrate.capture SET applied_at = clock_timestamp() WHERE capture_id = %(capture_id)s;

-- name: take
-- The oldest entries that are committed, out of the log, and those of the same time as the last of them. Entries that
-- commit later may be older; they come next.
WITH taken AS (
    DELETE FROM spine_migrate.change_log
     WHERE capture_id = %(capture_id)s
       AND at <= (SELECT max(at)
                    FROM (SELECT at FROM spine_migrate.change_log WHERE capture_id = %(capture_id)s
                           ORDER BY capture_id, at LIMIT %(limit)s) AS oldest)
    RETURNING row_key)
SELECT row_key, count(*) FROM taken GROUP BY row_key;

-- name: take_row
-- Of the oldest entries, all of the row that the very oldest is about: whoever writes a row all the time makes many.
WITH oldest AS MATERIALIZED (
    -- By their places: an entry is never written again.
    SELECT ctid AS place, at, row_key FROM spine_migrate.change_log WHERE capture_id = %(capture_id)s
     ORDER BY capture_id, at LIMIT %(limit)s),
taken AS (
    DELETE FROM spine_migrate.change_log
     WHERE capture_id = %(capture_id)s
       AND ctid = ANY(ARRAY(SELECT place FROM oldest
                             WHERE row_key IS NOT DISTINCT FROM (SELECT row_key FROM oldest ORDER BY at LIMIT 1)))
    RETURNING row_key)
SELECT row_key, count(*) FROM taken GROUP BY row_key;

-- name: take_keys
-- All committed entries of some rows, out of the log.
DELETE FROM spine_migrate.change_log WHERE capture_id = %(capture_id)s AND row_key = ANY(%(keys)s::text[]);

-- name: count
-- Entries that were applied.
UPDATE spine_migrate.capture SET applied = applied + %(entries)s WHERE capture_id = %(capture_id)s;

-- name: waiting
-- Rows that were put off, those first that have been tried least.
SELECT row_key, attempts, extract(epoch FROM clock_timestamp() - since)::float8 AS seconds
  FROM spine_migrate.pending
 WHERE capture_id = %(capture_id)s AND why = 'deferred'
 ORDER BY attempts, since
 LIMIT %(limit)s;

-- name: put_off
-- Rows that cannot be applied yet, and why; one more attempt for those that were put off before.
INSERT INTO spine_migrate.pending (capture_id, why, row_key, attempts, detail)
SELECT %(capture_id)s, 'deferred', row_key, 1, detail
  FROM unnest(%(keys)s::text[], %(details)s::text[]) AS given (row_key, detail)
ON CONFLICT (capture_id, why, row_key) DO UPDATE SET attempts = pending.attempts + 1, detail = EXCLUDED.detail;

-- name: put_aside
-- Rows that nobody has tried yet, behind others that were refused; those that wait already stay as they are.
INSERT INTO spine_migrate.pending (capture_id, why, row_key)
SELECT %(capture_id)s, 'deferred', row_key FROM unnest(%(keys)s::text[]) AS given (row_key)
ON CONFLICT (capture_id, why, row_key) DO NOTHING;

-- name: settle
-- Rows that do not wait any more.
DELETE FROM spine_migrate.pending
 WHERE capture_id = %(capture_id)s AND why = 'deferred' AND row_key = ANY(%(keys)s::text[]);

-- name: note_gone
-- Keys to look at again when all batches that may have read their rows are over; all of them after a TRUNCATE.
INSERT INTO spine_migrate.pending (capture_id, why, row_key)
SELECT %(capture_id)s, %(why)s, row_key FROM unnest(%(keys)s::text[]) AS given (row_key)
ON CONFLICT (capture_id, why, row_key) DO UPDATE SET since = clock_timestamp();

-- name: look_again
-- The same where nothing is known of their rows but that a batch has read them.
INSERT INTO spine_migrate.pending (capture_id, why, row_key)
SELECT %(capture_id)s, 'gone', row_key FROM unnest(%(keys)s::text[]) AS given (row_key)
ON CONFLICT (capture_id, why, row_key) DO NOTHING;

-- name: gone
-- Keys that were gone, and since when they wait.
SELECT row_key, since FROM spine_migrate.pending
 WHERE capture_id = %(capture_id)s AND why = 'gone' ORDER BY since LIMIT %(limit)s;

-- name: forget_gone
-- Keys that were looked at again, but for those that were found gone once more meanwhile.
DELETE FROM spine_migrate.pending p
 USING unnest(%(keys)s::text[], %(since)s::timestamptz[]) AS given (row_key, since)
 WHERE p.capture_id = %(capture_id)s AND p.why = 'gone' AND p.row_key = given.row_key AND p.since = given.since;

-- name: everything
-- Whether all rows are to be looked at again, and since when.
SELECT since FROM spine_migrate.pending WHERE capture_id = %(capture_id)s AND why = 'all';

-- name: forget_everything
-- All rows were looked at again.
DELETE FROM spine_migrate.pending WHERE capture_id = %(capture_id)s AND why = 'all' AND since = %(since)s;

-- name: lag
-- What is not applied yet: entries, at most a hundred thousand are counted; the age of the oldest; what waits; of
-- what was put off, what has been tried in vain for long, and what was not tried at all.
SELECT (SELECT count(*) FROM (SELECT FROM spine_migrate.change_log WHERE capture_id = c.capture_id LIMIT 100000) AS x)
           AS entries,
       coalesce((SELECT extract(epoch FROM clock_timestamp() - l.at) FROM spine_migrate.change_log l
                  WHERE l.capture_id = c.capture_id ORDER BY l.capture_id, l.at LIMIT 1), 0)::float8 AS seconds,
       (SELECT count(*) FROM spine_migrate.pending p WHERE p.capture_id = c.capture_id AND p.why = 'deferred')
           AS deferred,
       (SELECT count(*) FROM spine_migrate.pending p
         WHERE p.capture_id = c.capture_id AND p.why = 'deferred' AND p.attempts >= %(attempts)s) AS stuck,
       (SELECT count(*) FROM spine_migrate.pending p
         WHERE p.capture_id = c.capture_id AND p.why = 'deferred' AND p.attempts = 0) AS untried,
       (SELECT count(*) FROM spine_migrate.pending p WHERE p.capture_id = c.capture_id AND p.why <> 'deferred')
           AS gone
  FROM spine_migrate.capture c
 WHERE c.capture_id = %(capture_id)s;

-- name: oldest
-- Seconds that the oldest change waits: in the log, or put off and not tried in vain for long yet.
SELECT greatest(0, extract(epoch FROM clock_timestamp() - least(
           (SELECT l.at FROM spine_migrate.change_log l WHERE l.capture_id = %(capture_id)s
             ORDER BY l.capture_id, l.at LIMIT 1),
           (SELECT min(p.since) FROM spine_migrate.pending p
             WHERE p.capture_id = %(capture_id)s AND (p.why <> 'deferred' OR p.attempts < %(attempts)s)))))::float8;

-- name: rewritten
-- Tables, and what is below them, whose files are not those that the snapshot knows: the function reads the catalog as
-- it is now.
WITH RECURSIVE tree(oid) AS (
    SELECT c.oid FROM unnest(%(schemas)s::text[], %(tables)s::text[]) AS given (schema, name)
      JOIN pg_namespace n ON n.nspname = given.schema
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = given.name
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT FROM tree t JOIN pg_class c ON c.oid = t.oid WHERE c.relfilenode <> pg_relation_filenode(c.oid) LIMIT 1;

-- name: share
-- Held for as long as a batch of a migration lasts, from before its snapshot.
SELECT pg_advisory_lock_shared(hashtextextended(%(name)s, 7742));

-- name: unshare
-- The batch is over.
SELECT pg_advisory_unlock_shared(hashtextextended(%(name)s, 7742));

-- name: exclude
-- Had once every batch that was in flight is over.
SELECT pg_advisory_lock(hashtextextended(%(name)s, 7742));

-- name: try_exclude
-- Had where no batch is in flight.
SELECT pg_try_advisory_lock(hashtextextended(%(name)s, 7742));

-- name: exclude_until_end
-- The same for the length of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 7742));

-- name: include
-- Batches may begin again.
SELECT pg_advisory_unlock(hashtextextended(%(name)s, 7742));

-- name: try_apply
-- The lock of the one applier of a migration.
SELECT pg_try_advisory_lock(hashtextextended(%(name)s, 7743));

-- name: step
-- Where a migration stands.
SELECT step FROM spine_migrate.migration WHERE migration_id = %(migration_id)s;

-- name: held
-- Those of the keys that are in quarantine.
SELECT source_key FROM spine_migrate.quarantine
 WHERE migration_id = %(migration_id)s AND source_key = ANY(%(keys)s::text[]);

-- name: release
-- Take rows out of quarantine that can be carried now, or are gone.
DELETE FROM spine_migrate.quarantine
 WHERE migration_id = %(migration_id)s AND source_key = ANY(%(keys)s::text[]);

-- name: dependent
-- Rows in quarantine for the sake of other rows, which may have changed since; those tried longest ago first.
SELECT source_key FROM spine_migrate.quarantine
 WHERE migration_id = %(migration_id)s AND discarded_at IS NULL
   AND reason IN ('parent_quarantined', 'orphan', 'unique_conflict', 'key_taken')
 ORDER BY updated_at LIMIT %(limit)s;

-- name: applied_by
-- The session that applies the changes of a migration; none where nobody does.
SELECT pid FROM pg_locks
 WHERE locktype = 'advisory' AND objsubid = 1 AND granted
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%(name)s, 7743);

-- name: put_off_rows
-- Rows that wait longest, and for what.
SELECT row_key, attempts, detail FROM spine_migrate.pending
 WHERE capture_id = %(capture_id)s AND why = 'deferred' ORDER BY since LIMIT %(limit)s;

-- name: in_flight
-- Keys of rows that have changes which are not applied; NULL where rows without one on the other side are removed next.
SELECT row_key FROM spine_migrate.change_log WHERE capture_id = %(capture_id)s
 UNION
SELECT CASE WHEN why <> 'all' THEN row_key END FROM spine_migrate.pending WHERE capture_id = %(capture_id)s
 LIMIT %(limit)s;

-- name: immediate
-- Deferrable constraints are checked by each statement from here to the end of the transaction.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: may_set_aside
-- Whether the role may take rows out of a table and keep them; false also where the ledger is older (spine_0008).
SELECT has_table_privilege(%(oid)s::oid, 'SELECT') AND has_table_privilege(%(oid)s::oid, 'DELETE')
   AND coalesce(has_table_privilege(to_regclass('spine_migrate.set_aside')::oid, 'INSERT'), false);
