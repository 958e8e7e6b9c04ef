"""The triggers that capture changes: they append the key of each row that was written, and nothing else.

A key is all that is kept, so that the order of the log does not matter: whoever applies it reads the row as it is then.
Statement-level triggers with transition tables write once for a statement; where the table does not allow that, row
triggers do the same. A key that an UPDATE takes away is logged by a row trigger in both styles, which costs nothing
where keys do not change: its WHEN condition is all that is evaluated (PostgreSQL manual, CREATE TRIGGER).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Name

LEDGER = "spine_migrate"
_ALL, _LEFT = sql.SQL("VALUES ({id}, NULL)"), sql.SQL("VALUES ({id}, OLD.{key})")


@dataclass(frozen=True)
class Capture:
    """What one capture installs. ``key`` is the column whose value as text is logged; ``by_row``: row triggers only."""

    capture_id: int
    key: str
    by_row: bool

    @property
    def function(self) -> Name:
        return Name(LEDGER, f"capture_{self.capture_id}")

    def trigger(self, event: str) -> str:
        return f"spine_capture_{self.capture_id}_{event}"

    def create_function(self) -> sql.Composed:
        """With its owner's rights: the application's roles need none on the log (PostgreSQL manual, CREATE FUNCTION,
        "Writing SECURITY DEFINER Functions Safely").
        """
        body = self._of_rows() if self.by_row else self._of_statements()
        return sql.SQL(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
            " SET search_path = pg_catalog, pg_temp AS {body}"
        ).format(name=self.function.identifier, body=sql.Literal(body.as_string(None)))

    def revoke(self) -> sql.Composed:
        return sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(self.function.identifier)

    def drop_function(self) -> sql.Composed:
        return sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self.function.identifier)

    def _of_statements(self) -> sql.Composed:
        return sql.SQL(
            "BEGIN IF TG_OP = 'TRUNCATE' THEN {truncated};"
            " ELSIF TG_LEVEL = 'ROW' THEN {left};"
            " ELSIF TG_OP = 'DELETE' THEN {deleted}; ELSE {written}; END IF; RETURN NULL; END"
        ).format(
            truncated=self._log(_ALL),
            left=self._log(_LEFT),
            deleted=self._log(sql.SQL("SELECT {id}, spine_old.{key} FROM spine_old")),
            written=self._log(sql.SQL("SELECT {id}, spine_new.{key} FROM spine_new")),
        )

    def _of_rows(self) -> sql.Composed:
        return sql.SQL(
            "BEGIN IF TG_OP = 'TRUNCATE' THEN {truncated}; RETURN NULL; END IF;"
            " IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.{key} IS DISTINCT FROM NEW.{key} THEN {left}; END IF;"
            " IF TG_OP <> 'DELETE' THEN {written}; END IF; RETURN NULL; END"
        ).format(
            key=sql.Identifier(self.key),
            truncated=self._log(_ALL),
            left=self._log(_LEFT),
            written=self._log(sql.SQL("VALUES ({id}, NEW.{key})")),
        )

    def _log(self, source: sql.SQL) -> sql.Composed:
        values = source.format(
            id=sql.Literal(self.capture_id), key=sql.SQL("{}::text").format(sql.Identifier(self.key))
        )
        return sql.SQL("INSERT INTO spine_migrate.change_log (capture_id, row_key) {}").format(values)

    def triggers(self, table: Name, *, partition: bool = False) -> Iterator[sql.Composed]:
        """The triggers of one table, which fire whatever ``session_replication_role`` is. A partition has its row
        triggers from its parent, also one that is made later; those for TRUNCATE it has not.
        """
        for event, clause in self._events(partition=partition):
            name = sql.Identifier(self.trigger(event))
            yield sql.SQL("CREATE TRIGGER {name} AFTER {clause} EXECUTE FUNCTION {function}()").format(
                name=name,
                clause=clause.format(table=table.identifier, key=sql.Identifier(self.key)),
                function=self.function.identifier,
            )
            yield sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table.identifier, name)

    def _events(self, *, partition: bool) -> Iterator[tuple[str, sql.SQL]]:
        if not self.by_row:
            yield "insert", sql.SQL("INSERT ON {table} REFERENCING NEW TABLE AS spine_new FOR EACH STATEMENT")
            yield "update", sql.SQL("UPDATE ON {table} REFERENCING NEW TABLE AS spine_new FOR EACH STATEMENT")
            yield "delete", sql.SQL("DELETE ON {table} REFERENCING OLD TABLE AS spine_old FOR EACH STATEMENT")
            yield "key", sql.SQL("UPDATE ON {table} FOR EACH ROW WHEN (OLD.{key} IS DISTINCT FROM NEW.{key})")
        elif not partition:
            yield "row", sql.SQL("INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW")
        yield "truncate", sql.SQL("TRUNCATE ON {table} FOR EACH STATEMENT")
