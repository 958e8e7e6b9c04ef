"""What an UPDATE through the view does to the target row: the mapping's ``put``.

Only what rules make of columns that change is written. All else in the target row stays: columns that no rule writes,
further keys of its JSON columns, and what rules would write today for columns that this UPDATE leaves alone. So an
UPDATE that changes nothing leaves the target row as it is, whoever made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.links import LinkColumns
from spine_migrate.mapping.emit.sql import Leaf, forward_value, leaves
from spine_migrate.mapping.emit.trigger_text import NEW, changed, row, when
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class _Document:
    """A JSON column of the target that rules write into, in the variable ``variable`` while it is made."""

    column: str
    variable: sql.Identifier
    base: Field | None
    leaves: tuple[Leaf, ...]

    @property
    def sources(self) -> frozenset[str]:
        base = {self.base.source} if self.base is not None else set()
        return frozenset().union(base, *(leaf.sources for leaf in self.leaves))


@dataclass(frozen=True)
class Put:
    """``key`` names a variable with the target key of the row."""

    form: LegacyForm
    links: LinkColumns
    key: str

    @property
    def variables(self) -> list[Sql]:
        return [sql.SQL("{} jsonb;").format(one.variable) for one in self._documents()]

    @property
    def reading(self) -> frozenset[str]:
        """Columns whose change goes by more of the target row than the view shows."""
        return frozenset[str]().union(*(document.sources for document in self._documents()))

    def documents(self) -> Iterator[Sql]:
        """JSON columns as they will be, from the target row, which is held, and NEW."""
        for document in self._documents():
            yield when(changed(self.form, document.sources), *self._make(document))

    def update(self, condition: Sql) -> sql.Composed:
        """The target row ``t`` written from NEW, but for its key, where a condition holds."""
        binding = self.form.binding
        key = sql.Identifier(binding.mapping.target.key)
        written = [
            sql.SQL("{} = CASE WHEN {} THEN {} ELSE t.{} END").format(
                sql.Identifier(column), changed(self.form, sources), value, sql.Identifier(column)
            )
            for column, sources, value in self._columns()
        ]
        return sql.SQL("UPDATE {} AS t SET {} FROM {} WHERE t.{} = {} AND {}").format(
            binding.target.identifier,
            sql.SQL(", ").join(written or [sql.SQL("{} = t.{}").format(key, key)]),
            row(NEW, [column.name for column in self.form.definition.columns], "s"),
            key,
            sql.Identifier(self.key),
            condition,
        )

    def _live(self, sources: frozenset[str]) -> frozenset[str]:
        return sources & frozenset(self.form.binding.live)

    def _documents(self) -> list[_Document]:
        binding = self.form.binding
        found: list[_Document] = []
        for column in binding.mapping.target.columns:
            inside = tuple(
                leaf
                for leaf in leaves(binding, NEW)
                if leaf.place.column == column and leaf.sources and leaf.sources <= frozenset(binding.live)
            )
            base = binding.mapping.base(column)
            if base is not None and base.column not in binding.live:
                base = None
            if inside and (base is None or binding.mapping.overlay(column)):
                found.append(_Document(column, sql.Identifier(f"spine_document_{len(found) + 1}"), base, inside))
        return found

    def _columns(self) -> Iterator[tuple[str, frozenset[str], Sql]]:
        """Target column, the legacy columns that decide it, and its new value; over ``s``. Without the key."""
        binding = self.form.binding
        documents = {document.column: document for document in self._documents()}
        for column in binding.mapping.target.columns:
            if column in documents:
                yield column, documents[column].sources, documents[column].variable
                continue
            field = binding.mapping.base(column)
            if field is None or column == binding.mapping.target.key:
                continue
            sources = self._live(frozenset({one for one in (field.column, field.when_present) if one is not None}))
            if sources:
                value = self.links.value(field) if field.link else forward_value(binding, field, "s")
                yield column, sources, value

    def _make(self, document: _Document) -> Iterator[Sql]:
        """The document as it stands, then every leaf whose source changes."""
        binding = self.form.binding
        variable = document.variable
        yield sql.SQL(
            "SELECT CASE WHEN jsonb_typeof(t.{0}) = 'object' THEN t.{0} ELSE '{{}}' END INTO {1} FROM {2} AS t"
            " WHERE t.{3} = {4};"
        ).format(
            sql.Identifier(document.column),
            variable,
            binding.target.identifier,
            sql.Identifier(binding.mapping.target.key),
            sql.Identifier(self.key),
        )
        if document.base is not None:
            yield when(
                changed(self.form, [document.base.source]),
                sql.SQL(
                    "{0} := {1} || (SELECT coalesce(jsonb_object_agg(e.key, e.value), '{{}}')"
                    " FROM jsonb_each({0}) AS e WHERE e.key = ANY ({2}::text[]));"
                ).format(
                    variable,
                    forward_value(binding, document.base, NEW),
                    sql.Literal(binding.mapping.overlay(document.column)),
                ),
            )
        for leaf in document.leaves:
            yield when(changed(self.form, leaf.sources), *self._place(variable, leaf))

    def _place(self, document: sql.Identifier, leaf: Leaf) -> Iterator[Sql]:
        """One leaf written, or taken away with the objects that hold nothing else."""
        keys = leaf.place.keys
        path = sql.Literal(list(keys))
        write: list[Sql] = [
            when(
                sql.SQL("jsonb_typeof({} #> {}::text[]) IS DISTINCT FROM 'object'").format(document, prefix),
                sql.SQL("{0} := jsonb_set({0}, {1}::text[], '{{}}');").format(document, prefix),
            )
            for prefix in (sql.Literal(list(keys[:depth])) for depth in range(1, len(keys)))
        ]
        # Through jsonb_build_object, as forward() builds it, a NULL becomes JSON's null.
        write.append(
            sql.SQL("{0} := jsonb_set({0}, {1}::text[], jsonb_build_object('v', {2}) -> 'v');").format(
                document, path, leaf.value
            )
        )
        if leaf.condition is None:
            yield from write
            return
        remove: list[Sql] = [sql.SQL("{0} := {0} #- {1}::text[];").format(document, path)]
        remove += [
            when(
                sql.SQL("{} #> {}::text[] = '{{}}'").format(document, prefix),
                sql.SQL("{0} := {0} #- {1}::text[];").format(document, prefix),
            )
            for prefix in (sql.Literal(list(keys[:depth])) for depth in range(len(keys) - 1, 0, -1))
        ]
        yield sql.SQL("IF ({}) THEN\n{}\nELSE\n{}\nEND IF;").format(
            leaf.condition, sql.SQL("\n").join(write), sql.SQL("\n").join(remove)
        )
