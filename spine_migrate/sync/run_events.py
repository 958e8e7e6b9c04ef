"""What the runtime has noted of a run whose legacy row is deleted.

The application deletes its row, and knows of no events. Through the view they go with it; where it deletes the legacy
row itself, as after a rollback, they would keep the run for good. So they go here too, and since no legacy table has
them they are kept as they were, in ``spine_migrate.set_aside`` under the key of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.carry.known import Known
from spine_migrate.carry.scope import Parameters
from spine_migrate.carry.statements import Statement
from spine_migrate.db import ledger
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.definition import definition
from spine_migrate.db.queries import query
from spine_migrate.db.runtime_tables import EVENTS, NO_ACTION, RESTRICT, pointing
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import is_ours
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class RunEvents:
    """``column`` points to the runs of ``binding``. ``moved``: mappings whose rows are in the table as well, and which
    see to those themselves.
    """

    binding: Binding
    table: Name
    column: str
    moved: tuple[Binding, ...]

    def set_aside(self, going: Callable[[Parameters], Sql], migration_id: int) -> Statement:
        """Those of runs of ours that go; ``going`` as ``Changes`` has it."""
        parameters = Parameters()
        statement = sql.SQL(
            "WITH led_to AS MATERIALIZED ({going}), ours AS MATERIALIZED ("
            "SELECT o.{key} AS target_key FROM {target} AS o"
            " WHERE o.{key} = ANY(ARRAY(SELECT target_key FROM led_to)) AND {ours}),"
            " taken AS (DELETE FROM {events} AS e"
            " WHERE e.{column} = ANY(ARRAY(SELECT target_key FROM ours)) AND NOT ({moved}) RETURNING e.*)"
            " INSERT INTO spine_migrate.set_aside (migration_id, target_key, before)"
            " SELECT {migration}, x.{column}::text, to_json(x.*) FROM taken AS x"
        ).format(
            going=going(parameters),
            key=sql.Identifier(self.binding.mapping.target.key),
            target=self.binding.target.identifier,
            ours=is_ours(self.binding, "o"),
            events=self.table.identifier,
            column=sql.Identifier(self.column),
            moved=sql.SQL(" OR ").join(
                [sql.SQL("false"), *(sql.SQL("coalesce({}, false)").format(is_ours(one, "e")) for one in self.moved)]
            ),
            migration=parameters.add(migration_id, "bigint"),
        )
        return statement, parameters.values


def run_events(connection: Connection, one: Known, others: Sequence[Known]) -> RunEvents | None:
    """None where there are none, where this role may not take them, or where a migration has rows among them whose
    mapping is not to be had: they keep the run, then.
    """
    target = definition(connection, one.tables.target.name, one.tables.target.oid)
    for key in pointing(target, EVENTS):
        moved = [other for other in others if other.tables.target.oid == key.oid]
        seen = {other.migration.migration_id for other in moved}
        unknown = any(
            migration.target_table == str(key.table) and migration.migration_id not in seen
            for migration in ledger.migrations(connection)
        )
        ((may,),) = connection.execute(query("capture", "may_set_aside"), {"oid": key.oid}).fetchall()
        if key.on_delete in (NO_ACTION, RESTRICT) and may and not unknown:
            bindings = tuple(other.tables.binding for other in moved)
            return RunEvents(one.tables.binding, key.table, key.columns[0], bindings)
    return None
