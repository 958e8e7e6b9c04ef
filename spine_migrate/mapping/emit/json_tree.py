"""Building a JSON column from rules: which keys are written, under which condition, as one jsonb expression."""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg import sql

from spine_migrate.mapping.transforms.base import Sql

# A function takes at most 100 arguments (PostgreSQL manual, appendix K).
_PAIRS = 50


@dataclass
class Node:
    """An object under construction: ``leaves`` and ``nodes`` are its keys; a leaf without a condition always is one."""

    leaves: dict[str, tuple[Sql | None, Sql]] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)

    def put(self, path: tuple[str, ...], condition: Sql | None, value: Sql) -> None:
        head, *rest = path
        if rest:
            self.nodes.setdefault(head, Node()).put(tuple(rest), condition, value)
        else:
            self.leaves[head] = (condition, value)

    @property
    def keys(self) -> list[str]:
        return [*self.leaves, *self.nodes]

    def condition(self) -> Sql | None:
        """When the object has any key at all; None if always."""
        parts: list[Sql] = []
        for found in [
            *(condition for condition, _ in self.leaves.values()),
            *(n.condition() for n in self.nodes.values()),
        ]:
            if found is None:
                return None
            parts.append(found)
        return sql.SQL("({})").format(sql.SQL(" OR ").join(parts))

    def expression(self) -> Sql:
        """The object as jsonb. Keys under one condition share one jsonb_build_object, the costly part."""
        groups: dict[str, tuple[Sql | None, list[tuple[str, Sql]]]] = {}
        entries = [
            *((key, condition, value) for key, (condition, value) in self.leaves.items()),
            *((key, node.condition(), node.expression()) for key, node in self.nodes.items()),
        ]
        for key, condition, value in entries:
            group = "" if condition is None else condition.as_string(None)
            groups.setdefault(group, (condition, []))[1].append((key, value))
        parts: list[Sql] = []
        chunks = [
            (condition, pairs[at : at + _PAIRS])
            for condition, pairs in groups.values()
            for at in range(0, len(pairs), _PAIRS)
        ]
        for condition, pairs in chunks:
            built = sql.SQL("jsonb_build_object({})").format(
                sql.SQL(", ").join(sql.SQL("{}, {}").format(sql.Literal(key), value) for key, value in pairs)
            )
            parts.append(
                built
                if condition is None
                else sql.SQL("CASE WHEN {} THEN {} ELSE '{{}}'::jsonb END").format(condition, built)
            )
        return sql.SQL("({})").format(sql.SQL(" || ").join(parts))
