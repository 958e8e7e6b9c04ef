"""What the rows themselves say: counts, rejects, collisions, parents, links. Every pass is announced."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from psycopg import sql

from spine_migrate.db.catalog import Relation, unique_indexes
from spine_migrate.db.raw import rows
from spine_migrate.db.row_shape import Filled, row_shape
from spine_migrate.mapping.bind import Binding
from spine_migrate.plan import questions
from spine_migrate.plan.ask import Asker
from spine_migrate.plan.model import BrokenLinks, Conflict, Example, Keys, Rejects, Rows


class Data:
    """The questions about one mapping's rows. ``examples`` is how many offending rows are named each time."""

    def __init__(self, asker: Asker, binding: Binding, source: Relation, target: Relation, examples: int) -> None:
        self._asker = asker
        self._binding = binding
        self._source = source
        self._target = target
        self._examples = examples

    def judge(self) -> Rows | None:
        """Count the source, exactly, and what the judge says of each row."""
        found = self._scan("counting and judging all rows", questions.judged(self._binding))
        if found is None:
            return None
        total = sum(row["rows"] for row in found)
        return Rows(total, self._rejects([row for row in found if row["reason"] is not None]))

    def parents(self, parent: Binding, source: Relation, target: Relation) -> tuple[Rejects, ...] | None:
        """Rows that go to quarantine because the row they belong to is not there, or goes there itself."""
        field = self._binding.mapping.required
        if field is None:
            return ()
        connection = self._asker.connection
        found = self._asker.ask(
            f"what keeps rows of {source.name} from being moved",
            lambda: (unique_indexes(connection, target.oid), row_shape(connection, target.oid)),
        )
        if found is None:
            return None
        self._asker.announce("judging the rows that those depend on", source)
        statement = questions.parents(self._binding, field, parent, *found)
        rows_found = self._scan(f"looking for rows without their {source.name.table} row", statement)
        return None if rows_found is None else self._rejects([{**row, "field": field.name} for row in rows_found])

    def target_has_rows(self) -> bool | None:
        statement = sql.SQL("SELECT EXISTS (SELECT FROM {}) AS found").format(self._target.name.identifier)
        found = self._asker.ask(
            f"whether {self._target.name} has rows", lambda: rows(self._asker.connection, statement)
        )
        return None if found is None else bool(found[0]["found"])

    def keys(self) -> Keys | None:
        """Rows whose key is on the target already."""
        found = self._scan("looking for keys that are on the target already", questions.keys(self._binding))
        if found is None:
            return None
        taken = [row for row in found if not row["ours"]]
        return Keys(
            ours=sum(row["rows"] for row in found if row["ours"]),
            taken=sum(row["rows"] for row in taken),
            examples=self._named(taken),
        )

    def conflicts(self, shape: tuple[Filled, ...], *, target_has_rows: bool) -> tuple[Conflict, ...] | None:
        """Collisions on each unique index of the target; the primary key is what ``keys`` is about."""
        indexes = self._asker.ask(
            f"the unique indexes of {self._target.name}",
            lambda: unique_indexes(self._asker.connection, self._target.oid),
        )
        if indexes is None:
            return None
        conflicts = []
        for index in indexes:
            inside = self._scan(
                f"looking for collisions on {index.name}",
                questions.collisions(self._binding, index, shape, self._examples, target_has_rows=target_has_rows),
            )
            outside: list[dict[str, Any]] | None = [{"taken": 0, "examples": []}]
            if target_has_rows:
                outside = self._scan(
                    f"looking for target rows in the way on {index.name}",
                    questions.taken(self._binding, index, shape, self._examples),
                )
            if inside is None or outside is None:
                continue
            conflicts.append(
                Conflict(
                    index=index.name,
                    groups=inside[0]["groups"],
                    losers=inside[0]["losers"],
                    examples=tuple(
                        Example(one["first"], f"{one['rows']} rows collide, {one['last']} among them")
                        for one in inside[0]["examples"]
                    ),
                    taken=outside[0]["taken"],
                    taken_examples=tuple(
                        Example(one["source_key"], f"the target row {one['colliding_key']} is in the way")
                        for one in outside[0]["examples"]
                    ),
                )
            )
        return tuple(conflicts)

    def links(self) -> tuple[BrokenLinks, ...]:
        """Links that lead nowhere."""
        broken = []
        for link in self._binding.mapping.links:
            if link.column not in self._binding.live:
                continue
            found = self._scan(
                f"looking for links in {link.column} that lead nowhere", questions.broken_links(self._binding, link)
            )
            if found:
                broken.append(BrokenLinks(link.name, sum(row["rows"] for row in found), self._named(found)))
        return tuple(broken)

    def _scan(self, purpose: str, statement: sql.Composed) -> list[dict[str, Any]] | None:
        return self._asker.scan(purpose, self._source, statement)

    def _rejects(self, found: list[dict[str, Any]]) -> tuple[Rejects, ...]:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in found:
            groups.setdefault((row["reason"], row["field"]), []).append(row)
        return tuple(
            Rejects(reason, field, sum(row["rows"] for row in group), self._named(group))
            for (reason, field), group in sorted(groups.items())
        )

    def _named(self, found: Iterable[dict[str, Any]]) -> tuple[Example, ...]:
        texts = sorted(row["example"] for row in found)[: self._examples]
        return tuple(Example(*json.loads(text)) for text in texts)
