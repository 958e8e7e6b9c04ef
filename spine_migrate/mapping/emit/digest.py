"""The SQL of digests: both sides hashed row by row into buckets, which can be compared without bringing rows together.

A row goes into the bucket that the hash of its target key names, with a hash over all that is compared; a bucket is the
number of its rows and the XOR of their hashes (PostgreSQL manual, 9.21). Both are sums, so a table can be read in
portions, in any order. Where all buckets agree all rows do, but for collisions of 64-bit hashes; where a bucket does
not, ``rows`` gives what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from spine_migrate.db.catalog import Name
from spine_migrate.mapping.emit.checks import cell
from spine_migrate.mapping.emit.chosen import parameter
from spine_migrate.mapping.emit.sides import EVERY, Sides
from spine_migrate.mapping.transforms.base import Sql

BUCKETS = 65_536

# Hashes of these types have fewer values than the types (src/backend/utils/adt/jsonb_util.c, hashfunc.c, numeric.c):
# {}, [] and NULL have one, and so have [[1], 2] and [[1, 2]]; 64-bit numbers and times are folded to 32 bits; a
# number's sign is left out. What is hashed instead tells 1.0 from 1.00, which makes suspects of such rows, and no more.
_FORMS: dict[str, LiteralString] = {
    "jsonb": '({}::text COLLATE "C")',
    "numeric": '({}::text COLLATE "C")',
    "bigint": "int8send({})",
    "timestamptz": "timestamptz_send({})",
    "timestamp": "timestamp_send({})",
}


@dataclass(frozen=True)
class Range:
    """Blocks of one table that holds rows itself, ``high`` exclusive; None is the end, wherever that is by now."""

    table: Name
    low: int
    high: int | None

    def condition(self, alias: str) -> Sql:
        """Nothing for a whole table, so that it can be scanned in parallel."""
        ctid = sql.Identifier(alias, "ctid")
        bounds: list[Sql] = []
        if self.low:
            bounds.append(sql.SQL("{} >= {}::tid").format(ctid, sql.Literal(f"({self.low},0)")))
        if self.high is not None:
            bounds.append(sql.SQL("{} < {}::tid").format(ctid, sql.Literal(f"({self.high},0)")))
        return sql.SQL(" AND ").join(bounds) if bounds else EVERY


@dataclass(frozen=True)
class Digest:
    """One side. ``$1`` is that of ``Sides``; the target's side has none of its own and takes any number.

    ``scope`` is a condition on a row ``x`` of ``Sides``; ``without`` says that ``$2`` are keys (legacy keys of the
    source, target keys of the target, as text) of rows that are left out.
    """

    sides: Sides
    source: bool
    scope: Sql
    without: bool = False

    def buckets(self, ranges: Sequence[Range]) -> sql.Composed:
        """One row of two bytea, ``counts`` and ``hashes``: a big-endian 64-bit number for each bucket."""
        parts = [
            self._hashed(self._relation(part.condition("s" if self.source else "t"), _only(part))) for part in ranges
        ]
        return sql.SQL(
            "SELECT string_agg(int8send(coalesce(d.rows, 0)), ''::bytea ORDER BY b.number) AS counts,"
            " string_agg(int8send(coalesce(d.hashes, 0)), ''::bytea ORDER BY b.number) AS hashes"
            " FROM generate_series(0, {last}) AS b (number) LEFT JOIN ("
            "SELECT (place & {last})::int AS number, count(*) AS rows, bit_xor(hash) AS hashes FROM ({parts}) AS r"
            " GROUP BY 1) AS d ON d.number = b.number"
        ).format(last=sql.Literal(BUCKETS - 1), parts=sql.SQL(" UNION ALL ").join(parts))

    def mark(self, ranges: Sequence[Range]) -> sql.Composed:
        """One text that is the same as long as the same row versions are in these blocks, of whatever rows. Takes no
        parameters, and no column of the table, so it costs a fraction of ``buckets``.

        A version is its place and the transaction that wrote it (PostgreSQL manual, 5.6); a row that was deleted is
        missing, one that was written has another of both.
        """
        parts = [
            sql.SQL("SELECT hashtidextended(s.ctid, s.xmin::text::bigint) AS version FROM {} AS s WHERE {}").format(
                _only(part), part.condition("s")
            )
            for part in ranges
        ]
        return sql.SQL("SELECT concat(count(*), ' ', bit_xor(version)) FROM ({}) AS r").format(
            sql.SQL(" UNION ALL ").join(parts)
        )

    def rows(self) -> sql.Composed:
        """Rows ``place, target_key, source_key, hash`` of the buckets whose bits are set in the last parameter, a
        bytea; in the order of the first two. Of the target ``source_key`` is NULL.
        """
        return sql.SQL(
            "SELECT place, target_key, source_key, hash FROM ({rows}) AS r"
            ' WHERE get_bit({bits}, (place & {last})::int) = 1 ORDER BY place, target_key COLLATE "C"'
        ).format(
            rows=self._hashed(self._relation(EVERY, None)),
            bits=parameter(3 if self.without else 2, sql.SQL("bytea")),
            last=sql.Literal(BUCKETS - 1),
        )

    def of(self, rows: Sql) -> sql.Composed:
        """The same columns for rows by a condition on ``s`` or ``t``, in no order."""
        return sql.SQL("SELECT place, target_key, source_key, hash FROM ({}) AS r").format(
            self._hashed(self._relation(rows, None))
        )

    def _relation(self, rows: Sql, table: Sql | None) -> Sql:
        if self.source:
            return self.sides.old(rows, table=table)
        # The target's statement takes $1 as well.
        first = sql.SQL("{} IS NOT NULL").format(parameter(1, sql.SQL("bigint")))
        return self.sides.new(sql.SQL("{} AND {}").format(first, rows), table=table)

    def _hashed(self, relation: Sql) -> Sql:
        key = cell("x", self.sides.key_number)
        columns = [self._hashable(number) for number in range(len(self.sides.produced))]
        # What no target row is: in quarantine, without a key, with a value that a rule cannot carry any more.
        flags: list[Sql] = [sql.SQL("false")] * (2 + len(self.sides.hidden))
        if self.source:
            flags = [sql.SQL("x.held IS NOT NULL"), sql.SQL("{} IS NULL").format(key)]
            flags += [sql.Identifier("x", f"r{number}") for number in self.sides.hidden]
        row = sql.SQL("ROW({})").format(sql.SQL(", ").join([*columns, *flags]))
        # With the key's hash as its seed, so that values which two rows of a bucket exchange do not cancel out.
        hashed = sql.SQL("hash_record_extended({}, {})").format(row, place(self.sides, "x"))
        return sql.SQL(
            "SELECT {place} AS place, {key}::text AS target_key, {source_key} AS source_key, {hash} AS hash"
            " FROM {relation} AS x WHERE {scope} AND {others}"
        ).format(
            place=place(self.sides, "x"),
            key=key,
            source_key=sql.SQL("x.key::text" if self.source else "NULL::text"),
            hash=hashed,
            relation=relation,
            scope=self.scope,
            others=self._others(),
        )

    def _hashable(self, number: int) -> Sql:
        """A column in a form whose hash has all 64 bits of it, the same for values that are exactly equal."""
        form = _FORMS.get(self.sides.binding.mapping.target.columns[self.sides.produced[number]].type.name, "{}")
        return sql.SQL(form).format(
            sql.SQL("{}::{}").format(cell("x", number), self.sides.type_of(number)),
        )

    def _others(self) -> Sql:
        """Not one of the rows that are left out; a hashed look-up, which <> ALL is from PostgreSQL 15 on only."""
        if not self.without:
            return EVERY
        key, kind = sql.Identifier("x", "key"), self.sides.source_key_type
        if not self.source:
            key, kind = sql.Identifier("x", f"c{self.sides.key_number}"), self.sides.target_key_type
        return sql.SQL("{} NOT IN (SELECT unnest({}::{}[]))").format(key, parameter(2, sql.SQL("text[]")), kind)


def place(sides: Sides, alias: str) -> Sql:
    """The hash of a row's target key, the same on both sides."""
    return sql.SQL("hash_record_extended(ROW({}::{}), 0)").format(
        cell(alias, sides.key_number), sides.type_of(sides.key_number)
    )


