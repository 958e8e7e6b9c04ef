"""The SQL of parity: forward(source) beside the target, compared column by column on the server.

``Parity`` composes statements for ``db.raw`` from a bound mapping. Rows of the target count where they carry the
mapping's mark of origin. Text is compared under the collation "C", byte by byte, whatever the columns' own collations
say.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Column
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.checks import Check, Guards, cell, checks, guards
from spine_migrate.mapping.emit.sql import forward, is_ours
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.transforms.uuid_from import UuidFrom
from spine_migrate.mapping.types import read


@dataclass(frozen=True)
class Parity:
    """A binding with what is compared.

    ``produced`` are the target columns that the mapping writes, in the target's order; ``checks`` gives the order of
    the flags in every result; ``target_columns`` is the live catalog's side.
    """

    binding: Binding
    target_columns: dict[str, Column]
    produced: list[str]
    checks: list[Check]
    guards: Guards

    @property
    def one_to_one(self) -> bool:
        """Whether two different legacy keys always give two different target keys."""
        return all(step.lossless or isinstance(step, UuidFrom) for step in self.binding.mapping.key_field.steps)

    @property
    def links(self) -> list[Check]:
        return [check for check in self.checks if check.link]

    @property
    def _key(self) -> int:
        return self.produced.index(self.binding.mapping.target.key)

    @property
    def _key_type(self) -> sql.SQL:
        """As format_type prints it, so it is safe to write out."""
        return sql.SQL(self.binding.live[self.binding.mapping.key].sql_type)

    @property
    def _target_key_type(self) -> sql.SQL:
        return sql.SQL(self.target_columns[self.binding.mapping.target.key].sql_type)

    def _old(self, rows: Sql) -> Sql:
        """Each legacy row carried forward: ``key``, ``held`` (NULL unless in quarantine), ``c…`` and ``r…``.

        ``$1`` is the migration.
        """
        values = forward(self.binding, "s")
        columns = [
            sql.SQL("{} AS {}").format(self._guarded(name, values[name]), sql.Identifier(f"c{number}"))
            for number, name in enumerate(self.produced)
        ]
        flags = [
            sql.SQL("{} AS {}").format(condition, sql.Identifier(f"r{number}"))
            for number, condition in enumerate(self.guards.hidden.values())
        ]
        return sql.SQL(
            "(SELECT s.{key} AS key, q.key AS held, {columns} FROM {source} AS s {held} WHERE {rows})"
        ).format(
            key=sql.Identifier(self.binding.mapping.key),
            columns=sql.SQL(", ").join([*columns, *flags]),
            source=self.binding.source.identifier,
            held=self._held(),
            rows=rows,
        )

    def _held(self) -> Sql:
        """Joins ``q`` to a legacy row ``s``: its ``key`` is that of the row where it is in quarantine, else NULL."""
        return sql.SQL(
            "LEFT JOIN (SELECT source_key::{type} AS key FROM spine_migrate.quarantine WHERE migration_id = $1) AS q"
            " ON q.key = s.{key}"
        ).format(type=self._key_type, key=sql.Identifier(self.binding.mapping.key))

    def _guarded(self, name: str, value: Sql) -> Sql:
        """A column's expression, not evaluated where one of its rules would fail."""
        fields = [f for f in self.binding.mapping.fields if name in (f.target, f.keep.column if f.keep else None)]
        conditions = [self.guards.raising[field.name] for field in fields if field.name in self.guards.raising]
        key = name == self.binding.mapping.target.key
        if (key and not self.one_to_one) or (not key and any(field.name in self.guards.fragile for field in fields)):
            conditions.insert(0, sql.SQL("q.key IS NOT NULL"))
        if conditions:
            whens = sql.SQL(" ").join(sql.SQL("WHEN {} THEN NULL").format(condition) for condition in conditions)
            value = sql.SQL("CASE {} ELSE {} END").format(whens, value)
        return self._comparable(name, value)

    def _comparable(self, name: str, value: Sql) -> Sql:
        if self.binding.mapping.target.columns[name].type.name != "text":
            return value
        return sql.SQL('({} COLLATE "C")').format(value)

    def _new(self, rows: Sql) -> Sql:
        """Each target row that is ours: ``there`` (never NULL) and ``c…``."""
        columns: list[Sql] = []
        for number, name in enumerate(self.produced):
            declared = self.binding.mapping.target.columns[name].type.name
            value = read(sql.Identifier("t", name), self.target_columns[name].type, declared)
            columns.append(sql.SQL("{} AS {}").format(self._comparable(name, value), sql.Identifier(f"c{number}")))
        return sql.SQL("(SELECT t.tableoid AS there, {columns} FROM {target} AS t WHERE {ours} AND {rows})").format(
            columns=sql.SQL(", ").join(columns),
            target=self.binding.target.identifier,
            ours=is_ours(self.binding, "t"),
            rows=rows,
        )

    def _pairs(self, old_rows: Sql, new_rows: Sql) -> Sql:
        return sql.SQL("{} AS o FULL JOIN {} AS n ON {} = {}").format(
            self._old(old_rows), self._new(new_rows), cell("o", self._key), cell("n", self._key)
        )

    def suspects(self, *, finished: bool = True) -> sql.Composed:
        """One pass over both tables. ``$1`` the migration, ``$2`` how many rows to name. Of a migration that is not
        ``finished`` a link may be open although the row that it names is there.

        Rows: ``rows, kind, differs, linked, stale, source_key, target_key``. First one per kind of pair with its number
        of ``rows``, keys NULL; then the named pairs, ``rows`` NULL, so that each kind of pair is named before any is
        named twice. ``kind`` is missing, extra, differing, doubled (in quarantine, yet on the target), quarantined or
        waiting (differs only by links that the ledger knows are missing). ``differs`` has a flag per check,
        ``linked`` one per link that the ledger explains, ``stale`` one per link that it records as open although the
        row is there; all are NULL where there is no pair.
        """
        suspicious: list[Sql] = [sql.SQL("n.there IS NULL OR o.held IS NOT NULL")]
        suspicious.extend(sql.Identifier("o", f"r{number}") for number in range(len(self.guards.hidden)))
        suspicious.extend(
            sql.SQL("{} IS DISTINCT FROM {}").format(cell("o", number), cell("n", number))
            for number in range(len(self.produced))
        )
        return sql.SQL(
            # The comparison with 1 tells the planner that few rows pass; an OR of IS DISTINCT FROM looks like all rows.
            "WITH {open}suspect AS MATERIALIZED ("
            "SELECT o.key, coalesce({new_key}, {old_key}) AS target_key,"
            " CASE WHEN n.there IS NULL THEN CASE WHEN o.held IS NULL THEN 'missing' ELSE 'quarantined' END"
            " WHEN o.key IS NULL THEN 'extra' WHEN o.held IS NOT NULL THEN 'doubled' ELSE 'differing' END AS kind,"
            " n.there IS NOT NULL AND o.key IS NOT NULL AS pair, ARRAY[{differs}]::boolean[] AS differs{wanted}"
            " FROM {pairs} WHERE CASE WHEN {suspicious} THEN 1 ELSE 0 END = 1),"
            " attributed AS (SELECT x.key, x.target_key, x.kind, CASE WHEN x.pair THEN x.differs || {link_differs} END"
            " AS differs, CASE WHEN x.pair THEN {linked} END AS linked, CASE WHEN x.pair THEN {stale} END AS stale"
            " FROM suspect AS x{links}),"
            " settled AS MATERIALIZED (SELECT key, target_key, differs, linked, stale,"
            " CASE WHEN kind = 'differing' AND true = ANY(linked) AND true <> ALL(differs) THEN 'waiting' ELSE kind END"
            " AS kind FROM attributed)"
            " SELECT count(*), kind, differs, linked, stale, NULL AS source_key, NULL AS target_key"
            " FROM settled GROUP BY kind, differs, linked, stale"
            " UNION ALL (SELECT NULL, kind, differs, linked, stale, key::text, target_key::text FROM"
            " (SELECT *, row_number() OVER (PARTITION BY kind, differs ORDER BY target_key, key) AS rank FROM settled"
            " WHERE kind NOT IN ('quarantined', 'waiting')) AS named"
            " WHERE rank <= $2::bigint ORDER BY rank, kind, target_key, key LIMIT $2::bigint)"
        ).format(
            new_key=cell("n", self._key),
            old_key=cell("o", self._key),
            differs=sql.SQL(", ").join(check.differs for check in self.checks if not check.link),
            wanted=self._wanted(),
            pairs=self._pairs(sql.SQL("true"), sql.SQL("true")),
            suspicious=sql.SQL(" OR ").join(suspicious),
            open=self._open_links(finished=finished),
            link_differs=self._per_link("{differs} AND {stale} IS NOT false"),
            linked=self._per_link("{stale} IS false"),
            stale=self._per_link("{stale} IS true"),
            links=self._ledger_links(),
        )

    def _wanted(self) -> Sql:
        """Whether each link differs, and what it should be where it is still NULL."""
        return sql.SQL("").join(
            sql.SQL(", {differs} AS {d}, CASE WHEN {new} IS NULL THEN {old}::text END AS {w}").format(
                differs=check.differs,
                new=check.new,
                old=check.old,
                d=sql.Identifier(f"d{number}"),
                w=sql.Identifier(f"w{number}"),
            )
            for number, check in enumerate(self.links)
        )

    def _per_link(self, template: str) -> Sql:
        parts = [
            sql.SQL(template).format(
                differs=sql.Identifier("x", f"d{number}"), stale=sql.Identifier(f"l{number}", "stale")
            )
            for number in range(len(self.links))
        ]
        return sql.SQL("ARRAY[{}]::boolean[]").format(sql.SQL(", ").join(parts))

    def _open_links(self, *, finished: bool) -> Sql:
        """What the ledger records as open, and whether it no longer is: the target has the row by now, or the legacy
        table has one that it had not.
        """
        if not self.links:
            return sql.SQL("")
        return sql.SQL(
            "link AS MATERIALIZED (SELECT target_key, field, wanted, wanted::{type} AS key, state"
            " FROM spine_migrate.link WHERE migration_id = $1),"
            " here AS MATERIALIZED (SELECT DISTINCT l.key FROM link AS l JOIN {target} AS t ON t.{key} = l.key),"
            " come AS MATERIALIZED (SELECT DISTINCT l.key FROM link AS l JOIN {old} AS o ON {old_key} = l.key"
            " WHERE l.state = 'broken'),"
            " open AS MATERIALIZED (SELECT l.target_key, l.field, l.wanted,"
            " {finished} AND (h.key IS NOT NULL OR (c.key IS NOT NULL AND l.state = 'broken')) AS stale"
            " FROM link AS l LEFT JOIN here AS h ON h.key = l.key LEFT JOIN come AS c ON c.key = l.key), "
        ).format(
            type=self._target_key_type,
            target=self.binding.target.identifier,
            key=sql.Identifier(self.binding.mapping.target.key),
            old=self._old(sql.SQL("true")),
            old_key=cell("o", self._key),
            finished=sql.Literal(finished),
        )

    def _ledger_links(self) -> Sql:
        return sql.SQL("").join(
            sql.SQL(
                " LEFT JOIN open AS {l} ON {l}.field = {name}"
                " AND {l}.target_key = x.target_key::text AND {l}.wanted = x.{w}"
            ).format(l=sql.Identifier(f"l{number}"), name=sql.Literal(check.name), w=sql.Identifier(f"w{number}"))
            for number, check in enumerate(self.links)
        )

    def values(self) -> sql.Composed:
        """What differs in named pairs. ``$1`` the migration, ``$2`` legacy keys, ``$3`` target keys, both as text.

        Rows: ``source_key, target_key, number, json_key, old, new, refused``, all values as the server writes them;
        ``number`` is the check's, ``json_key`` names the key where a check compares several, ``refused`` says that the
        rule cannot carry the legacy value any more.
        """
        parts = [self._difference(number, check) for number, check in enumerate(self.checks)]
        return sql.SQL(
            "SELECT o.key::text AS source_key, {target_key}::text AS target_key, d.number, d.json_key, d.old, d.new,"
            " d.refused FROM {pairs}"
            " CROSS JOIN LATERAL ({parts}) AS d (number, json_key, old, new, refused)"
            " WHERE o.key IS NOT NULL AND n.there IS NOT NULL ORDER BY {target_key}, o.key, d.number, d.json_key"
        ).format(
            target_key=cell("n", self._key),
            pairs=self._pairs(
                sql.SQL("s.{} = ANY($2::text[]::{}[])").format(
                    sql.Identifier(self.binding.mapping.key), self._key_type
                ),
                sql.SQL("t.{} = ANY($3::text[]::{}[])").format(
                    sql.Identifier(self.binding.mapping.target.key), self._target_key_type
                ),
            ),
            parts=sql.SQL(" UNION ALL ").join(parts),
        )

    def _difference(self, number: int, check: Check) -> Sql:
        refused = check.refused or sql.SQL("false")
        if not check.keys:
            return sql.SQL("SELECT {}, NULL::text, ({})::text, ({})::text, {} WHERE {}").format(
                sql.Literal(number), check.old, check.new, refused, check.differs
            )
        both = sql.SQL("jsonb_typeof({}) = 'object' AND jsonb_typeof({}) = 'object'").format(check.old, check.new)
        each = sql.SQL("jsonb_each(CASE WHEN {} THEN {} END)")
        return sql.SQL(
            "SELECT {number}, coalesce(a.key, b.key), a.value::text, b.value::text, {refused}"
            " FROM {old_keys} AS a FULL JOIN {new_keys} AS b ON b.key = a.key"
            " WHERE a.value IS DISTINCT FROM b.value"
            " UNION ALL SELECT {number}, NULL, ({old})::text, ({new})::text, {refused}"
            " WHERE ({differs}) AND ({both}) IS NOT TRUE"
        ).format(
            number=sql.Literal(number),
            old_keys=each.format(both, check.old),
            new_keys=each.format(both, check.new),
            old=check.old,
            new=check.new,
            differs=check.differs,
            both=both,
            refused=refused,
        )

    def gone(self) -> sql.Composed:
        """Entries of the quarantine whose legacy row is not there any more. ``$1`` the migration, ``$2`` how many to
        name. Rows: ``source_key, entries, discarded``, of which discarded ones are not named; the last two count.
        """
        return sql.SQL(
            "WITH gone AS MATERIALIZED (SELECT q.source_key, q.discarded_at FROM spine_migrate.quarantine AS q"
            " WHERE q.migration_id = $1"
            " AND NOT EXISTS (SELECT FROM {source} AS s WHERE s.{key} = q.source_key::{type}))"
            " SELECT NULL AS source_key, count(*) AS entries, count(discarded_at) AS discarded FROM gone"
            " UNION ALL (SELECT source_key, NULL, NULL FROM gone WHERE discarded_at IS NULL"
            " ORDER BY source_key LIMIT $2::bigint)"
        ).format(
            source=self.binding.source.identifier,
            key=sql.Identifier(self.binding.mapping.key),
            type=self._key_type,
        )

    def counts(self) -> sql.Composed:
        """Rows of each table, counted without the join: source, target rows that are ours, other target rows."""
        return sql.SQL(
            "SELECT (SELECT count(*) FROM {source}), count(*) FILTER (WHERE {ours}),"
            " count(*) FILTER (WHERE ({ours}) IS NOT TRUE) FROM {target} AS t"
        ).format(
            source=self.binding.source.identifier,
            ours=is_ours(self.binding, "t"),
            target=self.binding.target.identifier,
        )

    def unmarked(self) -> sql.Composed:
        """Which target keys of ``$1`` (text) are on the target without our mark."""
        key = sql.Identifier(self.binding.mapping.target.key)
        return sql.SQL(
            "SELECT t.{key}::text FROM {target} AS t WHERE t.{key} = ANY($1::text[]::{type}[]) AND ({ours}) IS NOT TRUE"
        ).format(
            key=key,
            target=self.binding.target.identifier,
            type=self._target_key_type,
            ours=is_ours(self.binding, "t"),
        )

    def duplicates(self, *, source: bool) -> sql.Composed:
        """Target keys that more than one row has, or that more than one legacy row leads to.

        Rows: ``key, rows, all_keys``, at most ``$2`` of them; ``all_keys`` is the number of such keys. ``$1`` is the
        migration.
        """
        rows = self._old(sql.SQL("$1::bigint IS NOT NULL")) if source else self._new(sql.SQL("$1::bigint IS NOT NULL"))
        return sql.SQL(
            "SELECT {key}::text, count(*), count(*) OVER () FROM {rows} AS x WHERE {key} IS NOT NULL"
            " GROUP BY {key} HAVING count(*) > 1 ORDER BY {key} LIMIT $2::bigint"
        ).format(key=cell("x", self._key), rows=rows)


def parity(binding: Binding, target_columns: dict[str, Column]) -> Parity:
    """Compile what a mapping says of two tables. ``target_columns``: the live target's columns by name."""
    produced = list(forward(binding, "s"))
    not_null = frozenset(name for name, column in target_columns.items() if column.not_null)
    found = guards(binding, not_null)
    return Parity(binding, target_columns, produced, checks(binding, produced, found), found)
