-- name: standing
-- What the catalog says of a table or view and of all that hangs on it by the catalog: kind, name, and how it is.
WITH it AS (SELECT c.oid, c.reltype, t.typarray FROM pg_class c JOIN pg_type t ON t.oid = c.reltype WHERE c.oid = %(oid)s::oid),
hanging AS (
    SELECT DISTINCT d.classid, d.objid
      FROM pg_depend d, it
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = it.oid
        OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (it.reltype, it.typarray)
)
SELECT 'table' AS kind, c.oid::regclass::text AS name,
       concat_ws(' ', c.relkind, c.relowner::regrole, c.relrowsecurity, c.relforcerowsecurity, c.relacl) AS state
  FROM pg_class c JOIN it USING (oid)
UNION ALL
SELECT 'column', format('%%s.%%I', a.attrelid::regclass, a.attname),
       concat_ws(' ', a.attnum, format_type(a.atttypid, a.atttypmod), a.attcollation, a.attnotnull, a.attidentity, a.attgenerated,
                 a.attacl, pg_get_expr(f.adbin, f.adrelid))
  FROM it
  JOIN pg_attribute a ON a.attrelid = it.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
UNION ALL
SELECT 'constraint', format('%%I ON %%s', k.conname, k.conrelid::regclass), pg_get_constraintdef(k.oid)
  FROM pg_constraint k, it
 WHERE k.conrelid <> 0 AND k.conparentid = 0
   AND k.oid IN (SELECT k2.oid FROM pg_constraint k2, it WHERE k2.conrelid = it.oid
                 UNION SELECT h.objid FROM hanging h WHERE h.classid = 'pg_constraint'::regclass)
UNION ALL
SELECT 'unique index', x.indexrelid::regclass::text, concat_ws(' ', x.indisvalid, pg_get_indexdef(x.indexrelid))
  FROM it JOIN pg_index x ON x.indrelid = it.oid AND x.indisunique
UNION ALL
SELECT 'trigger', format('%%I ON %%s', t.tgname, t.tgrelid::regclass), concat_ws(' ', t.tgenabled, pg_get_triggerdef(t.oid))
  FROM it
  JOIN pg_trigger t ON t.tgrelid = it.oid AND NOT t.tgisinternal
  JOIN pg_proc p ON p.oid = t.tgfoid
 WHERE p.pronamespace <> 'spine_migrate'::regnamespace
UNION ALL
SELECT CASE WHEN r.rulename = '_RETURN' THEN 'view' ELSE 'rule' END,
       CASE WHEN r.rulename = '_RETURN' THEN r.ev_class::regclass::text ELSE format('%%I ON %%s', r.rulename, r.ev_class::regclass) END,
       concat_ws(' ', r.ev_enabled, pg_get_ruledef(r.oid))
  FROM pg_rewrite r
 WHERE r.oid IN (SELECT h.objid FROM hanging h WHERE h.classid = 'pg_rewrite'::regclass
                 UNION SELECT r2.oid FROM pg_rewrite r2, it WHERE r2.ev_class = it.oid)
UNION ALL
SELECT 'function', p.oid::regprocedure::text, CASE WHEN p.prokind IN ('f', 'p', 'w') THEN pg_get_functiondef(p.oid) ELSE '' END
  FROM hanging h JOIN pg_proc p ON h.classid = 'pg_proc'::regclass AND p.oid = h.objid
UNION ALL
SELECT 'policy', format('%%I ON %%s', o.polname, o.polrelid::regclass),
       concat_ws(' ', o.polcmd, o.polpermissive, o.polroles, pg_get_expr(o.polqual, o.polrelid), pg_get_expr(o.polwithcheck, o.polrelid))
  FROM pg_policy o
 WHERE o.oid IN (SELECT h.objid FROM hanging h WHERE h.classid = 'pg_policy'::regclass)
UNION ALL
SELECT 'parent', i.inhparent::regclass::text, '' FROM it JOIN pg_inherits i ON i.inhrelid = it.oid
UNION ALL
SELECT 'publication', p.pubname, concat_ws(' ', r.oid IS NOT NULL)
  FROM it
  LEFT JOIN pg_publication_rel r ON r.prrelid = it.oid
  JOIN pg_publication p ON p.oid = r.prpubid OR p.puballtables;

-- name: followers
-- Views and functions that hang on a view, and what they do, spelled without its name: it may have another meanwhile.
WITH hanging AS (
    SELECT DISTINCT d.classid, d.objid FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s::oid
)
SELECT 'view' AS kind, r.ev_class::regclass::text AS name, md5(r.ev_action::text) AS state
  FROM hanging h JOIN pg_rewrite r ON h.classid = 'pg_rewrite'::regclass AND r.oid = h.objid
 WHERE r.ev_class <> %(oid)s::oid
UNION ALL
SELECT 'function', p.oid::regprocedure::text, md5(concat_ws(' ', p.prosqlbody::text, p.prosrc))
  FROM hanging h JOIN pg_proc p ON h.classid = 'pg_proc'::regclass AND p.oid = h.objid;
