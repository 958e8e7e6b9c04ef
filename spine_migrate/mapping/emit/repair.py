"""The SQL of repair: which rows are not as they should be, and the statements that make them so.

A row is repaired as it was compared or not at all: ``seen`` is a hash over both sides of a pair, taken when it was
found and again in the transaction that changes it. ``$1`` is always the migration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Column
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.checks import cell
from spine_migrate.mapping.emit.chosen import Chosen, everything, keyed, of_source_keys, of_target_keys
from spine_migrate.mapping.emit.moved import Moved
from spine_migrate.mapping.emit.parity import parity
from spine_migrate.mapping.emit.sql import judgements, verdict
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class Repairs(Moved):
    """Statements over both tables of a migration that is done."""

    def found(self) -> sql.Composed:
        """Every row that is not as it should be: ``kind, source_key, target_key, seen``.

        ``kind`` is missing, extra, doubled or differing; links that the ledger explains are no difference.
        """
        return self._rows(everything(self))

    def again(self) -> sql.Composed:
        """The same for some rows, as they are now; ``$2`` legacy keys, ``$3`` target keys, as text.

        Two columns more: ``fields``, the target's columns that differ, and ``reason``, why the rules cannot carry the
        legacy row, or NULL.
        """
        return self._rows(keyed(self, 2), self._fields())

    def in_full(self) -> sql.Composed:
        """As ``found``, with ``fields`` and ``reason`` as in ``again``, and all that a script must name: ``old`` and
        ``new``, the values of all columns on both sides as text in their order, and ``whole``, an extra row as jsonb.
        """
        old, new = (
            sql.SQL("ARRAY[{}]::text[]").format(
                sql.SQL(", ").join(sql.SQL("{}::text").format(cell(side, n)) for n in range(len(self.produced)))
            )
            for side in ("o", "n")
        )
        whole = sql.SQL(
            "CASE WHEN o.key IS NULL THEN (SELECT to_jsonb(t)::text FROM {} AS t WHERE t.{} = {}) END"
        ).format(
            self.binding.target.identifier,
            sql.Identifier(self.binding.mapping.target.key),
            cell("n", self.key_number),
        )
        further = (
            sql.SQL("{} AS {}").format(value, sql.Identifier(name))
            for value, name in ((old, "old"), (new, "new"), (whole, "whole"))
        )
        return self._rows(everything(self), self._fields(), *further)

    def _fields(self) -> Sql:
        differing = sql.SQL(", ").join(
            sql.SQL("CASE WHEN {} THEN {} END").format(differs, sql.Literal(name))
            for name, differs in self._by_column().items()
        )
        reason = sql.SQL("(SELECT {} FROM {} AS s WHERE s.{} = o.key)").format(
            verdict(list(judgements(self.binding, "s")), "reason"),
            self.binding.source.identifier,
            sql.Identifier(self.binding.mapping.key),
        )
        return sql.SQL("array_remove(ARRAY[{}]::text[], NULL) AS fields, {} AS reason").format(differing, reason)

    def _rows(self, chosen: Chosen, *further: Sql) -> sql.Composed:
        wrong = [
            sql.SQL("(n.there IS NULL AND o.held IS NULL)"),
            sql.SQL("o.key IS NULL"),
            sql.SQL("(o.held IS NOT NULL AND n.there IS NOT NULL)"),
        ]
        pair = sql.SQL("(o.key IS NOT NULL AND n.there IS NOT NULL AND ({}))").format(
            sql.SQL(" OR ").join(self._by_column().values())
        )
        cells = [cell(side, number) for side in ("o", "n") for number in range(len(self.produced))]
        kind = sql.SQL(
            "CASE WHEN n.there IS NULL THEN 'missing' WHEN o.key IS NULL THEN 'extra'"
            " WHEN o.held IS NOT NULL THEN 'doubled' ELSE 'differing' END AS kind"
        )
        keys = sql.SQL("o.key::text AS source_key, coalesce({}, {})::text AS target_key").format(
            cell("n", self.key_number), cell("o", self.key_number)
        )
        # As text: the hash of jsonb is the same for values that only stand at another depth.
        seen = sql.SQL('hashtextextended(ROW({})::text COLLATE "C", 0) AS seen').format(sql.SQL(", ").join(cells))
        # The comparison with 1, for the planner: see Parity.suspects.
        return sql.SQL("SELECT {columns} FROM {pairs} WHERE CASE WHEN {wrong} THEN 1 ELSE 0 END = 1").format(
            columns=sql.SQL(", ").join([kind, keys, seen, *further]),
            pairs=chosen.pairs(self.key_number),
            wrong=sql.SQL(" OR ").join([*wrong, pair]),
        )

    def _by_column(self) -> dict[str, Sql]:
        """Whether each target column of a pair differs, but for links that are open and on record."""
        flagged = {check.name: check for check in self.checks if check.link or check.refused is not None}
        found: dict[str, Sql] = {}
        for number, name in enumerate(self.produced):
            if name in flagged:
                found[name] = self._unexplained(flagged[name])
            else:
                found[name] = sql.SQL("{} IS DISTINCT FROM {}").format(cell("o", number), cell("n", number))
        for check in flagged.values():
            # A path whose rule refuses the value: its column, NULL on both sides there, would look equal.
            if check.rule is not None and check.rule.path:
                found[check.rule.target] = sql.SQL("({} OR {})").format(
                    found[check.rule.target], self._unexplained(check)
                )
        return found

    def note(self) -> sql.Composed:
        """Record rows before they are changed: ``$2`` kind, ``$3`` target keys, ``$4`` their legacy keys, ``$5`` the
        columns, ``$6`` the tool's version.
        """
        return sql.SQL(
            "INSERT INTO spine_migrate.repair"
            " (migration_id, kind, source_key, target_key, fields, before, tool_version)"
            " SELECT $1::bigint, $2, x.source_key, x.target_key, $5::text[], row_to_json(t.*), $6"
            " FROM unnest($3::text[], $4::text[]) AS x (target_key, source_key)"
            " LEFT JOIN {target} AS t ON t.{key} = x.target_key::{type} AND {ours}"
        ).format(
            target=self.binding.target.identifier,
            key=sql.Identifier(self.binding.mapping.target.key),
            type=self.target_key_type,
            ours=self.ours("t"),
        )

    def update(self, columns: Sequence[str]) -> sql.Composed:
        """Give target rows these columns of what their legacy rows become; ``$2`` legacy keys, ``$3`` target keys.

        A link to a row that is not there becomes NULL; ``link`` records it.
        """
        return sql.SQL(
            "UPDATE {target} AS t SET {sets} FROM {old} AS o WHERE t.{key} = {old_key} AND {chosen} AND {ours}"
        ).format(
            target=self.binding.target.identifier,
            sets=sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), self.carried(name, "o")) for name in columns
            ),
            old=self.old(of_source_keys(self, 2)),
            key=sql.Identifier(self.binding.mapping.target.key),
            old_key=cell("o", self.key_number),
            chosen=of_target_keys(self, 3),
            ours=self.ours("t"),
        )

    def carried(self, name: str, side: str) -> Sql:
        """The value of a target column, as far as it can be written now."""
        value = cell(side, self.produced.index(name))
        if name not in {check.name for check in self.links}:
            return value
        return sql.SQL("CASE WHEN EXISTS (SELECT FROM {} AS r WHERE r.{} = {}) THEN {} END").format(
            self.binding.target.identifier, sql.Identifier(self.binding.mapping.target.key), value, value
        )

    def forget_link(self) -> sql.Composed:
        """``$2`` target keys, ``$3`` the column."""
        return sql.SQL(
            "DELETE FROM spine_migrate.link WHERE migration_id = $1 AND target_key = ANY($2::text[]) AND field = $3"
        ).format()

    def note_link(self, name: str) -> sql.Composed:
        """Record what rows would point to and cannot yet; ``$2`` legacy keys."""
        value = cell("o", self.produced.index(name))
        return sql.SQL(
            "INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted)"
            " SELECT $1::bigint, {own}::text, {name}, {value}::text FROM {old} AS o"
            " WHERE {value} IS NOT NULL AND {carried} IS NULL"
        ).format(
            own=cell("o", self.key_number),
            name=sql.Literal(name),
            value=value,
            old=self.old(of_source_keys(self, 2)),
            carried=self.carried(name, "o"),
        )

    def delete(self) -> sql.Composed:
        """Remove target rows of ours by their keys, ``$2``; ``$1`` is not looked at."""
        return sql.SQL(
            "DELETE FROM {target} AS t WHERE $1::bigint IS NOT NULL AND {chosen} AND {ours} RETURNING t.{key}::text"
        ).format(
            target=self.binding.target.identifier,
            chosen=of_target_keys(self, 2),
            ours=self.ours("t"),
            key=sql.Identifier(self.binding.mapping.target.key),
        )


def repairs(binding: Binding, target_columns: dict[str, Column]) -> Repairs:
    """``target_columns``: the live target's columns by name."""
    made = parity(binding, target_columns)
    return Repairs(made.binding, made.target_columns, made.produced, made.guards, checks=made.checks)
