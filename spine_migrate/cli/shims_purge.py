"""``spine-migrate shims purge``: what is known of calls that are long over."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.moments import METAVAR, before, moment
from spine_migrate.cli.options import json_option, yes_option
from spine_migrate.cli.runs_opened import place_options

if TYPE_CHECKING:
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.shim_tables import Purged, ShimTables

_EPILOG = """\b
Examples:
  spine-migrate shims purge --older-than 90d --dry-run
  spine-migrate shims purge --older-than 90d --yes

A caller goes whose last call is older, and a worker that was last seen before. What a worker that stays has
seen before then is forgotten too, so that shims report --silent-for says of a longer time that it cannot tell.

Exit codes: 0."""


@click.command(epilog=_EPILOG)
@click.option(
    "--older-than",
    metavar=METAVAR,
    callback=moment,
    required=True,
    help="Only callers whose last call is that long ago, such as 90d, or was before an ISO time.",
)
@click.option("--dry-run", is_flag=True, help="Count what would go, change nothing.")
@yes_option
@json_option
@place_options
def purge(
    *,
    older_than: timedelta | datetime,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    target: str | None,
    target_schema: str | None,
) -> None:
    """Forget callers of old tasks that have not called for long, and workers that were not seen for long."""
    from spine_migrate.db.connect import connect
    from spine_migrate.db.shim_tables import ShimTables
    from spine_migrate.errors import ConfigurationError
    from spine_migrate.report import shims as told

    with connect(target) as connection:
        tables = ShimTables.opened(connection, target_schema)
        now = tables.now()
        bound = before(now, older_than)
        if bound > now:
            raise ConfigurationError("--older-than is a time to come; nobody can tell who will call until then.")
        found = tables.purgeable(bound)
        if not dry_run:
            if not yes:
                click.echo(told.purge_text(found, bound, "planned"), err=True)
                click.confirm(f"Forget {found.callers:,} callers?", abort=True, err=True)
            found = _purged(connection, tables, bound)
    state = "planned" if dry_run else "purged"
    click.echo(json.dumps(told.purge_json(found, bound, state)) if as_json else told.purge_text(found, bound, state))


def _purged(connection: Connection, tables: ShimTables, bound: datetime) -> Purged:
    """And recorded, in one transaction."""
    from spine_migrate.db import ledger
    from spine_migrate.db.queries import query

    with connection.transaction():
        done = tables.purge(bound)
        # An application that stops at its own tables does not have the tool's ledger.
        if connection.execute(query("ledger", "installed")).fetchone() == (True,):
            counts = {"callers": done.callers, "workers": done.workers, "shortened": done.shortened}
            ledger.audit(connection, "shims purged", before=bound.isoformat(), **counts)
    return done
