"""What the parts of an archive are called where they are made anew."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from spine_migrate.cutover.archive.model import Manifest, Table
from spine_migrate.db.catalog import Name
from spine_migrate.errors import ConfigurationError

# NAMEDATALEN - 1 (PostgreSQL manual, 4.1.1)
_LONGEST = 63


class Places:
    """Where tables, and with them their sequences, indexes and constraints, go.

    ``schema`` takes the place of each table's own; ``renamed`` gives new names to tables. Of a table that is renamed,
    names of sequences, indexes and constraints that have its name in them (jobs_pkey, ix_jobs_feed) have the new one
    there. Types stay in their schemas, since expressions name them. Raises ConfigurationError where two tables would be
    one, or a name is too long.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        schema: str | None = None,
        renamed: Mapping[Name, str] = MappingProxyType({}),
    ) -> None:
        self._tables = {
            table.name: Name(schema or table.name.schema, renamed.get(table.name, table.name.table)) for table in tables
        }
        taken: dict[Name, Name] = {}
        for old, new in self._tables.items():
            if len(new.table.encode()) > _LONGEST:
                raise ConfigurationError(f"The name {new.table!r} for {old} is longer than {_LONGEST} bytes.")
            if new in taken:
                raise ConfigurationError(f"{taken[new]} and {old} would both be {new}; rename one of them.")
            taken[new] = old
        self._sequences: dict[Name, Name] = {}
        # An owner decides before those that only take values from it.
        for owned in (True, False):
            for table in tables:
                for sequence in table.sequences:
                    if (sequence.column is not None) is owned:
                        name = Name(schema or sequence.place.schema, self.part(table.name, sequence.place.table))
                        self._sequences.setdefault(sequence.place, name)

    def table(self, name: Name) -> Name:
        return self._tables[name]

    def holds(self, name: Name) -> bool:
        return name in self._tables

    def part(self, table: Name, name: str) -> str:
        """An index or a constraint of a table."""
        old, new = table.table, self._tables[table].table
        if old == new:
            return name
        made = re.sub(rf"(?<![^\W_]){re.escape(old)}(?![^\W_])", lambda _: new, name, count=1)
        return made.encode()[:_LONGEST].decode(errors="ignore")

    def sequence(self, name: Name) -> Name:
        return self._sequences[name]

    @property
    def schemas(self) -> set[str]:
        return {name.schema for name in (*self._tables.values(), *self._sequences.values())}


def resolved(manifest: Manifest, old: Name | str) -> Name:
    """A table of the archive, by its whole name or by the table's name alone. Raises ConfigurationError where there is
    none, or more than one.
    """
    names = [table.name for table in manifest.tables]
    found = [name for name in names if old in (name, name.table)]
    if len(found) != 1:
        held = ", ".join(map(str, names))
        what = "more than one table" if found else "no table"
        raise ConfigurationError(f"The archive has {what} {str(old)!r}; it has {held}.")
    return found[0]
