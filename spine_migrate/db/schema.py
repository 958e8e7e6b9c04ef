"""Install, remove and report the target tables and the ledger: Alembic's revisions, driven without Alembic's terminal.

Every call is one transaction under one lock: it is done as a whole or it changes nothing, and of two at once the second
finds the work done. The revisions themselves, and the environment they run in, are in ``alembic/`` (see
``spine_migrate.resources.alembic_dir``).
"""

from __future__ import annotations

import io
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
import tenacity
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from psycopg import sql

from alembic import command
from spine_migrate.db import faults, version_table
from spine_migrate.db.connect import connect
from spine_migrate.db.patience import attempts
from spine_migrate.db.queries import query
from spine_migrate.errors import ConfigurationError, Refused, SpineMigrateError
from spine_migrate.resources import alembic_dir

# What each revision creates and its downgrade drops; None is the target schema.
_TABLES: dict[str, tuple[tuple[str | None, str], ...]] = {
    "spine_0001": ((None, "runs"),),
    "spine_0002": ((None, "run_events"),),
    "spine_0003": tuple(
        (version_table.SCHEMA, table)
        for table in ("migration", "checkpoint", "quarantine", "link", "deferred_ddl", "audit")
    ),
    "spine_0004": ((None, "run_handoff"), (None, "run_guard")),
    "spine_0006": ((version_table.SCHEMA, "repair"),),
    "spine_0007": tuple((version_table.SCHEMA, table) for table in ("capture", "change_log", "pending", "control")),
    "spine_0008": tuple((version_table.SCHEMA, table) for table in ("cutover", "view_write", "set_aside")),
    "spine_0009": ((version_table.SCHEMA, "retirement"),),
}
_SEQUENCES: dict[str, tuple[tuple[str | None, str], ...]] = {"spine_0004": ((None, "run_fence"),)}


@dataclass(frozen=True)
class SchemaState:
    """Where a database stands.

    ``revision`` is None before the first upgrade, ``head`` the newest revision of this version of the tool;
    ``target_schema`` holds runs and what stands beside it, and is None as long as they are not there.
    """

    revision: str | None
    head: str
    target_schema: str | None

    @property
    def current(self) -> bool:
        return self.revision == self.head


@dataclass(frozen=True)
class SchemaChange:
    before: SchemaState
    after: SchemaState

    @property
    def changed(self) -> bool:
        return self.before.revision != self.after.revision


def upgrade(
    url: str | None,
    *,
    target_schema: str | None = None,
    lock_timeout: str = version_table.DEFAULT_LOCK_TIMEOUT,
    lock_within: float = 0.0,
    revision: str = "head",
) -> SchemaChange:
    """Create what is missing up to ``revision``; ``target_schema`` None leaves the place to the role's search_path.

    A lock that is not had in ``lock_timeout`` ends the attempt, and whoever waits behind it goes on; it is tried again
    for ``lock_within`` seconds.

    Raises ConfigurationError for an unknown revision; Refused where a name is taken, the target schema is missing or
    another one than before, a privilege is missing, or a lock was not had in ``lock_timeout``; ServerFault.
    """

    def precondition(connection: psycopg.Connection[Any], applied: list[str], wanted: list[str], schema: str) -> None:
        coming = wanted[len(applied) :]
        _refuse_taken(connection, [*_names(_TABLES, coming, schema), *_names(_SEQUENCES, coming, schema)])

    return _change(
        command.upgrade,
        url,
        revision=revision,
        target_schema=target_schema,
        lock_timeout=lock_timeout,
        lock_within=lock_within,
        precondition=precondition,
    )


