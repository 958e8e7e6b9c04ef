"""The SQL of parity: forward(source) beside the target, compared column by column on the server.

``Parity`` composes statements for ``db.raw`` from a bound mapping. Which rows a statement is about, it is told as a
``Chosen``: all of both tables, or the suspects that the digests have left (``emit.digest``).
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Column
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.checks import Check, cell, checks, distinct, guards
from spine_migrate.mapping.emit.chosen import Chosen, everything, of_target_keys, parameter
from spine_migrate.mapping.emit.sides import EVERY, Sides, common
from spine_migrate.mapping.emit.sql import forward, is_ours
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class Parity(Sides):
    """``checks`` gives the order of the flags in every result."""

    checks: tuple[Check, ...] = ()

    @property
    def links(self) -> list[Check]:
        return [check for check in self.checks if check.link]

    def suspects(self, chosen: Chosen | None = None, *, finished: bool = True) -> sql.Composed:
        """The chosen rows, or all, that are not in order. ``$1`` the migration, ``$2`` how many rows to name. Of a
        migration that is not ``finished`` a link may be open although the row that it names is there.

        Rows: ``rows, kind, differs, linked, stale, source_key, target_key``. First one per kind of pair with its number
        of ``rows``, keys NULL; then the named pairs, ``rows`` NULL, so that each kind of pair is named before any is
        named twice. ``kind`` is missing, extra, differing, doubled (in quarantine, yet on the target), quarantined or
        waiting (differs only by links that the ledger knows are missing). ``differs`` has a flag per check,
        ``linked`` one per link that the ledger explains, ``stale`` one per link that it records as open although the
        row is there; all are NULL where there is no pair.
        """
        chosen = chosen or everything(self)
        suspicious = [sql.SQL("n.there IS NULL OR o.held IS NOT NULL"), *self.differences()]
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
            new_key=cell("n", self.key_number),
            old_key=cell("o", self.key_number),
            differs=sql.SQL(", ").join(check.differs for check in self.checks if not check.link),
            wanted=self._wanted(),
            pairs=chosen.pairs(self.key_number),
            suspicious=sql.SQL(" OR ").join(suspicious),
            open=self._open_links(chosen, finished=finished),
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

    def _open_links(self, chosen: Chosen, *, finished: bool) -> Sql:
        """What the ledger records as open, and whether it no longer is: the target has the row by now, or the legacy
        table has one that it had not.
        """
        if not self.links:
            return sql.SQL("")
        return sql.SQL(
            "link AS MATERIALIZED (SELECT target_key, field, wanted, wanted::{type} AS key, state"
            " FROM {link} AS l WHERE migration_id = $1 AND {chosen}),"
            " here AS MATERIALIZED (SELECT DISTINCT l.key FROM link AS l JOIN {target} AS t ON t.{key} = l.key),"
            " come AS MATERIALIZED (SELECT DISTINCT l.key FROM link AS l JOIN {old} AS o ON {old_key} = l.key"
            " WHERE l.state = 'broken'),"
            " open AS MATERIALIZED (SELECT l.target_key, l.field, l.wanted,"
            " {finished} AND (h.key IS NOT NULL OR (c.key IS NOT NULL AND l.state = 'broken')) AS stale"
            " FROM link AS l LEFT JOIN here AS h ON h.key = l.key LEFT JOIN come AS c ON c.key = l.key), "
        ).format(
            link=self.link.identifier,
            type=self.target_key_type,
            target=self.binding.target.identifier,
            key=sql.Identifier(self.binding.mapping.target.key),
            chosen=chosen.links,
            old=chosen.come,
            old_key=cell("o", self.key_number),
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

    def values(self, chosen: Chosen) -> sql.Composed:
        """What differs in the chosen pairs. ``$1`` the migration.

        Rows: ``source_key, target_key, number, json_key, old, new, refused``, all values as the server writes them;
        ``number`` is the check's, ``json_key`` names the key where a check compares several, ``refused`` says that the
        rule cannot carry the legacy value any more.
        """
        parts = [self._difference(number, check) for number, check in enumerate(self.checks)]
        # A CASE, so that it stays a full join, which is hashed: of arrays of keys the planner expects ten elements, and
        # would go through all pairs of an inner join one by one.
        both = sql.SQL("o.key IS NOT NULL AND n.there IS NOT NULL")
        return sql.SQL(
            "SELECT o.key::text AS source_key, {target_key}::text AS target_key, d.number, d.json_key, d.old, d.new,"
            " d.refused FROM {pairs}"
            " CROSS JOIN LATERAL ({parts}) AS d (number, json_key, old, new, refused)"
            " WHERE {both} ORDER BY {target_key}, o.key, d.number, d.json_key"
        ).format(
            target_key=cell("n", self.key_number),
            pairs=chosen.pairs(self.key_number),
            both=common(both),
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
            " WHERE {unlike}"
            " UNION ALL SELECT {number}, NULL, ({old})::text, ({new})::text, {refused}"
            " WHERE ({differs}) AND ({both}) IS NOT TRUE"
        ).format(
            number=sql.Literal(number),
            old_keys=each.format(both, check.old),
            new_keys=each.format(both, check.new),
            old=check.old,
            new=check.new,
            unlike=distinct(
                sql.Identifier("a", "value"), sql.Identifier("b", "value"), sql.SQL("jsonb") if self.exact else None
            ),
            differs=check.differs,
            both=both,
            refused=refused,
        )

    def gone(self) -> sql.Composed:
        """Entries of the quarantine whose legacy row is not there any more. ``$1`` the migration, ``$2`` how many to
        name. Rows: ``source_key, entries, discarded``, of which discarded ones are not named; the last two count.
        """
        return sql.SQL(
            "WITH gone AS MATERIALIZED (SELECT q.source_key, q.discarded_at FROM {quarantine} AS q"
            " WHERE q.migration_id = $1"
            " AND NOT EXISTS (SELECT FROM {source} AS s WHERE s.{key} = q.source_key::{type}))"
            " SELECT NULL AS source_key, count(*) AS entries, count(discarded_at) AS discarded FROM gone"
            " UNION ALL (SELECT source_key, NULL, NULL FROM gone WHERE discarded_at IS NULL"
            " ORDER BY source_key LIMIT $2::bigint)"
        ).format(
            quarantine=self.quarantine.identifier,
            source=self.binding.source.identifier,
            key=sql.Identifier(self.binding.mapping.key),
            type=self.source_key_type,
        )

    def source_count(self, rows: Sql = EVERY) -> sql.Composed:
        """How many legacy rows ``s`` there are, counted without the join."""
        return sql.SQL("SELECT count(*) FROM {} AS s WHERE {}").format(self.binding.source.identifier, rows)

    def target_count(self) -> sql.Composed:
        """How many target rows there are, of ours and others."""
        return sql.SQL("SELECT count(*) FROM {}").format(self.binding.target.identifier)

    def target_counts(self, rows: Sql = EVERY) -> sql.Composed:
        """Target rows ``t`` that are ours, and others, counted without the join."""
        return sql.SQL(
            "SELECT count(*) FILTER (WHERE {ours}), count(*) FILTER (WHERE ({ours}) IS NOT TRUE) FROM {target} AS t"
            " WHERE {rows}"
        ).format(ours=is_ours(self.binding, "t"), target=self.binding.target.identifier, rows=rows)

    def unmarked(self) -> sql.Composed:
        """Which target keys of ``$1`` (text) are on the target without our mark."""
        return sql.SQL("SELECT t.{key}::text FROM {target} AS t WHERE {listed} AND ({ours}) IS NOT TRUE").format(
            key=sql.Identifier(self.binding.mapping.target.key),
            target=self.binding.target.identifier,
            listed=of_target_keys(self, 1),
            ours=is_ours(self.binding, "t"),
        )

    def duplicates(self, *, source: bool) -> sql.Composed:
        """Target keys that more than one row has, or that more than one legacy row leads to.

        Rows: ``key, rows, all_keys``, at most ``$2`` of them; ``all_keys`` is the number of such keys. ``$1`` is that
        of ``Sides``.
        """
        rows = self.old() if source else self.new(sql.SQL("{} IS NOT NULL").format(parameter(1, sql.SQL("bigint"))))
        return sql.SQL(
            "SELECT {key}::text, count(*), count(*) OVER () FROM {rows} AS x WHERE {key} IS NOT NULL"
            " GROUP BY {key} HAVING count(*) > 1 ORDER BY {key} LIMIT $2::bigint"
        ).format(key=cell("x", self.key_number), rows=rows)


def parity(binding: Binding, target_columns: dict[str, Column], *, exact: bool = False) -> Parity:
    """Compile what a mapping says of two tables. ``target_columns``: the live target's columns by name."""
    produced = list(forward(binding, "s"))
    not_null = frozenset(name for name, column in target_columns.items() if column.not_null)
    found = guards(binding, not_null)
    every = tuple(checks(binding, produced, found, exact=exact))
    return Parity(binding, target_columns, produced, found, exact=exact, checks=every)
