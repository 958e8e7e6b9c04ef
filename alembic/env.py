"""The tool's own Alembic environment; an application includes only ``versions/`` in its ``version_locations``.

The version table is ``spine_migrate.alembic_version``. The server is the driver's (``config.attributes``), else that of
SPINE_TARGET_URL, SPINE_DATABASE_URL or the PG* variables. ``-x target_schema=X`` and ``-x lock_timeout=5s``, or the
main options ``spine_target_schema`` and ``spine_lock_timeout``, are the options of ``spine-migrate db upgrade``.
"""

from __future__ import annotations

import os
from logging.config import fileConfig

import sqlalchemy as sa
from alembic.util import CommandError
from psycopg import sql

from alembic import context
from spine_migrate.db import version_table
from spine_migrate.db.schema import engine
from spine_migrate.errors import SpineMigrateError


def _option(name: str) -> str | None:
    given = context.get_x_argument(as_dictionary=True).get(name)
    return given if isinstance(given, str) else context.config.get_main_option(f"spine_{name}")


def _run(connection: sa.Connection | None) -> None:
    """Run the command on ``connection``, or print its SQL where that is None."""
    heads_after_step: list[set[str]] = []
    context.configure(
        connection=connection,
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=connection is None,
        version_table=version_table.TABLE,
        version_table_schema=version_table.SCHEMA,
        on_version_apply=lambda *, heads, **_: heads_after_step.append(set(heads)),
    )
    migration = context.get_context()

    def execute(statement: sql.SQL | sql.Composed) -> None:
        if connection is None:
            migration.impl.static_output(statement.as_string() + ";")
        else:
            version_table.driver_connection(connection).execute(statement)

    if migration.opts.get("dont_mutate", False):
        migration.run_migrations()
        return
    target_schema = _option("target_schema")
    with context.begin_transaction():
        lock_timeout = _option("lock_timeout")
        version_table.begin(execute, version_table.DEFAULT_LOCK_TIMEOUT if lock_timeout is None else lock_timeout)
        if connection is not None:
            schema = version_table.resolve_target(version_table.driver_connection(connection), target_schema)
            # Under the lock: what the driver checks cannot change before the first statement.
            for precondition in context.config.attributes.get("preconditions", ()):
                precondition(schema)
        context.run_migrations()
        if not (heads_after_step[-1] if heads_after_step else migration.get_current_heads()):
            version_table.remove(execute)
        elif heads_after_step:
            version_table.record_target(execute, target_schema)


def _run_alone() -> None:
    """Plain ``alembic``: no driver has connected, and nobody but Alembic prints what went wrong."""
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    conninfo = os.environ.get("SPINE_TARGET_URL") or os.environ.get("SPINE_DATABASE_URL") or ""
    try:
        with engine(conninfo).connect() as connection:
            _run(connection)
    except SpineMigrateError as error:
        raise CommandError(error.sentence) from None


if context.is_offline_mode():
    _run(None)
elif "connection" in context.config.attributes:
    _run(context.config.attributes["connection"])
else:
    _run_alone()
