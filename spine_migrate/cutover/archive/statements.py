"""The statements that make the tables of an archive anew: some before their rows are loaded, the rest behind.

Definitions are SQL text that the server has printed of its catalog; only names are composed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.cutover.archive.model import Column, Manifest, Sequence, Table, Type
from spine_migrate.cutover.archive.places import Places
from spine_migrate.db.catalog import Name

Statement = sql.Composed


@dataclass(frozen=True)
class Statements:
    """``present`` are sequences of others that are used as they are, by their names in the archive."""

    manifest: Manifest
    places: Places
    present: frozenset[Name] = frozenset()

    def types(self) -> Iterator[tuple[Type, Statement]]:
        for one in self.manifest.types:
            kind = sql.SQL("DOMAIN" if one.kind == "domain" else "TYPE")
            checks = [
                sql.SQL(" CONSTRAINT {} {}").format(sql.Identifier(check.name), sql.SQL(check.definition))
                for check in one.constraints
                if check.validated
            ]
            yield (
                one,
                sql.SQL("CREATE {} {} AS {}{}").format(
                    kind, one.name.identifier, sql.SQL(one.definition), sql.SQL("").join(checks)
                ),
            )

    def before(self) -> Iterator[Statement]:
        """Sequences, then tables without constraints and indexes, but for NOT NULL."""
        own = self._sequences()
        for sequence in own:
            if sequence.how != "identity":
                yield sql.SQL("CREATE SEQUENCE {} AS {}{}").format(
                    self.places.sequence(sequence.place).identifier, sql.SQL(sequence.type), _options(sequence)
                )
        for table in self.manifest.tables:
            yield self._create(table)
        for table in self.manifest.tables:
            for sequence in table.sequences:
                if sequence.how == "owned" and sequence.column is not None:
                    yield sql.SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(
                        self.places.sequence(sequence.place).identifier,
                        self.places.table(table.name).identifier,
                        sql.Identifier(sequence.column),
                    )

    def load(self, table: Table) -> Statement:
        return copy(self.places.table(table.name), table, sql.SQL("FROM STDIN"))

    def after(self) -> Iterator[Statement]:
        """Positions of sequences, constraints and indexes, partitions, foreign keys, comments."""
        for sequence in self._sequences():
            yield sql.SQL("SELECT pg_catalog.setval({}, {}, {})").format(
                sql.Literal(str(self.places.sequence(sequence.place))),
                sql.Literal(sequence.last_value),
                sql.Literal(sequence.is_called),
            )
        for table in self.manifest.tables:
            yield from self._constraints(table, foreign=False)
            for index in table.indexes:
                yield sql.SQL("CREATE {}INDEX {} ON {} {}").format(
                    sql.SQL("UNIQUE " if index.unique else ""),
                    sql.Identifier(self.places.part(table.name, index.name)),
                    self.places.table(table.name).identifier,
                    sql.SQL(index.definition),
                )
        for table in self.manifest.tables:
            yield from self._inherit(table)
        for table in self.manifest.tables:
            yield from self._constraints(table, foreign=True)
        for one in self.manifest.types:
            for check in one.constraints:
                if not check.validated:
                    yield sql.SQL("ALTER DOMAIN {} ADD CONSTRAINT {} {}").format(
                        one.name.identifier, sql.Identifier(check.name), sql.SQL(check.definition)
                    )
        yield from self._comments()

    def type_comments(self, one: Type) -> Iterator[Statement]:
        if one.comment is not None:
            kind = "DOMAIN" if one.kind == "domain" else "TYPE"
            yield _comment(kind, one.name.identifier, one.comment)

    def _sequences(self) -> list[Sequence]:
        """Each that is to be made, once, as its owner has it."""
        found: dict[Name, Sequence] = {}
        for table in self.manifest.tables:
            for sequence in table.sequences:
                if sequence.how != "used" or sequence.place not in found:
                    found[sequence.place] = sequence
        return [sequence for sequence in found.values() if sequence.place not in self.present]

    def _create(self, table: Table) -> Statement:
        identities = {sequence.column: sequence for sequence in table.sequences if sequence.how == "identity"}
        columns = [self._column(column, identities.get(column.name)) for column in table.columns]
        partition_by = sql.SQL(f" PARTITION BY {table.partition_by}" if table.partition_by else "")
        return sql.SQL("CREATE {}TABLE {} ({}){}").format(
            sql.SQL("UNLOGGED " if table.unlogged else ""),
            self.places.table(table.name).identifier,
            sql.SQL(", ").join(columns),
            partition_by,
        )

    def _column(self, column: Column, identity: Sequence | None) -> Statement:
        """A partition's identity is that of its parent, and comes with it."""
        parts: list[sql.Composable] = [sql.Identifier(column.name), sql.SQL(column.type)]
        if column.collation is not None:
            parts.append(sql.SQL(f"COLLATE {column.collation}"))
        if column.generated is not None:
            parts.append(sql.SQL(f"GENERATED ALWAYS AS ({column.default}) {column.generated.upper()}"))
        elif column.sequence is not None:
            name = sql.Literal(str(self.places.sequence(column.sequence)))
            parts.append(sql.SQL("DEFAULT pg_catalog.nextval({}::pg_catalog.regclass)").format(name))
        elif column.default is not None:
            parts.append(sql.SQL(f"DEFAULT {column.default}"))
        elif column.identity is not None and identity is not None:
            parts.append(
                sql.SQL("GENERATED {} AS IDENTITY (SEQUENCE NAME {}{})").format(
                    sql.SQL(column.identity.upper()),
                    self.places.sequence(identity.place).identifier,
                    _options(identity),
                )
            )
        if column.not_null:
            parts.append(sql.SQL("NOT NULL"))
        return sql.SQL(" ").join(parts)

    def _constraints(self, table: Table, *, foreign: bool) -> Iterator[Statement]:
        for constraint in table.constraints:
            if (constraint.refers is not None) is not foreign:
                continue
            if constraint.refers is not None and not self.places.holds(constraint.refers):
                continue
            refers = self.places.table(constraint.refers).identifier if constraint.refers else sql.SQL("")
            yield sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}{}{}").format(
                self.places.table(table.name).identifier,
                sql.Identifier(self.places.part(table.name, constraint.name)),
                sql.SQL(constraint.definition),
                refers,
                sql.SQL(constraint.remainder),
            )

    def _inherit(self, table: Table) -> Iterator[Statement]:
        """What a child has from its parent it has of its own as well, afterwards; only a DROP on the parent tells."""
        child = self.places.table(table.name).identifier
        for name in table.parents:
            parent = self.places.table(name).identifier
            if table.bound is not None:
                yield sql.SQL("ALTER TABLE {} ATTACH PARTITION {} {}").format(parent, child, sql.SQL(table.bound))
            else:
                yield sql.SQL("ALTER TABLE {} INHERIT {}").format(child, parent)

    def _comments(self) -> Iterator[Statement]:
        for table in self.manifest.tables:
            name = self.places.table(table.name)
            if table.comment is not None:
                yield _comment("TABLE", name.identifier, table.comment)
            for column in table.columns:
                if column.comment is not None:
                    place = sql.Identifier(name.schema, name.table, column.name)
                    yield _comment("COLUMN", place, column.comment)
            for constraint in table.constraints:
                if constraint.comment is not None and (
                    constraint.refers is None or self.places.holds(constraint.refers)
                ):
                    part = sql.Identifier(self.places.part(table.name, constraint.name))
                    yield _comment("CONSTRAINT", sql.SQL("{} ON {}").format(part, name.identifier), constraint.comment)
            for index in table.indexes:
                if index.comment is not None:
                    place = sql.Identifier(name.schema, self.places.part(table.name, index.name))
                    yield _comment("INDEX", place, index.comment)


def copy(place: Name, table: Table, direction: sql.SQL) -> Statement:
    """COPY of the rows that a table holds itself. A table without a column to copy has rows all the same, and takes no
    list of them (PostgreSQL manual, COPY).
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, table.loaded))
    listed = sql.SQL(" ({})").format(columns) if table.loaded else sql.SQL("")
    return sql.SQL("COPY {}{} {}").format(place.identifier, listed, direction)


def _options(sequence: Sequence) -> sql.SQL:
    return sql.SQL(
        f" START WITH {sequence.start} INCREMENT BY {sequence.increment} MINVALUE {sequence.minimum}"
        f" MAXVALUE {sequence.maximum} CACHE {sequence.cache} {'CYCLE' if sequence.cycle else 'NO CYCLE'}"
    )


def _comment(kind: str, place: sql.Composable, comment: str) -> Statement:
    return sql.SQL("COMMENT ON {} {} IS {}").format(sql.SQL(kind), place, sql.Literal(comment))