def downgrade(
    url: str | None,
    *,
    target_schema: str | None = None,
    lock_timeout: str = version_table.DEFAULT_LOCK_TIMEOUT,
    lock_within: float = 0.0,
    revision: str,
    force: bool = False,
) -> SchemaChange:
    """Drop what was created after ``revision`` (``base``: everything); with ``force`` the rows in it too.

    Raises as ``upgrade`` does, and Refused where a table that would go still has rows and ``force`` is not set.
    """

    def precondition(connection: psycopg.Connection[Any], applied: list[str], wanted: list[str], schema: str) -> None:
        if len(applied) < len(wanted):
            raise Refused(
                "revision-below",
                f"The database stands at {applied[-1] if applied else 'base'}, below {wanted[-1]}: "
                f"there is nothing to downgrade.",
            )
        if not force:
            _refuse_rows(connection, _names(_TABLES, applied[len(wanted) :], schema))

    return _change(
        command.downgrade,
        url,
        revision=revision,
        target_schema=target_schema,
        lock_timeout=lock_timeout,
        lock_within=lock_within,
        precondition=precondition,
    )


def upgrade_sql(
    *,
    target_schema: str | None = None,
    lock_timeout: str = version_table.DEFAULT_LOCK_TIMEOUT,
    revision: str = "head",
) -> str:
    """The script that ``upgrade`` would run on a fresh database, in one transaction; no server is asked."""
    return _print(command.upgrade, revision, target_schema, lock_timeout)


def downgrade_sql(
    *,
    target_schema: str | None = None,
    lock_timeout: str = version_table.DEFAULT_LOCK_TIMEOUT,
    revision: str,
) -> str:
    """The script that takes a database at this tool's newest revision down to ``revision``, rows or not."""
    return _print(command.downgrade, f"head:{revision}", target_schema, lock_timeout)


def current(url: str | None) -> SchemaState:
    """Where the database stands; reads only."""
    script = ScriptDirectory.from_config(_config(None, version_table.DEFAULT_LOCK_TIMEOUT))
    with _translated(), engine(url).connect() as connection:
        return _state(connection, script)


def engine(url: str | None) -> sa.Engine:
    """An engine over our own connections, so that all that libpq understands works, ``PG*`` variables too."""
    return sa.create_engine(
        "postgresql+psycopg://", creator=lambda: connect(url, autocommit=False), poolclass=sa.pool.NullPool
    )


def _change(
    act: Callable[[Config, str], None],
    url: str | None,
    *,
    revision: str,
    target_schema: str | None,
    lock_timeout: str,
    lock_within: float,
    precondition: Callable[[psycopg.Connection[Any], list[str], list[str], str], None],
) -> SchemaChange:
    config = _config(target_schema, lock_timeout)
    script = ScriptDirectory.from_config(config)
    wanted = _chain(script, _known(script, revision))

    def attempt() -> SchemaChange:
        before: list[SchemaState] = []
        with _translated(), engine(url).connect() as connection, connection.begin():

            def check(schema: str) -> None:
                state = _state(connection, script)
                before.append(state)
                precondition(version_table.driver_connection(connection), _applied(script, state), wanted, schema)

            config.attributes["connection"] = connection
            config.attributes["preconditions"] = (check,)
            act(config, revision)
            return SchemaChange(before[0], _state(connection, script))

    return attempts(tenacity.retry_if_exception(_is_locked), seconds=lock_within, stop=threading.Event())(attempt)


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, Refused) and error.precondition == "lock-in-time"


def _print(act: Callable[..., None], revision: str, target_schema: str | None, lock_timeout: str) -> str:
    output = io.StringIO()
    config = _config(target_schema, lock_timeout, output)
    _known(ScriptDirectory.from_config(config), revision.rpartition(":")[2])
    act(config, revision, sql=True)
    return output.getvalue()


