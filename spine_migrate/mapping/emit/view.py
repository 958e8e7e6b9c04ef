"""The compatibility view: the legacy table's name and columns over the target, its defaults, comments and privileges.

The trigger functions are SECURITY DEFINER. The application's roles have privileges on the view and none on the target,
just as they had on the legacy table and none on what its rows now live in; the server checks those before a trigger
runs, columns included. What a function does beyond is decided here and by no caller: its search_path and the settings
that its expressions depend on are pinned, and nobody else may put it on a table of his own (EXECUTE is revoked, which
the server asks for when a trigger is made, and never when it fires).

The view is no security barrier: behind one, no condition on an expression would find an index. So a role that makes a
function of its own can see by it, in a WHERE, what rows without a legacy form have in the columns that it asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import PINNED, SETTINGS
from spine_migrate.db.definition import ColumnDefinition, Grant
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.trigger_bodies import SCHEMA, TriggerBodies
from spine_migrate.mapping.transforms.base import Sql

# What the expressions of a mapping depend on.
_FUNCTION_SETTINGS = {
    **{
        name: SETTINGS[name]
        for name in ("TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output")
    },
    **PINNED,
    # The statements go by keys, so that one plan is as good as another and planning is most of what they cost.
    "plan_cache_mode": "force_generic_plan",
}


@dataclass(frozen=True)
class View:
    """``bodies``: what its triggers do; ``fence``: a condition for reading it at all, over no row; ``aside``: what it
    is called until the legacy table gives its name up.
    """

    bodies: TriggerBodies
    fence: Sql | None = None
    aside: Name | None = None

    @property
    def form(self) -> LegacyForm:
        return self.bodies.form

    @property
    def name(self) -> Name:
        return self.aside or self.form.definition.name

    def create(self) -> sql.Composed:
        columns = self.form.columns("t")
        return sql.SQL("CREATE VIEW {} AS SELECT {} FROM {} AS t WHERE {}").format(
            self.name.identifier,
            sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for name, value in columns.items()
            ),
            self.form.binding.target.identifier,
            sql.SQL(" AND ").join(filter(None, (self.form.condition("t"), self.fence))),
        )

    def defaults(self) -> Iterator[sql.Composed]:
        """The legacy table's defaults. A sequence goes on where it is, and belongs to the legacy table as before."""
        for number, column in enumerate(self.form.definition.columns, 1):
            value: Sql | None = None if column.default_value is None else sql.SQL(column.default_value)
            if column.identity and column.sequence is not None:
                function = self._function(f"next_{number}")
                yield _next_value(function, column)
                yield sql.SQL("GRANT EXECUTE ON FUNCTION {}() TO PUBLIC").format(function)
                value = sql.SQL("{}()").format(function)
            if value is not None:
                yield sql.SQL("ALTER VIEW {} ALTER COLUMN {} SET DEFAULT {}").format(
                    self.name.identifier, sql.Identifier(column.name), value
                )

    def triggers(self) -> Iterator[sql.Composed]:
        """The functions, then what calls them."""
        bodies = {"insert": self.bodies.insert(), "update": self.bodies.update(), "delete": self.bodies.delete()}
        for operation, body in bodies.items():
            function = self._function(operation)
            yield sql.SQL("CREATE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {} AS {}").format(
                function,
                sql.SQL(" ").join(
                    sql.SQL("SET {} = {}").format(
                        sql.Identifier(name),
                        sql.SQL(value) if name == "search_path" else sql.Literal(value),
                    )
                    for name, value in _FUNCTION_SETTINGS.items()
                ),
                sql.Literal(body.as_string(None)),
            )
            yield sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(function)
            yield sql.SQL("CREATE TRIGGER {} INSTEAD OF {} ON {} FOR EACH ROW EXECUTE FUNCTION {}()").format(
                sql.Identifier(f"spine_{operation}"),
                sql.SQL(operation.upper()),
                self.name.identifier,
                function,
            )

    def comments(self) -> Iterator[sql.Composed]:
        if self.form.definition.comment is not None:
            yield sql.SQL("COMMENT ON VIEW {} IS {}").format(
                self.name.identifier, sql.Literal(self.form.definition.comment)
            )
        for column in self.form.definition.columns:
            if column.comment is not None:
                place = sql.Identifier(self.name.schema, self.name.table, column.name)
                yield sql.SQL("COMMENT ON COLUMN {} IS {}").format(place, sql.Literal(column.comment))

    def grants(self) -> Iterator[sql.Composed]:
        """What roles may do with the legacy table. By its owner, whoever had granted it."""
        for one in self.form.definition.grants:
            yield grant(self.name, one)

    def drop(self, *, view: bool) -> Iterator[sql.Composed]:
        """All that was made for the view, of which nothing need be there, and itself if there is a ``view``."""
        if view:
            yield sql.SQL("DROP VIEW {}").format(self.name.identifier)
        numbers = [f"next_{number}" for number, one in enumerate(self.form.definition.columns, 1) if one.identity]
        for part in ("insert", "update", "delete", *numbers):
            yield sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self._function(part))

    def _function(self, part: str) -> sql.Identifier:
        return sql.Identifier(SCHEMA, f"view_{self.form.migration_id}_{part}")


def grant(name: Name, one: Grant) -> sql.Composed:
    return sql.SQL("GRANT {} TO {}{}").format(
        _on(name, one), _role(one), sql.SQL(" WITH GRANT OPTION" if one.grantable else "")
    )


def revoke(name: Name, one: Grant) -> sql.Composed:
    return sql.SQL("REVOKE {} FROM {} CASCADE").format(_on(name, one), _role(one))


def _on(name: Name, one: Grant) -> sql.Composed:
    column: Sql = sql.SQL("")
    if one.column_name is not None:
        column = sql.SQL(" ({})").format(sql.Identifier(one.column_name))
    return sql.SQL("{}{} ON {}").format(sql.SQL(one.privilege), column, name.identifier)


def _role(one: Grant) -> Sql:
    return sql.SQL("PUBLIC") if one.role is None else sql.Identifier(one.role)


def _next_value(function: sql.Identifier, column: ColumnDefinition) -> sql.Composed:
    """An identity column asks nobody for a privilege on its sequence, so neither does its default."""
    return sql.SQL(
        "CREATE FUNCTION {}() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = {} AS {}"
    ).format(
        function,
        sql.SQL(PINNED["search_path"]),
        sql.Literal(sql.SQL("SELECT nextval({}::regclass)").format(sql.Literal(column.sequence)).as_string(None)),
    )
