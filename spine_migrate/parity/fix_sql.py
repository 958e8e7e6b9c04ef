"""The statements that would repair what a comparison has found, as a script to be read before it is run.

Each names the values that were compared, on both sides, so that a row which was written since is passed over. What the
ledger counts is set right at the end. ``spine-migrate repair`` does the same in batches, and tells what it left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from spine_migrate import __version__
from spine_migrate.db import catalog
from spine_migrate.db.connect import PINNED, SETTINGS, Connection
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.repair import Repairs, repairs
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.load import load
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.parity.model import Comparison, Report

# What decides what the expressions mean, and how the file's bytes are read; see db.connect.
_NAMES = ("client_encoding", "TimeZone", "DateStyle", "extra_float_digits", "row_security", "lock_timeout")
_SET = {name: SETTINGS[name] for name in _NAMES}


def write(connection: Connection, report: Report, file: Path) -> None:
    """Write the script for every migration that is done and was compared, in the comparison's snapshot. Reads only."""
    found = [_Script(connection, one) for one in report.comparisons if one.counts is not None and one.step == "done"]
    found.sort(key=lambda one: one.repairs.binding.mapping.required is not None)
    with file.open("w", encoding="utf-8") as out:
        for line in _lines(connection, report, found):
            out.write(f"{line}\n")


def _lines(connection: Connection, report: Report, found: list[_Script]) -> Iterator[str]:
    yield f"-- What would repair the database {_comment(report.snapshot.database)}, compared by spine-migrate"
    yield f"-- {report.tool_version} in the snapshot {report.snapshot.snapshot}. What was written since is passed over."
    yield "-- Nothing has been executed: read it, run it with psql -f, and compare again."
    yield "\\set ON_ERROR_STOP on"
    yield "BEGIN;"
    for name, value in _SET.items():
        yield _text(connection, sql.SQL("SET LOCAL {} = {};").format(sql.Identifier(name), sql.Literal(value)))
    # No list of schemas fits into one literal of SET.
    path = sql.SQL("SELECT set_config('search_path', {}, true);").format(sql.Literal(PINNED["search_path"]))
    yield _text(connection, path)
    for one in found:
        yield from one.begin()
    for one in found:
        yield from one.rows("missing", "differing", "doubled")
    for one in reversed(found):
        yield from one.rows("extra")
    for one in found:
        yield from one.end()
    yield "COMMIT;"


def _comment(text: object) -> str:
    """Nothing that could end a comment's line."""
    return " ".join(str(text).split())


def _text(connection: Connection, statement: sql.Composed) -> str:
    return statement.as_string(connection)


