"""Which method finds the rows that differ, and why."""

from __future__ import annotations

from spine_migrate.db import catalog
from spine_migrate.db.catalog import Relation
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused
from spine_migrate.parity.evidence import Method
from spine_migrate.parity.options import Finding, Options
from spine_migrate.parity.tables import Tables

_BLOCK = 8192
_MB = 1 << 20


def choose(tables: Tables, options: Options) -> Method:
    """A join on the server where its hash fits into memory, digests where it would not, or where no server has both
    sides. Raises Refused (``method``) for a method that cannot be.
    """
    mapping, asked, scope = tables.parity.binding.mapping, options.method, options.scope
    nullable = not tables.parity.target_columns[mapping.target.key].not_null
    # Rows without a key have nothing that two streams could be merged by.
    unmergeable = f"{mapping.target.name}.{mapping.target.key} may be NULL" if nullable else None
    if tables.apart:
        if unmergeable or asked is Finding.JOIN:
            because = unmergeable or "a join needs both on one"
            raise Refused("method", f"The tables are on two servers, and {because}; they cannot be compared like this.")
        return Method("buckets", "the tables are on two servers")
    reasons = (
        (asked is Finding.JOIN, "it was asked for"),
        (scope.keys is not None, "rows were asked for by key"),
        (asked is Finding.AUTO and scope.partial and not options.checkpoint, "a part of the rows is compared"),
        (nullable, unmergeable or ""),
    )
    why = next((words for holds, words in reasons if holds), None)
    if why is not None:
        return Method("join", why)
    if asked is Finding.BUCKETS:
        return Method("buckets", "it was asked for")
    return Method("buckets", "it is to be kept in a checkpoint") if options.checkpoint else _by_size(tables)


def _by_size(tables: Tables) -> Method:
    connection = tables.connection
    ((memory, most_temp),) = connection.execute(query("parity", "hash_memory")).fetchall()
    sizes = [
        _bytes(connection, catalog.named(connection, name))
        for name in (tables.migration.source_table, tables.migration.target_table)
    ]
    if min(sizes) <= memory:
        return Method("join", f"its hash of about {_mb(min(sizes))} fits into memory ({_mb(memory)})")
    why = f"a join would write about {_mb(sum(sizes))} of temporary files, its hash memory is {_mb(memory)}"
    if most_temp is not None and sum(sizes) > most_temp:
        why += f" and temp_file_limit {_mb(most_temp)}"
    return Method("buckets", why)


def _bytes(connection: Connection, table: Relation) -> int:
    """All rows of a table as a hash would hold them; what lies in its blocks, where it was never analyzed, or has grown
    to more than twice the size since.
    """
    names = {"schema": table.name.schema, "table": table.name.table}
    ((width, analyzed),) = connection.execute(query("parity", "row_width"), names).fetchall()
    blocks = sum(leaf.blocks for leaf in catalog.leaves(connection, table.oid))
    if width and table.rows_estimated and blocks <= 2 * analyzed:
        return int(width) * table.rows_estimated
    return blocks * _BLOCK


def _mb(size: int) -> str:
    return f"{size / _MB:,.0f} MB"