def _only(part: Range) -> Sql:
    """Without the rows of tables that inherit from it, which have block numbers of their own."""
    return sql.SQL("ONLY {}").format(part.table.identifier)


def of_note(sides: Sides, *, links: bool) -> sql.Composed:
    """Legacy rows that are in quarantine and, with ``links``, those whose target keys are in ``$3``, an array of text.

    Rows: ``source_key, target_key``, at most ``$2``. ``$1`` is that of ``Sides``.
    """
    statement = sql.SQL("SELECT o.key::text, {key}::text FROM {held} AS o WHERE o.held IS NOT NULL").format(
        key=cell("o", sides.key_number),
        held=sides.old(
            sql.SQL("s.{} IN (SELECT source_key::{} FROM ({}) AS x)").format(
                sql.Identifier(sides.binding.mapping.key), sides.source_key_type, sides.quarantined
            )
        ),
    )
    if links:
        statement += sql.SQL(
            " UNION ALL SELECT o.key::text, {key}::text FROM {old} AS o"
            " WHERE o.held IS NULL AND {key} = ANY({keys}::{type}[])"
        ).format(
            key=cell("o", sides.key_number),
            old=sides.old(),
            keys=parameter(3, sql.SQL("text[]")),
            type=sides.target_key_type,
        )
    return statement + sql.SQL(" LIMIT {}").format(parameter(2, sql.SQL("bigint")))
