"""The triggers that capture changes: they append the key of each row that was written, and nothing else.

A key is all that is kept, so that the order of the log does not matter: whoever applies it reads the row as it is then.
Statement-level triggers with transition tables write once for a statement; where the table does not allow that, row
triggers do the same. A key that an UPDATE takes away is logged by a row trigger in both styles, which costs nothing
where keys do not change: its WHEN condition is all that is evaluated (PostgreSQL manual, CREATE TRIGGER).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import SETTINGS
from spine_migrate.mapping.transforms.base import Sql

LEDGER = "spine_migrate"
# Types in which what is equal looks the same: 1.0 and 1.00 do not, nor A and a where a collation does not tell them.
IDENTICAL = frozenset({"uuid", "smallint", "integer", "bigint"})
# Types whose text is the same in every session. A key of another is written as the applier's session writes it,
# whatever the application has set; each setting costs its writes a little.
PLAIN = "text"
_PLAIN = {"uuid", "smallint", "integer", "bigint", "numeric", PLAIN, "character varying", "character"}
_SPELLING = ("TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output")


@dataclass(frozen=True)
class Key:
    """What is logged of a row: ``of`` a row variable or an alias, as text. ``changes``: whether an UPDATE from OLD to
    NEW may take a row's key away; ``total``: every row has one, else those without one are not logged. ``name``: the
    column that it is; None where it is worked out, to a text that is the same in every session.
    """

    of: Callable[[str], Sql]
    changes: Sql
    total: bool
    name: str | None = None

    @classmethod
    def column(cls, name: str) -> Key:
        changes = sql.SQL("{} IS DISTINCT FROM {}").format(sql.Identifier("old", name), sql.Identifier("new", name))
        return cls(
            lambda alias: sql.SQL("{}::text").format(sql.Identifier(alias, name)), changes, total=True, name=name
        )


@dataclass(frozen=True)
class Installed:
    """What one capture has on the server, by name. ``by_row``: row triggers only."""

    capture_id: int
    by_row: bool

    @property
    def function(self) -> Name:
        return Name(LEDGER, f"capture_{self.capture_id}")

    @property
    def events(self) -> tuple[str, ...]:
        """Each has a trigger."""
        return ("row", "truncate") if self.by_row else ("insert", "update", "delete", "key", "truncate")

    def trigger(self, event: str) -> str:
        return f"spine_capture_{self.capture_id}_{event}"

    def drop_function(self) -> sql.Composed:
        return sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self.function.identifier)


@dataclass(frozen=True)
class Capture(Installed):
    """What one capture installs. ``key_type`` as format_type prints it without its length."""

    key: Key
    key_type: str = PLAIN

    def create_function(self) -> sql.Composed:
        """With its owner's rights: the application's roles need none on the log (PostgreSQL manual, CREATE FUNCTION,
        "Writing SECURITY DEFINER Functions Safely").
        """
        body = self._of_rows() if self.by_row else self._of_statements()
        return sql.SQL(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
            " SET search_path = pg_catalog, pg_temp{spelling} AS {body}"
        ).format(
            name=self.function.identifier,
            spelling=sql.SQL("").join(
                sql.SQL(" SET {} = {}").format(sql.Identifier(name), sql.Literal(SETTINGS[name]))
                for name in (() if self.key_type in _PLAIN else _SPELLING)
            ),
            body=sql.Literal(body.as_string(None)),
        )

    def note(self, tables: Mapping[int, str]) -> sql.Composed:
        """Which tables it is made for, by their oids: one that is dropped leaves nothing else behind."""
        return sql.SQL("COMMENT ON FUNCTION {}() IS {}").format(
            self.function.identifier, sql.Literal(json.dumps(tables))
        )

    def revoke(self) -> sql.Composed:
        return sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(self.function.identifier)

    def _of_statements(self) -> sql.Composed:
        return sql.SQL(
            "BEGIN IF TG_OP = 'TRUNCATE' THEN {truncated};"
            " ELSIF TG_LEVEL = 'ROW' THEN {left};"
            " ELSIF TG_OP = 'DELETE' THEN {deleted}; ELSE {written}; END IF; RETURN NULL; END"
        ).format(
            truncated=self._everything(),
            left=self._of_variable("old"),
            deleted=self._of_table("spine_old"),
            written=self._of_table("spine_new"),
        )

    def _of_rows(self) -> sql.Composed:
        return sql.SQL(
            "BEGIN IF TG_OP = 'TRUNCATE' THEN {truncated}; RETURN NULL; END IF;"
            " IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND ({changes}) THEN {left}; END IF;"
            " IF TG_OP <> 'DELETE' THEN {written}; END IF; RETURN NULL; END"
        ).format(
            changes=self._changes,
            truncated=self._everything(),
            left=self._of_variable("old"),
            written=self._of_variable("new"),
        )

    @property
    def _changes(self) -> Sql:
        """A key goes by how it is spelled."""
        if self.key.name is None or self.key_type in IDENTICAL:
            return self.key.changes
        # A cast, since ROW(...) *<> ROW(...) would compare part by part, which scalars have no such operator for.
        return sql.SQL("ROW({})::record *<> ROW({})::record").format(
            sql.Identifier("old", self.key.name), sql.Identifier("new", self.key.name)
        )

    def _everything(self) -> Sql:
        return self._log(sql.SQL("NULL"), None)

    def _of_variable(self, row: str) -> Sql:
        if self.key.total:
            return self._log(self.key.of(row), None)
        return self._if_any(sql.SQL("(SELECT {} AS key)").format(self.key.of(row)))

    def _of_table(self, table: str) -> Sql:
        if self.key.total:
            return self._log(self.key.of(table), sql.Identifier(table))
        # OFFSET keeps the key from being worked out twice, in the condition and for the log.
        rows = sql.SQL("(SELECT {} AS key FROM {} OFFSET 0)").format(self.key.of(table), sql.Identifier(table))
        return self._if_any(rows)

    def _if_any(self, keys: Sql) -> Sql:
        return self._log(sql.SQL("g.key"), sql.SQL("{} AS g WHERE g.key IS NOT NULL").format(keys))

    def _log(self, key: Sql, rows: Sql | None) -> Sql:
        chosen = sql.SQL("SELECT {}, {}").format(sql.Literal(self.capture_id), key)
        if rows is not None:
            chosen = sql.SQL("{} FROM {}").format(chosen, rows)
        return sql.SQL("INSERT INTO spine_migrate.change_log (capture_id, row_key) {}").format(chosen)

    def triggers(self, table: Name, *, partition: bool = False) -> Iterator[sql.Composed]:
        """The triggers of one table, which fire whatever ``session_replication_role`` is. A partition has its row
        triggers from its parent, also one that is made later; those for TRUNCATE it has not.
        """
        for event in self.events:
            if partition and event == "row":
                continue
            name = sql.Identifier(self.trigger(event))
            yield sql.SQL("CREATE TRIGGER {name} AFTER {clause} EXECUTE FUNCTION {function}()").format(
                name=name, clause=self._clause(event, table), function=self.function.identifier
            )
            yield sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table.identifier, name)

    def _clause(self, event: str, table: Name) -> Sql:
        return _CLAUSES[event].format(table=table.identifier, changes=self._changes)


_CLAUSES = {
    "insert": sql.SQL("INSERT ON {table} REFERENCING NEW TABLE AS spine_new FOR EACH STATEMENT"),
    "update": sql.SQL("UPDATE ON {table} REFERENCING NEW TABLE AS spine_new FOR EACH STATEMENT"),
    "delete": sql.SQL("DELETE ON {table} REFERENCING OLD TABLE AS spine_old FOR EACH STATEMENT"),
    "key": sql.SQL("UPDATE ON {table} FOR EACH ROW WHEN ({changes})"),
    "row": sql.SQL("INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW"),
    "truncate": sql.SQL("TRUNCATE ON {table} FOR EACH STATEMENT"),
}
