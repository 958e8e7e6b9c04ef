"""What is to be known of some legacy rows before they are written to the target: one pass over them, in the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import LiteralString

from psycopg import sql

from spine_migrate.carry.scope import Keys, Parameters
from spine_migrate.carry.statements import Statement, Statements
from spine_migrate.mapping.emit.capture import IDENTICAL
from spine_migrate.mapping.emit.sql import is_ours, key
from spine_migrate.mapping.transforms.base import Sql

# Each is a bit, so that rows of which the same is to be said come back as one array.
_REFUSED, _OURS, _TAKEN, _LINKS, _NOTED, _HELD, _WAITS = (1 << number for number in range(7))


@dataclass
class Seen:
    """Keys of the rows that are there, and those of them that

    the rules have ``refused``; are on the target as ``ours``, or whose key is ``taken`` there by another's row; have
    ``links`` to rows that are not there yet; have links ``noted`` in the ledger; are ``held`` in quarantine; are on
    record as ``waiting``.
    """

    here: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    ours: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    noted: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)

    def add(self, found: Iterable[tuple[int, list[str]]]) -> None:
        """``found``: rows of ``look``."""
        for bits, keys in found:
            self.here += keys
            for bit, part in (
                (_REFUSED, self.refused),
                (_OURS, self.ours),
                (_TAKEN, self.taken),
                (_LINKS, self.links),
                (_NOTED, self.noted),
                (_HELD, self.held),
                (_WAITS, self.waiting),
            ):
                if bits & bit:
                    part.update(keys)


def look(statements: Statements, scope: Keys, migration_id: int, capture_id: int) -> Statement:
    """Rows: bits, the keys (text) that they are said of. Of what the rules refuse nothing more is computed."""
    binding, parameters = statements.binding, Parameters()
    target_key = sql.Identifier(binding.mapping.target.key)
    there = sql.Identifier("t", binding.mapping.target.key)
    migration, capture = parameters.add(migration_id, "bigint"), parameters.add(capture_id, "bigint")
    bits: list[Sql] = [
        _bit(_REFUSED, sql.SQL("j.refused")),
        sql.SQL("CASE WHEN t.{} IS NULL THEN 0 WHEN {} THEN {} ELSE {} END").format(
            target_key, is_ours(binding, "t"), _literal(_OURS), _literal(_TAKEN)
        ),
        _bit(_HELD, _recorded("quarantine", ("migration_id", "source_key"), migration, _own(scope))),
        _bit(_WAITS, _recorded("pending", ("capture_id", "row_key"), capture, _own(scope))),
    ]
    if statements.links:
        bits.append(_bit(_LINKS, _leads_nowhere(statements)))
        bits.append(_bit(_NOTED, _recorded("link", ("migration_id", "target_key"), migration, there)))
    query = sql.SQL(
        "SELECT x.bits, array_agg(x.key) FROM (SELECT {own}::text AS key, {bits} AS bits FROM {source}"
        # Not pulled up: the rules are evaluated once, and nothing is computed of what they refuse.
        " CROSS JOIN LATERAL (SELECT {reason} IS NOT NULL AS refused OFFSET 0) AS j"
        " LEFT JOIN {target} AS t ON t.{target_key} = CASE WHEN NOT j.refused THEN {forward_key} END"
        " WHERE {rows}) AS x GROUP BY x.bits"
    ).format(
        own=_own(scope),
        bits=sql.SQL(" | ").join(bits),
        source=scope.table("s"),
        reason=statements.reason(orphans=False),
        target=binding.target.identifier,
        target_key=target_key,
        forward_key=key(binding, "s"),
        rows=scope.condition("s", parameters),
    )
    return query, parameters.values


def absent(scope: Keys) -> Statement:
    """Those of the keys that the legacy table has no row for. One that is only equal, as by a collation that does not
    tell A from a, is another key, which leads to another row.
    """
    parameters = Parameters()
    column = scope.binding.mapping.key
    spelled: Sql = sql.SQL("")
    if scope.binding.live[column].type not in IDENTICAL:
        spelled = sql.SQL(' AND {}::text COLLATE "C" = k.key COLLATE "C"').format(_own(scope))
    query = sql.SQL(
        "SELECT k.key FROM unnest({keys}) AS k (key)"
        " WHERE NOT EXISTS (SELECT FROM {source} WHERE {own} = k.key::{type}{spelled})"
    ).format(
        spelled=spelled,
        keys=parameters.add(scope.keys, "text[]"),
        source=scope.table("s"),
        own=_own(scope),
        type=sql.SQL(scope.binding.live[column].sql_type),
    )
    return query, parameters.values


def _own(scope: Keys) -> sql.Identifier:
    return sql.Identifier("s", scope.binding.mapping.key)


def _literal(bit: int) -> Sql:
    return sql.SQL("{}").format(sql.Literal(bit))


def _bit(bit: int, condition: Sql) -> Sql:
    return sql.SQL("CASE WHEN {} THEN {} ELSE 0 END").format(condition, _literal(bit))


def _recorded(table: LiteralString, columns: tuple[LiteralString, LiteralString], number: Sql, key: Sql) -> Sql:
    """Whether a table of the ledger names a key. It is asked by its index, row by row, and only where it names any."""
    rows = sql.SQL("spine_migrate.{} AS r WHERE r.{} = {}").format(
        sql.Identifier(table), sql.Identifier(columns[0]), number
    )
    if table == "pending":
        rows += sql.SQL(" AND r.why = 'deferred'")
    return sql.SQL(
        "(SELECT EXISTS (SELECT FROM {rows}))"
        " AND (SELECT true FROM {rows} AND r.{column} = {key}::text LIMIT 1) IS NOT NULL"
    ).format(rows=rows, column=sql.Identifier(columns[1]), key=key)


def _leads_nowhere(statements: Statements) -> Sql:
    """Whether a link's row is not on the target; the columns are asked first, most rows have none."""
    binding = statements.binding
    conditions = [
        sql.SQL("{column} IS NOT NULL AND (SELECT true FROM {target} AS r WHERE r.{key} = {value}) IS NULL").format(
            column=sql.Identifier("s", str(link.column)),
            target=binding.target.identifier,
            key=sql.Identifier(binding.mapping.target.key),
            value=statements.columns[name],
        )
        for name, link in statements.links.items()
    ]
    return sql.SQL("NOT j.refused AND ({})").format(sql.SQL(" OR ").join(conditions))
