"""The SQL of a certificate: one SHA-256 per bucket of keys, of either side of a comparison.

A row's leaf is the SHA-256 of its text, ``ROW(…)::text``, in UTF-8. A row is in the bucket that the first byte of the
SHA-256 of its target key's text names. A bucket's digest is the SHA-256 of its leaves, one after the other in the order
of their bytes: the leaf holds the key, so the order of keys would add nothing but longer rows to sort. sha256() is
part of the server (11 and later) and works under FIPS; nothing here depends on where a row lies.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.mapping.emit.chosen import parameter
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.mapping.emit.sides import common
from spine_migrate.mapping.transforms.base import Sql

BUCKETS = 256

# A number with zeros at the end of its fraction, before whatever ends a value in a row's text: equal by value to one
# without them. What only looks like it, inside a string, costs time and is left as it is.
_MAY_HAVE_ZEROS = r"\.[0-9]*0[]},)]"
# Strings are matched whole so that nothing is matched inside them; jsonb writes no exponents (PostgreSQL manual, 8.14).
_ZEROS = r"""("(?:[^"\\]|\\.)*")|(\.[0-9]*[1-9])0+(?=[]},]|$)|\.0+(?=[]},]|$)"""


@dataclass(frozen=True)
class Leaves:
    """``$1`` is the migration in both statements. Rows: ``bucket, rows, digest`` (bytea), empty buckets left out.

    Where the parity is exact, each value is taken as it is spelled; otherwise numbers that are equal by value have one
    text, so that sides which are equal under IS DISTINCT FROM have equal digests.
    """

    parity: Parity

    def old(self) -> sql.Composed:
        """The legacy rows carried forward, those in quarantine left out; links that the ledger records as open are
        NULL, as they must be on the target.
        """
        links = {check.name: number for number, check in enumerate(self.parity.links)}
        columns: list[Sql] = [
            sql.SQL("CASE WHEN {} IS NULL THEN {} END").format(sql.Identifier(f"l{links[name]}", "wanted"), column)
            if name in links
            else column
            for name, column in zip(self.parity.produced, self._columns("o"), strict=True)
        ]
        joins = [
            sql.SQL(
                " LEFT JOIN (SELECT target_key, wanted FROM spine_migrate.link"
                " WHERE migration_id = $1 AND field = {name}) AS {l}"
                " ON {l}.target_key = {key}::text AND {l}.wanted = {link}::text"
            ).format(
                name=sql.Literal(name),
                l=sql.Identifier(f"l{number}"),
                key=sql.Identifier("o", f"c{self.parity.key_number}"),
                link=sql.Identifier("o", f"c{self.parity.produced.index(name)}"),
            )
            for name, number in links.items()
        ]
        rows = sql.SQL("{} AS o{} WHERE {}").format(
            self.parity.old(), sql.SQL("").join(joins), common(sql.SQL("o.held IS NULL"))
        )
        return self._digests(columns, rows)

    def new(self) -> sql.Composed:
        """The target rows with the mapping's mark."""
        rows = sql.SQL("{} AS n").format(
            self.parity.new(sql.SQL("{} IS NOT NULL").format(parameter(1, sql.SQL("bigint"))), most=True)
        )
        return self._digests(self._columns("n"), rows)

    def _columns(self, side: str) -> list[Sql]:
        return [sql.Identifier(side, f"c{number}") for number in range(len(self.parity.produced))]

    def _digests(self, columns: list[Sql], rows: Sql) -> sql.Composed:
        """OFFSET keeps the planner from writing an expression out wherever its value is used. In quotes the 0 is a
        bigint from the start, of which the planner sees that it limits nothing, so that workers hash and sort.
        """
        named = [
            sql.SQL("{} AS {}").format(column, sql.Identifier(f"c{number}")) for number, column in enumerate(columns)
        ]
        return sql.SQL(
            "SELECT bucket, count(*) AS rows, sha256(string_agg(leaf, ''::bytea ORDER BY leaf)) AS digest FROM ("
            "SELECT get_byte(sha256(convert_to({key}::text, 'UTF8')), 0) AS bucket,"
            " sha256(convert_to({text}, 'UTF8')) AS leaf FROM ("
            "SELECT x.*, ROW({values})::text AS line FROM (SELECT {named} FROM {rows} OFFSET '0') AS x OFFSET '0'"
            ") AS x OFFSET '0') AS leaves GROUP BY bucket ORDER BY bucket"
        ).format(
            key=sql.Identifier("x", f"c{self.parity.key_number}"),
            text=self._text(),
            values=sql.SQL(", ").join(self._columns("x")),
            named=sql.SQL(", ").join(named),
            rows=rows,
        )

    def _text(self) -> Sql:
        line = sql.Identifier("x", "line")
        if self.parity.exact:
            return line
        columns = self.parity.binding.mapping.target.columns
        values = [
            plain(column, columns[name].type.name)
            for name, column in zip(self.parity.produced, self._columns("x"), strict=True)
        ]
        return sql.SQL("CASE WHEN {} THEN ROW({})::text ELSE {} END").format(
            may_have_zeros(line), sql.SQL(", ").join(values), line
        )


def may_have_zeros(line: Sql) -> Sql:
    """Whether ``plain`` could change one of the values of a row's text; false says that it changes none."""
    return sql.SQL("{} ~ {}").format(line, sql.Literal(_MAY_HAVE_ZEROS))


def plain(value: Sql, kind: str) -> Sql:
    """A value of a logical type with one spelling for numbers that are equal; jsonb comes as its text."""
    if kind == "numeric":
        return sql.SQL("trim_scale({})").format(value)
    if kind == "jsonb":
        return sql.SQL("regexp_replace({}::text, {}, {}, 'g')").format(value, sql.Literal(_ZEROS), sql.Literal(r"\1\2"))
    return value
