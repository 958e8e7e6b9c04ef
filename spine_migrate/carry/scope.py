"""Which source rows a batch is about, as SQL: a range of blocks, or a list of keys.

A scope names its rows by a ``handle``: the tid inside one table, or the key where rows come from several. Within a
batch's snapshot a handle stands for one row; the lists of rejected rows that go back and forth are lists of handles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from spine_migrate.db.catalog import Name
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.transforms.base import Sql


class Parameters:
    """Collects values for one statement and hands out their ``$n``."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: Any, type_name: str) -> Sql:
        """A typed placeholder. ``type_name`` is ours, never from outside."""
        self.values.append(value)
        return sql.SQL("${}::{}").format(sql.SQL(str(len(self.values))), sql.SQL(type_name))


class Scope(ABC):
    handle_type: str

    @abstractmethod
    def table(self, alias: str) -> Sql:
        """The FROM item."""

    @abstractmethod
    def handle(self, alias: str) -> Sql: ...

    @abstractmethod
    def condition(self, alias: str, parameters: Parameters) -> Sql: ...

    def listed(self, alias: str, handles: list[str], parameters: Parameters) -> Sql:
        """The rows of the scope that are in ``handles``."""
        wanted = parameters.add(handles, f"text[]::{self.handle_type}[]")
        return sql.SQL("{} = ANY({})").format(self.handle(alias), wanted)

    def without(self, alias: str, handles: list[str], parameters: Parameters) -> Sql:
        """The rows of the scope that are not in ``handles``."""
        rows = self.condition(alias, parameters)
        if not handles:
            return rows
        out = parameters.add(handles, f"text[]::{self.handle_type}[]")
        return sql.SQL("{} AND {} <> ALL({})").format(rows, self.handle(alias), out)


@dataclass(frozen=True)
class Blocks(Scope):
    """Rows of one table after one tid, up to another: exclusive, inclusive. PostgreSQL reads it as a TID range scan."""

    leaf: Name
    after: str
    up_to: str
    handle_type = "tid"

    def table(self, alias: str) -> Sql:
        return sql.SQL("ONLY {} AS {}").format(self.leaf.identifier, sql.Identifier(alias))

    def handle(self, alias: str) -> Sql:
        return sql.Identifier(alias, "ctid")

    def condition(self, alias: str, parameters: Parameters) -> Sql:
        return sql.SQL("{0} > {1} AND {0} <= {2}").format(
            self.handle(alias), parameters.add(self.after, "tid"), parameters.add(self.up_to, "tid")
        )


@dataclass(frozen=True)
class Keys(Scope):
    """Rows by source key, wherever they lie; for retries and for rows that a scan did not meet."""

    binding: Binding
    keys: list[str]
    handle_type = "text"

    def table(self, alias: str) -> Sql:
        return sql.SQL("{} AS {}").format(self.binding.source.identifier, sql.Identifier(alias))

    def handle(self, alias: str) -> Sql:
        return sql.SQL("{}::text").format(sql.Identifier(alias, self.binding.mapping.key))

    def condition(self, alias: str, parameters: Parameters) -> Sql:
        live = sql.SQL(self.binding.live[self.binding.mapping.key].sql_type)
        keys = parameters.add(self.keys, "text[]")
        return sql.SQL("{} = ANY({}::{}[])").format(sql.Identifier(alias, self.binding.mapping.key), keys, live)