@dataclass
class _Script:
    connection: Connection
    one: Comparison

    def __post_init__(self) -> None:
        mapping = load(str(self.one.path))
        source = catalog.named(self.connection, str(self.one.source_table))
        target = catalog.named(self.connection, str(self.one.target_table))
        self.repairs: Repairs = repairs(bind(mapping, source, target), target.columns)
        self.view = sql.Identifier("pg_temp", f"spine_fix_{self.one.migration_id}")
        self.key = sql.Identifier(mapping.target.key)
        self.touched: list[str] = []

    def _render(self, template: LiteralString, **parts: Sql) -> str:
        common = {
            "target": self.repairs.binding.target.identifier,
            "view": self.view,
            "key": self.key,
            "ours": self.repairs.ours("t"),
            "id": sql.Literal(self.one.migration_id),
        }
        return _text(self.connection, sql.SQL(template).format(**{**common, **parts}))

    def begin(self) -> Iterator[str]:
        """Keep the tool away, and give what each legacy row should become a name."""
        binding = self.repairs.binding
        lock = f"{binding.mapping.name}|{binding.source}|{binding.target}"
        yield f"\n-- {binding.mapping.name}; fails (division by zero) while a command of the tool is at work on it"
        yield self._render(
            "SELECT 1 / pg_try_advisory_xact_lock(hashtextextended({lock}, 7741))::int AS locked;",
            lock=sql.Literal(lock),
        )
        columns = sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for name, value in forward(binding, "s").items()
        )
        yield self._render(
            "CREATE TEMPORARY VIEW {name} AS SELECT s.{source_key} AS spine_key, {columns} FROM {source} AS s;",
            name=sql.Identifier(f"spine_fix_{self.one.migration_id}"),
            source_key=sql.Identifier(binding.mapping.key),
            columns=columns,
            source=binding.source.identifier,
        )

    def rows(self, *kinds: str) -> Iterator[str]:
        """A statement for each row of these kinds, or a comment where there is none."""
        cursor: psycopg.RawCursor[dict[str, Any]] = psycopg.RawCursor(self.connection, row_factory=dict_row)
        for row in cursor.stream(self.repairs.in_full(), (self.one.migration_id,)):
            if row["kind"] in kinds:
                about = _comment(row["source_key"] if row["source_key"] is not None else f"target {row['target_key']}")
                yield f"\n-- {row['kind']}: {about} {', '.join(row['fields'] if row['kind'] == 'differing' else ())}"
                yield self._statement(row)

    def _statement(self, row: dict[str, Any]) -> str:
        if row["kind"] == "doubled":
            return "-- left: it is in quarantine, and on the target as well; which is right only you can tell"
        if row["reason"] is not None:
            return (
                f"-- left: a rule does not carry the legacy row ({row['reason']}); spine-migrate repair would say more"
            )
        if row["kind"] == "extra":
            return self._render(
                "DELETE FROM {target} AS t WHERE t.{key} = {value}::{type} AND {ours} AND to_jsonb(t) = {whole}::jsonb"
                " AND NOT EXISTS (SELECT FROM {view} AS v WHERE v.{key} = t.{key});",
                value=sql.Literal(row["target_key"]),
                type=self.repairs.target_key_type,
                whole=sql.Literal(row["whole"]),
            )
        self.touched.append(row["source_key"])
        return self._insert(row) if row["kind"] == "missing" else self._update(row)

    def _insert(self, row: dict[str, Any]) -> str:
        names = self.repairs.produced
        return self._render(
            "INSERT INTO {target} ({names}) SELECT {values} FROM {view} AS v WHERE v.spine_key = {source_key}::{type}"
            " AND NOT EXISTS (SELECT FROM {target} AS t WHERE t.{key} = v.{key}) AND NOT EXISTS (SELECT FROM"
            " spine_migrate.quarantine AS q WHERE q.migration_id = {id} AND q.source_key = {source_key}::text);",
            names=sql.SQL(", ").join(map(sql.Identifier, names)),
            values=sql.SQL(", ").join(map(self._value, names)),
            source_key=sql.Literal(row["source_key"]),
            type=self.repairs.source_key_type,
        )

    def _update(self, row: dict[str, Any]) -> str:
        guards = []
        for name in row["fields"]:
            number = self.repairs.produced.index(name)
            for side, value in (("t", row["new"][number]), ("v", row["old"][number])):
                guards.append(
                    sql.SQL("{} IS NOT DISTINCT FROM {}::{}").format(
                        self.repairs.comparable(name, sql.Identifier(side, name)),
                        sql.Literal(value),
                        self.repairs.type_of(number),
                    )
                )
        return self._render(
            "UPDATE {target} AS t SET {sets} FROM {view} AS v WHERE v.spine_key = {source_key}::{type}"
            " AND t.{key} = v.{key} AND {ours} AND {guards};",
            sets=sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), self._value(name)) for name in row["fields"]
            ),
            source_key=sql.Literal(row["source_key"]),
            type=self.repairs.source_key_type,
            guards=sql.SQL(" AND ").join(guards),
        )

    def _value(self, name: str) -> Sql:
        """Of a link to a row that is not on the target, NULL."""
        value = sql.Identifier("v", name)
        if name not in {check.name for check in self.repairs.links}:
            return value
        return sql.SQL("CASE WHEN EXISTS (SELECT FROM {} AS r WHERE r.{} = {}) THEN {} END").format(
            self.repairs.binding.target.identifier, self.key, value, value
        )

    def end(self) -> Iterator[str]:
        """What the ledger knows of links and counts, and who did it."""
        yield f"\n-- {self.one.mapping}: the ledger"
        for check in self.repairs.links if self.touched else []:
            parts: dict[str, Sql] = {
                "name": sql.Literal(check.name),
                "link": sql.Identifier("v", check.name),
                "there": sql.Identifier("t", check.name),
                "touched": sql.Literal(self.touched),
                "type": self.repairs.source_key_type,
            }
            yield self._render(
                "DELETE FROM spine_migrate.link AS l USING {view} AS v, {target} AS t WHERE l.migration_id = {id}"
                " AND l.field = {name} AND l.target_key = t.{key}::text AND t.{key} = v.{key}"
                " AND v.spine_key = ANY({touched}::text[]::{type}[]) AND {there} IS NOT DISTINCT FROM {link};",
                **parts,
            )
            yield self._render(
                "INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted)"
                " SELECT {id}, t.{key}::text, {name}, {link}::text FROM {view} AS v JOIN {target} AS t"
                " ON t.{key} = v.{key} WHERE v.spine_key = ANY({touched}::text[]::{type}[]) AND {there} IS NULL"
                " AND {link} IS NOT NULL AND {ours}"
                " ON CONFLICT (migration_id, target_key, field) DO UPDATE SET wanted = EXCLUDED.wanted;",
                **parts,
            )
        yield self._render(
            "UPDATE spine_migrate.checkpoint SET rows_moved = rows_moved"
            " + (SELECT count(*) FROM {target} AS t WHERE {ours})"
            " - (SELECT sum(c.rows_moved + c.rows_adopted) FROM spine_migrate.checkpoint AS c"
            " WHERE c.migration_id = {id}) WHERE migration_id = {id} AND segment = -1;"
        )
        yield self._render(
            "INSERT INTO spine_migrate.audit (tool_version, migration_id, action)"
            " VALUES ({version}, {id}, 'repaired by script');",
            version=sql.Literal(__version__),
        )
