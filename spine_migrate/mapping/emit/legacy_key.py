"""The legacy key of a target row: what is logged for the way back, and the index by which a view finds it.

Where the target key is made of the legacy one by a hash, no planner can turn ``job_id = 7`` into a condition on it. The
legacy key itself stands elsewhere in the row then, and an index over that expression serves the view.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.mapping.emit.capture import Key
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.trigger_text import either
from spine_migrate.mapping.model import Field, JsonPath
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.transforms.uuid_from import UuidFrom


@dataclass(frozen=True)
class LegacyKey:
    """Of a mapping that has a ``key_carrier``, and whose key does not stand as it is in the target (``key_stands``)."""

    form: LegacyForm

    @property
    def logged(self) -> Key:
        """What changes of the target are logged by, NULL for a row that stands for no legacy row."""
        return Key(self.text, either(map(_differs, self._places)), total=False)

    def expression(self, alias: str) -> Sql:
        """As the view shows it."""
        return self.form.columns(alias)[self.form.binding.mapping.key]

    def predicate(self, alias: str) -> Sql:
        """Of the index: in it are the rows that stand for a legacy row by their key. Who asks for those is not asked
        again row by row, which would take a hash of each.
        """
        constants = self.form.constants(alias)
        steps = self.form.binding.mapping.key_field.steps
        if not all(isinstance(step, UuidFrom) and step.immutable for step in steps):
            return constants
        return sql.SQL("{} AND {}").format(constants, self.form.led_to(alias, self.expression(alias)))

    def text(self, alias: str) -> Sql:
        """Of a row of this alias, as it is logged."""
        shown = self.expression(alias)
        return sql.SQL("CASE WHEN {} THEN ({})::text END").format(self.form.led_to(alias, shown), shown)

    @property
    def _carrier(self) -> Field:
        field = self.form.binding.mapping.key_carrier
        if field is None:
            raise ValueError(f"{self.form.binding.mapping.name} gives its key up")
        return field

    @property
    def _places(self) -> list[JsonPath]:
        """Where the target has what decides it."""
        field = self._carrier
        own = JsonPath(self.form.binding.mapping.target.key, ())
        return list(dict.fromkeys([own, JsonPath(field.target, field.path), *([field.keep] if field.keep else [])]))


def _differs(place: JsonPath) -> Sql:
    old, new = (_at(row, place) for row in ("old", "new"))
    return sql.SQL("{} IS DISTINCT FROM {}").format(old, new)


def _at(row: str, place: JsonPath) -> Sql:
    # As text: a key goes by how it is spelled, and 1.0 equals 1.00 in jsonb.
    column = sql.Identifier(row, place.column)
    return sql.SQL("({} #>> {}::text[])").format(column, sql.Literal(list(place.keys))) if place.keys else column
