"""The structure of the target tables and the ledger as the catalog has it, in a form in which two databases compare.

Independent of the code under test: read from pg_catalog alone.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

# Not a part of the reference: each Alembic environment has its own version table.
_VERSION_TABLE = "alembic_version%"

_RELATIONS = """
SELECT 'relation', n.nspname, c.relname, c.relkind::text, c.relpersistence::text, '', ''
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s) AND c.relname NOT LIKE %(without)s
"""

_COLUMNS = """
SELECT 'column', n.nspname, c.relname || '.' || a.attname,
    a.attnum::text || ' ' || format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN 'not null' ELSE 'null' END, coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
    a.attidentity::text || a.attgenerated::text
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid AND c.relkind = 'r'
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE n.nspname = ANY (%(schemas)s) AND c.relname NOT LIKE %(without)s AND a.attnum > 0 AND NOT a.attisdropped
"""

_CONSTRAINTS = """
SELECT 'constraint', n.nspname, c.relname || '.' || k.conname, pg_get_constraintdef(k.oid), k.convalidated::text, '', ''
FROM pg_constraint AS k
JOIN pg_class AS c ON c.oid = k.conrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s) AND c.relname NOT LIKE %(without)s
"""

_INDEXES = """
SELECT 'index', n.nspname, c.relname,
    replace(pg_get_indexdef(i.indexrelid), ' ON ' || quote_ident(n.nspname) || '.', ' ON '), i.indisvalid::text, '', ''
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s) AND c.relname NOT LIKE %(without)s
"""

_SEQUENCES = """
SELECT 'sequence', n.nspname, c.relname, format_type(s.seqtypid, NULL),
    concat_ws(' ', s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache), s.seqcycle::text,
    coalesce((SELECT d.refobjid::regclass::text || '.' || d.refobjsubid FROM pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
            AND d.deptype IN ('a', 'i')), '')
FROM pg_sequence AS s
JOIN pg_class AS c ON c.oid = s.seqrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s)
"""

Fact = tuple[str, ...]


def structure(url: str, target_schema: str = "public") -> set[Fact]:
    """Relations, columns, constraints, indexes and sequences of the target schema and of ``spine_migrate``.

    The target schema is called ``target`` in the facts, whatever its name is.
    """
    facts: set[Fact] = set()
    given = {"schemas": [target_schema, "spine_migrate"], "without": _VERSION_TABLE}
    with psycopg.connect(url) as connection:
        # So that pg_get_constraintdef leaves the target schema out and names every other one.
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(target_schema)))
        for query in (_RELATIONS, _COLUMNS, _CONSTRAINTS, _INDEXES, _SEQUENCES):
            for kind, schema, *rest in connection.execute(query, given):
                facts.add((kind, "target" if schema == target_schema else schema, *rest))
    return facts


def everything(url: str) -> set[Fact]:
    """All schemas, relations and types that are not the server's own."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            """
            SELECT 'schema', nspname::text FROM pg_namespace
            WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
            UNION ALL
            SELECT 'relation', c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
            UNION ALL
            SELECT 'type', t.oid::regtype::text FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
            """
        ).fetchall()
    return {tuple(row) for row in rows}
