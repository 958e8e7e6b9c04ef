"""A mapping held against the live catalog: drift is an error, missing optional columns are facts to work with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql

from spine_migrate.db.catalog import Column, Name, Relation
from spine_migrate.errors import Drift
from spine_migrate.mapping.document import nearest
from spine_migrate.mapping.model import Mapping, SourceColumn
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.types import read, satisfies, stores, typename


@dataclass(frozen=True)
class Binding:
    """A mapping with the tables it works on and the source columns that are really there."""

    mapping: Mapping
    source: Name
    target: Name
    live: dict[str, Column]

    @property
    def missing(self) -> list[str]:
        """Optional columns that the live table lacks; they read as NULL."""
        return [name for name in self.mapping.columns if name not in self.live]

    def column(self, name: str, alias: str) -> Sql:
        """A source column as its declared type, NULL where the live table lacks it."""
        declared = self.mapping.columns[name].type.name
        if name not in self.live:
            return sql.SQL("NULL::{}").format(typename("text" if declared == "any" else declared))
        return read(sql.Identifier(alias, name), self.live[name].type, declared)

    def never_null(self, name: str) -> bool:
        return name in self.live and self.live[name].not_null

    def fits(self, name: str, length: int) -> bool:
        """Whether the live column's own length limit already keeps it within ``length`` characters."""
        limit = self.live[name].length if name in self.live else 0
        return limit is not None and limit <= length


def bind(mapping: Mapping, source: Relation, target: Relation) -> Binding:
    """Raises Drift with every difference between what the mapping declares and what is there."""
    differences = [*_source_drift(mapping, source), *_target_drift(mapping, source, target)]
    if differences:
        raise Drift(differences)
    live = {name: source.columns[name] for name in mapping.columns if name in source.columns}
    return Binding(mapping, source.name, target.name, live)


def declared(mapping: Mapping, *, source_schema: str | None = None, target_schema: str | None = None) -> Binding:
    """A binding without a server: all columns there and as declared. For ``mapping sql`` and documentation."""
    live = {column.name: _declared_column(column) for column in mapping.columns.values()}
    return Binding(
        mapping,
        Name(source_schema or mapping.source_schema or "public", mapping.source_table),
        Name(target_schema or mapping.target_schema or "public", mapping.target.name),
        live,
    )


def declared_target(mapping: Mapping) -> dict[str, Column]:
    """The target's columns as declared, in the shape of the live catalog's."""
    return {
        column.name: replace(_declared_column(SourceColumn(column.name, column.type)), not_null=column.not_null)
        for column in mapping.target.columns.values()
    }


def _declared_column(column: SourceColumn) -> Column:
    long_names = {"timestamptz": "timestamp with time zone", "timestamp": "timestamp without time zone", "any": "text"}
    name = long_names.get(column.type.name, column.type.name)
    return Column(column.name, name, name, column.type.length, column.not_null, has_default=False, generated=False)


def _source_drift(mapping: Mapping, source: Relation) -> list[str]:
    drift: list[str] = []
    for column in mapping.columns.values():
        live = source.columns.get(column.name)
        if live is None:
            if not column.optional:
                spare = [name for name in source.columns if name not in mapping.columns]
                drift.append(f"{source.name} has no column{nearest(column.name, spare)}")
        elif not satisfies(live.type, column.type.name):
            said = "any, which takes no such values" if column.type.name == "any" else column.type
            drift.append(f"{source.name}.{column.name} is {live.sql_type}, the mapping says {said}")
        elif column.not_null and not live.not_null:
            key = "the key" if column.name == mapping.key else "not_null in the mapping"
            drift.append(f"{source.name}.{column.name} is {key} but may be NULL")
    drift.extend(
        f"{source.name}.{name} is in no rule of the mapping" for name in source.columns if name not in mapping.columns
    )
    live_key = source.columns.get(mapping.key)
    if live_key is not None and not live_key.not_null and not mapping.columns[mapping.key].not_null:
        drift.append(f"{source.name}.{mapping.key} is the key but may be NULL")
    return drift


def _target_drift(mapping: Mapping, source: Relation, target: Relation) -> list[str]:
    drift: list[str] = []
    produced = mapping.produced
    for column in mapping.target.columns.values():
        live = target.columns.get(column.name)
        if live is None:
            drift.append(f"{target.name} has no column{nearest(column.name, target.columns)}")
            continue
        name = f"{target.name}.{column.name}"
        if not stores(live.type, column.type.name):
            drift.append(f"{name} is {live.sql_type}, the mapping says {column.type}")
        elif live.length is not None and (column.type.length is None or live.length < column.type.length):
            drift.append(f"{name} is {live.sql_type}, too short for {column.type}")
        if live.generated and column.name in produced:
            drift.append(f"{name} is generated, but the mapping writes it")
        if live.not_null and not column.not_null and not _always_written(mapping, source, column.name):
            drift.append(f"{name} is NOT NULL, the mapping says it may be NULL")
    drift.extend(
        f"{target.name}.{name} is NOT NULL without a default and nothing produces it"
        for name, live in target.columns.items()
        if live.not_null and not live.has_default and not live.generated and name not in produced
    )
    return drift


def _always_written(mapping: Mapping, source: Relation, column: str) -> bool:
    """Whether the rules cannot write NULL into a target column; what no rule writes has its default."""
    base = mapping.base(column)

    def never_null(name: str) -> bool:
        return name in source.columns and source.columns[name].not_null

    return base is None or (not base.link and base.never_null(never_null))
