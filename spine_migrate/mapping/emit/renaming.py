"""Another key for a row that is written through the view, with what points to it.

The legacy table gives a row another key where no legacy row points to it by a foreign key. What points to the target
row beyond that is the new side's: what the runtime has noted of it, and rows that the legacy table never had. They
follow, in one statement, at whose end the server looks at the foreign keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Name
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.links import LinkColumns
from spine_migrate.mapping.emit.sql import key
from spine_migrate.mapping.emit.trigger_text import NEW, changed, either, when
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class Child:
    """Target rows that point to a row of this mapping, by a column."""

    target: Name
    column: str


@dataclass(frozen=True)
class Renaming:
    """``following``: rows of other tables that follow; ``pointing``: columns of the target that point to itself, of
    which those of rows without a legacy form follow.
    """

    form: LegacyForm
    links: LinkColumns
    following: tuple[Child, ...]
    pointing: tuple[str, ...]

    def statements(self, old_key: str, new_key: str, again: Sql) -> Iterator[Sql]:
        """Over NEW, with the row of the key ``old_key`` held; both are variables, and equal afterwards. ``again`` as
        for ``LinkColumns.beside_unseen``.
        """
        own = self.form.binding.mapping.key
        old, new = sql.Identifier(old_key), sql.Identifier(new_key)
        yield when(
            changed(self.form, [own]),
            sql.SQL("{} := {};").format(new, key(self.form.binding, NEW)),
            when(
                sql.SQL("{} <> {}").format(new, old),
                # Who begins to point to the key that goes is waited for, and is seen by what comes next.
                sql.SQL("PERFORM true FROM {} AS t WHERE t.{} = {} FOR UPDATE OF t;").format(
                    self.form.binding.target.identifier, sql.Identifier(self.form.binding.mapping.target.key), old
                ),
                *self.links.release(old_key),
                *self.links.beside_unseen(old_key, again, self._rename(old, new)),
                self.links.rename(old_key, new_key),
                sql.SQL("{} := {};").format(old, new),
            ),
        )

    def _rename(self, old: sql.Identifier, new: sql.Identifier) -> Sql:
        target_key = self.form.binding.mapping.target.key
        following = [
            sql.SQL("{} AS (UPDATE {} AS c SET {} = {} WHERE c.{} = {})").format(
                sql.Identifier(f"spine_following_{number}"),
                child.target.identifier,
                sql.Identifier(child.column),
                new,
                sql.Identifier(child.column),
                old,
            )
            for number, child in enumerate(self.following, 1)
        ]
        rows: list[Sql] = [sql.SQL("t.{} = {}").format(sql.Identifier(target_key), old)]
        if self.pointing:
            others = either(sql.SQL("t.{} = {}").format(sql.Identifier(name), old) for name in self.pointing)
            rows.append(sql.SQL("{} AND NOT coalesce({}, false)").format(others, self.form.condition("t")))
        return sql.SQL("{}UPDATE {} AS t SET {} WHERE {};").format(
            sql.SQL("WITH {} ").format(sql.SQL(", ").join(following)) if following else sql.SQL(""),
            self.form.binding.target.identifier,
            sql.SQL(", ").join(
                sql.SQL("{0} = CASE WHEN t.{0} = {1} THEN {2} ELSE t.{0} END").format(sql.Identifier(name), old, new)
                for name in (target_key, *self.pointing)
            ),
            sql.SQL(" OR ").join(rows),
        )
