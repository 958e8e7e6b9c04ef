"""The runs of a database as the commands about them open it, without an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from spine_migrate.cli.options import target_option, target_schema_option

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

    from spine_migrate.db.catalog import Relation
    from spine_migrate.db.connect import Connection
    from spine_migrate.execution.core import SyncDispatcher
    from spine_migrate.execution.runs import RunRecord, RunStatus

Command = TypeVar("Command", bound=Callable[..., Any])

# As spine_migrate.execution has them; it is not imported for a --help, and a test compares them.
KINDS = ("task", "pipeline", "workflow", "step")
STATUSES = ("pending", "queued", "running", "completed", "failed", "cancelled", "dead_lettered")
FINAL = ("completed", "failed", "cancelled", "dead_lettered")


def place_options(command: Command) -> Command:
    """``target: str | None`` and ``target_schema: str | None``."""
    return target_option(target_schema_option(command))


def found_runs(connection: Connection, target_schema: str | None) -> Relation:
    """The table. Without a schema, ``db upgrade`` knows where it put it. Raises Refused (``table-missing``)."""
    from spine_migrate.db import catalog, version_table
    from spine_migrate.errors import Refused

    schema = target_schema or version_table.recorded_target(connection)
    try:
        catalog.find(connection, "run_handoff", schema)
        return catalog.find(connection, "runs", schema)
    except Refused as error:
        if error.precondition != "table-missing":
            raise
        raise Refused(error.precondition, f"{error.sentence} Run spine-migrate db upgrade first.") from error


@contextmanager
def opened(target: str | None, target_schema: str | None) -> Iterator[SyncDispatcher]:
    """A dispatcher over the ledger, for as long as the block lasts. It publishes nothing: that is the relay's."""
    from spine_migrate.db.connect import connect
    from spine_migrate.errors import ServerFault
    from spine_migrate.execution.core import SyncDispatcher
    from spine_migrate.execution.errors import BackendError
    from spine_migrate.execution.ledgers.postgres import PostgresLedger

    with connect(target) as connection:
        schema = found_runs(connection, target_schema).name.schema
        ledger = PostgresLedger(cast("ConnectionPool[Any]", _OneConnection(connection)), schema)
        try:
            yield SyncDispatcher(_Nowhere(), ledger, publish=False)
        except BackendError as error:
            raise ServerFault(f"{error.sentence} What was committed stays.") from error


@dataclass(frozen=True)
class _OneConnection:
    """As much of a pool as the ledger uses, which ends each transaction that it begins."""

    _connection: Connection

    def getconn(self) -> Connection:
        return self._connection

    def putconn(self, lent: Connection) -> None:
        """It stays open for the next one."""


class _Nowhere:
    """What carries nothing anywhere; the relay does."""

    name = "spine-migrate"

    def submit(self, run: RunRecord) -> str:
        raise AssertionError(run.run_id)

    def cancel(self, external_ref: str) -> bool:  # noqa: ARG002 - the message stays, and finds the run cancelled
        return False

    def get_status(self, external_ref: str) -> RunStatus | None:  # noqa: ARG002 - nothing is known here
        return None
