"""The part of the rows that a comparison is about, where it is not about all: a sample, since a time, by key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from spine_migrate.db.raw import execute
from spine_migrate.errors import ConfigurationError, Refused
from spine_migrate.mapping.emit import part as emit
from spine_migrate.mapping.emit.chosen import Chosen, everything, keyed, of_source_keys, of_target_keys, touching, where
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.parity.evidence import Scope
from spine_migrate.parity.rows import Keys, Part
from spine_migrate.parity.tables import Tables


@dataclass(frozen=True)
class Selection:
    """``condition`` is one on a row ``x`` of either side, ``keys`` are what was asked for by key; None: all rows.

    ``loose`` says that two rows of a pair can be told apart by the condition, so that the partner of a row that meets
    it belongs to the part whatever it is.
    """

    tables: Tables
    condition: Sql | None = None
    loose: bool = False
    keys: Keys | None = None

    def part(self, first: int = 3) -> Part:
        """All of it in one statement on the target's server, its parameters from ``$first`` on."""
        if self.keys is not None:
            return Part(keyed(self.tables.parity, first), (self.keys.source, self.keys.target))
        return Part(self._chosen())

    def apart(self, legacy: Any) -> tuple[int, int]:
        """The same of two servers, each side by its own rows."""
        tables = self.tables
        if self.keys is not None:
            old = tables.legacy_side.old(of_source_keys(tables.parity, 2))
            new = tables.parity.new(of_target_keys(tables.parity, 2))
            sides = ((old, [legacy, self.keys.source]), (new, [tables.migration_id, self.keys.target]))
        else:
            old, new = (
                sql.SQL("(SELECT x.* FROM {} AS x WHERE {})").format(side, self.condition)
                for side in (tables.legacy_side.old(), tables.parity.new())
            )
            sides = ((old, [legacy]), (new, [tables.migration_id]))
        counts = [
            execute(shared.connection, emit.size(relation), *parameters).fetchall()[0][0]
            for shared, (relation, parameters) in zip((tables.source, tables.target), sides, strict=True)
        ]
        return counts[0], counts[1]

    def _chosen(self) -> Chosen:
        parity = self.tables.parity
        if self.condition is None:
            return everything(parity)
        return touching(parity, self.condition) if self.loose else where(parity, self.condition)

    def sizes(self) -> tuple[int, int]:
        """Legacy rows and target rows of the part."""
        part = self.part(2)
        ((source, target),) = execute(
            self.tables.connection, emit.sizes(part.chosen), self.tables.migration_id, *part.parameters
        ).fetchall()
        return source, target


def select(tables: Tables, scope: Scope, legacy: Any) -> Selection:
    """``legacy`` is ``$1`` of the legacy side. Raises Refused (``no-time``) where the mapping carries no time that
    ``since`` could go by, ConfigurationError for what is no key.
    """
    if scope.keys is not None:
        return Selection(tables, keys=_keys(tables, list(scope.keys), legacy))
    conditions: list[Sql] = []
    if scope.sample is not None:
        conditions.append(emit.sampled(tables.parity, scope.sample))
    if scope.since is not None:
        column = emit.time_column(tables.parity)
        if column is None:
            name = tables.parity.binding.mapping.name
            raise Refused("no-time", f"{name} carries no time to {' or '.join(emit.TIMES)} that --since could go by.")
        conditions.append(emit.since(column, scope.since))
    return Selection(
        tables,
        condition=sql.SQL(" AND ").join(conditions) if conditions else None,
        loose=scope.since is not None,
    )


def _keys(tables: Tables, keys: list[str], legacy: Any) -> Keys:
    connection, statement = tables.source.connection, emit.targets(tables.legacy_side)
    try:
        with connection.transaction():
            found = execute(connection, statement, legacy, keys).fetchall()
    except psycopg.DataError:
        mapping = tables.parity.binding.mapping
        raise ConfigurationError(
            f"--key: not all of them are keys of {mapping.name}, whose {mapping.key} is "
            f"{tables.parity.binding.live[mapping.key].sql_type}; name the mapping that the keys belong to."
        ) from None
    return Keys(keys, [target for _, target in found if target is not None])
