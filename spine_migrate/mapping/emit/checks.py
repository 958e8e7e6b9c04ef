"""What parity compares in a pair of rows: one check per target column, and inside a JSON column one per rule.

Expressions read the pair under the aliases ``o``, the legacy row carried forward, and ``n``, the target row; both have
their columns as ``c0``, ``c1``, … in the order of the columns that the mapping produces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.json_tree import Node
from spine_migrate.mapping.emit.sql import judgements
from spine_migrate.mapping.model import Field, JsonPath
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.transforms.zone import Zone
from spine_migrate.mapping.types import typename

# Target limits, which the value itself shows: a NULL or a text too long never equals what is on the target.
SHOWN_BY_VALUE = frozenset({"null_value", "too_long"})


@dataclass(frozen=True)
class Check:
    """One thing compared. ``rule`` is None for JSON keys that no rule writes.

    ``differs`` is boolean, ``old`` and ``new`` are the values on both sides, of the logical type ``kind``. With
    ``keys`` they are JSON objects whose keys are compared one by one, under ``name``. ``link`` marks a reference that
    may still be NULL on the target. ``refused`` says that the rule can no longer carry the legacy value; None if it
    always can.
    """

    name: str
    rule: Field | None
    kind: str
    differs: Sql
    old: Sql
    new: Sql
    keys: bool = False
    link: bool = False
    refused: Sql | None = None


def cell(side: str, number: int) -> Sql:
    return sql.Identifier(side, f"c{number}")


def distinct(left: Sql, right: Sql, exact_type: sql.SQL | None = None) -> Sql:
    """Whether two values differ, never NULL; with ``exact_type`` their binary images (PostgreSQL manual, 9.25.6)."""
    # Without the cast to record, two row constructors would be compared column by column, which *<> cannot.
    if exact_type is None:
        return sql.SQL("{} IS DISTINCT FROM {}").format(left, right)
    return sql.SQL("ROW(({0})::{2})::record *<> ROW(({1})::{2})::record").format(left, right, exact_type)


@dataclass(frozen=True)
class Guards:
    """Legacy values that a rule cannot carry, by the rule's name, as boolean expressions over the legacy row ``s``.

    Evaluating a rule on them may fail (``raising``: it is not evaluated), or may give a NULL that the target happens to
    have too (``hidden``: the row is reported all the same). ``fragile`` rules may fail on values that no expression can
    tell, so rows in quarantine are kept away from them.
    """

    raising: dict[str, Sql]
    hidden: dict[str, Sql]
    fragile: frozenset[str]

    def refused(self, name: str) -> Sql | None:
        """The column of the old side that says so, for a hidden rule."""
        return sql.Identifier("o", f"r{list(self.hidden).index(name)}") if name in self.hidden else None


def guards(binding: Binding, not_null: frozenset[str]) -> Guards:
    """``not_null``: the target columns that cannot be NULL, on which a NULL hides nothing."""
    found: dict[str, list[tuple[str, Sql]]] = {}
    for one in judgements(binding, "s"):
        if one.refusal.reason not in SHOWN_BY_VALUE:
            found.setdefault(one.field.name, []).append((one.refusal.reason, one.refusal.condition))
    raising: dict[str, Sql] = {}
    hidden: dict[str, Sql] = {}
    for name, conditions in found.items():
        # CASE, not OR: a later condition may fail on values that an earlier one is there to catch.
        whens = sql.SQL(" ").join(sql.SQL("WHEN {} THEN true").format(condition) for _, condition in conditions)
        condition = sql.SQL("CASE {} ELSE false END").format(whens)
        unknown = all(reason == "unknown_value" for reason, _ in conditions)
        if not unknown:
            raising[name] = condition
        if not (unknown and name in not_null):
            hidden[name] = condition
    fragile = (f.name for f in binding.mapping.fields if _is_fragile(binding, f))
    return Guards(raising, hidden, frozenset(fragile))


def _is_fragile(binding: Binding, field: Field) -> bool:
    """A json column holds numbers and escapes that jsonb cannot, and no expression says of all of them which."""
    live = binding.live.get(field.column or "")
    return any(isinstance(step, Zone) for step in field.steps) or (live is not None and live.type == "json")


def checks(binding: Binding, produced: list[str], found: Guards, *, exact: bool = False) -> list[Check]:
    """All checks, links last. The mark of origin is not among them: a row without it is not compared but missing."""
    writer = _Writer(binding, found, exact)
    every = [check for number, name in enumerate(produced) for check in writer.column(number, name)]
    return sorted(every, key=lambda check: check.link)


@dataclass(frozen=True)
class _Writer:
    binding: Binding
    guards: Guards
    exact: bool

    def column(self, number: int, name: str) -> Iterator[Check]:
        old, new = cell("o", number), cell("n", number)
        base = next((f for f in self.binding.mapping.fields if f.name == name), None)
        places = dict(self._places(name))
        if places:
            yield from self._json(JsonPath(name, ()), base, places, (old, new))
        elif base is not None and not base.origin:
            yield self._rule(name, base, self.binding.mapping.target.columns[name].type.name, (old, new))

    def _places(self, column: str) -> Iterator[tuple[tuple[str, ...], Field]]:
        """The paths inside a JSON column that rules write, with the rule."""
        for field in self.binding.mapping.fields:
            if field.target == column and field.path:
                yield field.path, field
            if field.keep and field.keep.column == column:
                yield field.keep.keys, field

    def _rule(self, name: str, rule: Field, kind: str, sides: tuple[Sql, Sql]) -> Check:
        differs: Sql = self._distinct(kind, sides)
        refused = self.guards.refused(name)
        if refused is not None:
            differs = sql.SQL("(coalesce({}, false) OR {})").format(refused, differs)
        return Check(name, rule, kind, differs, *sides, link=rule.link, refused=refused)

    def _json(
        self, column: JsonPath, base: Field | None, places: dict[tuple[str, ...], Field], sides: tuple[Sql, Sql]
    ) -> Iterator[Check]:
        """One check per path, one for the rest of the column, one for the rest of each object that paths share."""
        tree = Node()
        leaves: list[Check] = []
        for path, rule in places.items():
            tree.put(path, None, sql.NULL)
            if not rule.origin:
                name = str(JsonPath(column.column, path))
                leaves.append(self._rule(name, rule, "jsonb", (_at(sides[0], path), _at(sides[1], path))))
        first, *others = (
            self._rest(JsonPath(column.column, path), base if not path else None, node, sides)
            for path, node in _nodes((), tree)
        )
        # Should a difference of the whole ever be in none of its parts, it must not go unreported.
        parts = sql.SQL(" OR ").join([sql.SQL("false"), *(check.differs for check in [*leaves, *others])])
        differs = sql.SQL("({} AND ({} OR NOT ({})))").format(self._distinct("jsonb", sides), first.differs, parts)
        refused = self.guards.refused(first.name)
        if refused is not None:
            differs = sql.SQL("(coalesce({}, false) OR {})").format(refused, differs)
        yield from leaves
        yield Check(first.name, base, "jsonb", differs, first.old, first.new, keys=True, refused=refused)
        yield from others

    def _rest(self, place: JsonPath, rule: Field | None, node: Node, sides: tuple[Sql, Sql]) -> Check:
        """What is left of an object without the keys that have checks of their own; what is no object is left whole."""
        left, right = (
            sql.SQL("CASE WHEN jsonb_typeof({0}) = 'object' THEN {0} - {1}::text[] ELSE {0} END").format(
                _at(side, place.keys), sql.Literal(node.keys)
            )
            for side in sides
        )
        return Check(str(place), rule, "jsonb", self._distinct("jsonb", (left, right)), left, right, keys=True)

    def _distinct(self, kind: str, sides: tuple[Sql, Sql]) -> Sql:
        return distinct(*sides, typename(kind) if self.exact else None)


def _nodes(path: tuple[str, ...], node: Node) -> Iterator[tuple[tuple[str, ...], Node]]:
    yield path, node
    for key, inner in node.nodes.items():
        yield from _nodes((*path, key), inner)


def _at(value: Sql, path: tuple[str, ...]) -> Sql:
    return sql.SQL("({} #> {}::text[])").format(value, sql.Literal(list(path))) if path else value
