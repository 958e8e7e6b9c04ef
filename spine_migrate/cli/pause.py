"""``spine-migrate pause`` and ``resume``: holding runs back from another terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.options import json_option
from spine_migrate.cli.quarantine_options import migrations_options

if TYPE_CHECKING:
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.ledger import Migration

FORMAT = 1

_EXAMPLES = {
    "pause": """\b
Examples:
  spine-migrate pause
  spine-migrate pause --mapping capture-spine/executions
  spine-migrate resume

A run notices within a second or two, at the end of its batch, and holds no transaction while it
waits. The pause stays when the run is killed, and holds the next one too. Whoever pauses executions
holds the move of their events as well.""",
    "resume": """\b
Examples:
  spine-migrate resume
  spine-migrate resume --migration 2""",
}


@click.command(epilog=_EXAMPLES["pause"])
@json_option
@migrations_options
def pause(*, mapping: tuple[str, ...], migration: int | None, target: str | None, as_json: bool) -> None:
    """Hold back the runs of all migrations, or of some: those at work now and those to come."""
    from spine_migrate.carry import orders

    _order(orders.pause, "paused", mapping, migration, target, as_json=as_json)


@click.command(epilog=_EXAMPLES["resume"])
@json_option
@migrations_options
def resume(*, mapping: tuple[str, ...], migration: int | None, target: str | None, as_json: bool) -> None:
    """Let the runs of all migrations, or of some, go on."""
    from spine_migrate.carry import orders

    _order(orders.resume, "resumed", mapping, migration, target, as_json=as_json)


def _order(
    give: Callable[[Connection, Sequence[Migration]], list[int]],
    done: str,
    names: Sequence[str],
    migration: int | None,
    target: str | None,
    *,
    as_json: bool,
) -> None:
    from spine_migrate.carry.known import started
    from spine_migrate.db.connect import PINNED, connect
    from spine_migrate.mapping.load import load

    with connect(target, settings=PINNED) as connection:
        migrations = started(connection, mappings=[load(name).name for name in names], migration_id=migration)
        changed = give(connection, migrations)
    if as_json:
        rows = [
            {"migration_id": one.migration_id, "mapping": one.mapping, done: one.migration_id in changed}
            for one in migrations
        ]
        click.echo(json.dumps({"format": FORMAT, "migrations": rows}))
        return
    for one in migrations:
        state = done if one.migration_id in changed else f"was {'' if done == 'paused' else 'not '}paused before"
        click.echo(f"migration {one.migration_id}  {one.mapping}: {state}")
