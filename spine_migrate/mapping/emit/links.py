"""References to rows of the same mapping in what is written through the view.

A legacy table without a foreign key takes a reference to a row that is not there, and goes on holding one when that row
is deleted. The target has a foreign key. So such a reference is NULL there and stands in the ledger, as for a backfill,
and the view shows it. Where the legacy table has the foreign key itself, the target's refuses in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.sql import forward_value, key
from spine_migrate.mapping.emit.trigger_text import NEW, changed, row, when
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class LinkColumns:
    """``enforced``: the legacy columns among them that a foreign key of the legacy table holds; ``cleared``: those that
    it sets to NULL when the row goes that they point to.
    """

    form: LegacyForm
    enforced: frozenset[str] = frozenset()
    cleared: frozenset[str] = frozenset()

    @property
    def fields(self) -> list[Field]:
        return [field for field in self.form.binding.mapping.links if field.column in self.form.binding.live]

    def value(self, field: Field) -> Sql:
        """What the target column gets, over ``s``: the row that is wanted, held until the end of the transaction, or
        NULL where there is none. Where none is wanted nothing is read: a sequential scan that finds nothing would still
        lock the whole table for a serializable transaction's sake (manual 13.2.3).
        """
        binding = self.form.binding
        wanted = forward_value(binding, field, "s")
        if field.column in self.enforced:
            return wanted
        return sql.SQL(
            "CASE WHEN {wanted} = {own} THEN {own}"
            " WHEN {wanted} IS NOT NULL"
            " THEN (SELECT r.{key} FROM {target} AS r WHERE r.{key} = {wanted} FOR KEY SHARE) END"
        ).format(
            wanted=wanted,
            own=key(binding, "s"),
            key=sql.Identifier(binding.mapping.target.key),
            target=binding.target.identifier,
        )

    def record(self, key_variable: str, *, updating: bool) -> Iterator[Sql]:
        """After the row was written: what it wants and did not get goes into the ledger; ``key_variable`` holds its
        target key.
        """
        binding = self.form.binding
        for field in self.fields:
            wanted = forward_value(binding, field, "s")
            found: list[Sql] = []
            if updating:
                found.append(
                    sql.SQL(
                        "DELETE FROM spine_migrate.link"
                        " WHERE migration_id = {} AND target_key = {}::text AND field = {};"
                    ).format(
                        sql.Literal(self.form.migration_id), sql.Identifier(key_variable), sql.Literal(field.target)
                    )
                )
            if field.column not in self.enforced:
                found.append(
                    sql.SQL(
                        "INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted)"
                        " SELECT {migration}, {key}::text, {field}, ({wanted})::text FROM {row}"
                        " WHERE ({wanted}) IS NOT NULL"
                        " AND (SELECT t.{column} FROM {target} AS t WHERE t.{target_key} = {key}) IS NULL"
                        " ON CONFLICT (migration_id, target_key, field)"
                        " DO UPDATE SET wanted = EXCLUDED.wanted, state = EXCLUDED.state;"
                    ).format(
                        migration=sql.Literal(self.form.migration_id),
                        key=sql.Identifier(key_variable),
                        field=sql.Literal(field.target),
                        wanted=wanted,
                        row=row(NEW, [field.source], "s"),
                        column=sql.Identifier(field.target),
                        target=binding.target.identifier,
                        target_key=sql.Identifier(binding.mapping.target.key),
                    )
                )
            present = sql.SQL("{} IS NOT NULL").format(sql.Identifier(NEW, field.source))
            yield when(changed(self.form, [field.source]) if updating else present, *found)

    def release(self, key_variable: str) -> Iterator[Sql]:
        """Before the row of a key goes: rows with a legacy form that point to it want what is not there any more.
        Others go on pointing to it, and the foreign key refuses.
        """
        mapping = self.form.binding.mapping
        for field in self.fields:
            if field.column in self.enforced - self.cleared:
                continue
            target = self.form.binding.target.identifier
            column, key = sql.Identifier(field.target), sql.Identifier(key_variable)
            freed = sql.SQL("UPDATE {target} AS t SET {column} = NULL WHERE t.{column} = {key} AND {form}").format(
                target=target, column=column, key=key, form=self.form.condition("t")
            )
            noted = sql.SQL(
                "WITH freed AS ({freed} RETURNING t.{target_key} AS target_key)"
                " INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted, state)"
                " SELECT {migration}, target_key::text, {field}, {key}::text, 'broken' FROM freed"
                " ON CONFLICT (migration_id, target_key, field)"
                " DO UPDATE SET wanted = EXCLUDED.wanted, state = EXCLUDED.state"
            ).format(
                freed=freed,
                target_key=sql.Identifier(mapping.target.key),
                migration=sql.Literal(self.form.migration_id),
                field=sql.Literal(field.target),
                key=key,
            )
            # Most rows have none, and to look costs less than an UPDATE of no row with all that it fires.
            yield when(
                sql.SQL("EXISTS (SELECT FROM {} AS t WHERE t.{} = {})").format(target, column, key),
                sql.SQL("{};").format(freed if field.column in self.cleared else noted),
            )

    def beside_unseen(self, key_variable: str, again: Sql, *statements: Sql, only: Sql | None = None) -> Iterator[Sql]:
        """``statements``, by which a key goes. At the stricter levels a row that was committed since may point to it,
        which ``release`` cannot see: the foreign key refuses, where the legacy table has none. ``again`` tells the
        transaction to try again. ``only``: where the key goes at all.
        """
        mapping = self.form.binding.mapping
        if not any(field.column not in self.enforced - self.cleared for field in self.fields):
            yield from statements
            return
        strict = sql.SQL("current_setting('transaction_isolation') IN ('repeatable read', 'serializable')")
        yield sql.SQL(
            "IF {strict} THEN\nBEGIN\n{statements}\nEXCEPTION WHEN foreign_key_violation THEN\n"
            "GET STACKED DIAGNOSTICS spine_refused = TABLE_NAME;\n"
            "IF spine_refused IS DISTINCT FROM {table} OR EXISTS (SELECT FROM {target} AS t WHERE {points}) THEN\n"
            "RAISE;\nEND IF;\n{again}\nEND;\nELSE\n{statements}\nEND IF;"
        ).format(
            strict=strict if only is None else sql.SQL("{} AND {}").format(only, strict),
            statements=sql.SQL("\n").join(statements),
            table=sql.Literal(self.form.binding.target.table),
            target=self.form.binding.target.identifier,
            points=sql.SQL(" OR ").join(
                sql.SQL("t.{} = {}").format(sql.Identifier(field.target), sql.Identifier(key_variable))
                for field in mapping.links
            ),
            again=again,
        )

    def forget(self, key_variable: str) -> Sql:
        """What a row wants that is gone itself."""
        return sql.SQL("DELETE FROM spine_migrate.link WHERE migration_id = {} AND target_key = {}::text").format(
            sql.Literal(self.form.migration_id), sql.Identifier(key_variable)
        )

    def rename(self, old_key: str, new_key: str) -> Sql:
        return sql.SQL(
            "UPDATE spine_migrate.link SET target_key = {}::text WHERE migration_id = {} AND target_key = {}::text;"
        ).format(sql.Identifier(new_key), sql.Literal(self.form.migration_id), sql.Identifier(old_key))