def _config(target_schema: str | None, lock_timeout: str, output: io.StringIO | None = None) -> Config:
    if target_schema == "":
        raise ConfigurationError("The name of the target schema is empty: leave the option out to use the search_path.")
    # -x arguments, not main options: a percent sign in a name would need escaping there.
    given = [f"lock_timeout={lock_timeout}"]
    if target_schema is not None:
        given.append(f"target_schema={target_schema}")
    config = Config(output_buffer=output, stdout=io.StringIO(), cmd_opts=Namespace(x=given))
    config.set_main_option("script_location", str(alembic_dir()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _known(script: ScriptDirectory, revision: str) -> str | None:
    """The full name of ``revision``, which may be ``head``, ``base`` (None) or the beginning of a name."""
    try:
        found = script.get_revision(revision)
    except CommandError as error:
        known = ", ".join(["base", *_chain(script, script.get_current_head())])
        raise ConfigurationError(f"There is no revision {revision!r}: known are {known} and head.") from error
    # For base it is None, whatever its annotation says.
    return getattr(found, "revision", None)


def _chain(script: ScriptDirectory, revision: str | None) -> list[str]:
    """All revisions from the first to ``revision``; they are one line without branches."""
    names = [] if revision is None else [found.revision for found in script.iterate_revisions(revision, "base")]
    return names[::-1]


def _applied(script: ScriptDirectory, state: SchemaState) -> list[str]:
    try:
        return _chain(script, state.revision)
    except (CommandError, RevisionError):
        raise Refused(
            "revision-known",
            f"The database stands at revision {state.revision}, which this version of spine-migrate does not know: "
            f"use the version that made it, or a newer one.",
        ) from None


def _state(connection: sa.Connection, script: ScriptDirectory) -> SchemaState:
    names = {"version_table": version_table.TABLE, "version_table_schema": version_table.SCHEMA}
    head = script.get_current_head()
    if head is None:
        raise ConfigurationError(f"There are no revisions under {script.versions}: install spine-migrate again.")
    return SchemaState(
        revision=MigrationContext.configure(connection, opts=names).get_current_revision(),
        head=head,
        target_schema=version_table.recorded_target(version_table.driver_connection(connection)),
    )


def _names(
    created: dict[str, tuple[tuple[str | None, str], ...]], revisions: list[str], target_schema: str
) -> list[tuple[str, str]]:
    return [(schema or target_schema, name) for one in revisions for schema, name in created.get(one, ())]


def _refuse_taken(connection: psycopg.Connection[Any], names: list[tuple[str, str]]) -> None:
    for schema, name in names:
        kind = connection.execute(query("schema", "taken_by"), {"schema": schema, "name": name}).fetchone()
        if kind is not None:
            raise Refused(
                "target-name-free",
                f'The {kind[0]} "{schema}"."{name}" exists and was not made by spine-migrate: '
                f"rename it, or name another --target-schema; nothing was changed.",
            )


def _refuse_rows(connection: psycopg.Connection[Any], tables: list[tuple[str, str]]) -> None:
    """Takes the lock that DROP TABLE needs first, so that no row comes in between."""
    for schema, table in tables:
        name = sql.Identifier(schema, table)
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name))
        if connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(name)).fetchone() is not None:
            raise Refused(
                "downgrade-drops-no-rows",
                f'The downgrade would drop "{schema}"."{table}", which has rows: '
                f"save what you need and run it again with --yes; nothing was changed.",
            )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        raise _explained(error.orig) from error
    except psycopg.Error as error:
        raise _explained(error) from error
    except CommandError as error:
        raise Refused("revision-order", f"The revisions cannot be run: {error}.") from error


def _explained(error: psycopg.Error) -> SpineMigrateError:
    """What the server said, with what to do about it; all of these end the one transaction, so nothing was changed."""
    said = ". ".join(part for part in (error.diag.message_primary, error.diag.message_detail) if part)
    match error:
        case psycopg.errors.DuplicateTable():
            return Refused("target-name-free", f"{said}: rename it, or name another --target-schema.")
        case psycopg.errors.InsufficientPrivilege():
            return Refused(
                "privilege-missing",
                f"{said}: the role needs CREATE on the database, or on a schema spine_migrate made for it, and on the "
                f"target schema.",
            )
        case psycopg.errors.LockNotAvailable():
            return Refused(
                "lock-in-time",
                f"{said}: another session holds the lock, in every attempt; nothing was changed. End its transaction "
                f"(pg_stat_activity, by xact_start), or run it again with a longer --lock-within or --lock-timeout.",
            )
        case psycopg.errors.InvalidForeignKey():
            return Refused(
                "keys-there", f"{said}: an offline load has taken it away; run the command that began it again first."
            )
        case psycopg.errors.DependentObjectsStillExist():
            return Refused("nothing-depends-on-it", f"{said}: drop or repoint that first.")
    return faults.explained(error)
