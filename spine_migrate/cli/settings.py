"""``spine-migrate set``: other settings for a run while it is going."""

from __future__ import annotations

import json

import click

from spine_migrate.carry.settings import SETTINGS
from spine_migrate.cli.options import json_option
from spine_migrate.cli.quarantine_options import migrations_options

FORMAT = 1

_SETTINGS = "\n".join(
    f"  {one.name:<21}{one.what.rstrip(',')}{'' if one.none is None else ', or ' + one.none}"
    for one in SETTINGS.values()
)
_EXAMPLES = f"""\b
Settings:
{_SETTINGS}

\b
Examples:
  spine-migrate set batch-size=500 rows-per-second=2000
  spine-migrate set max-lag-bytes=256MB --mapping capture-spine/executions
  spine-migrate set max-lag-bytes=none
  spine-migrate set batch-size=default rows-per-second=default

A setting goes before the option of the same name, for the runs at work, from their next batch on, and
for those to come; NAME=default takes it away again. status shows what is set. How many workers there
are is decided when a run starts."""


@click.command("set", epilog=_EXAMPLES)
@click.argument("words", nargs=-1, required=True, metavar="NAME=VALUE...")
@json_option
@migrations_options
def set_(
    *, words: tuple[str, ...], mapping: tuple[str, ...], migration: int | None, target: str | None, as_json: bool
) -> None:
    """Change the batch size, the rate or a limit for the runs of all migrations, or of some."""
    from spine_migrate.carry import orders
    from spine_migrate.carry.known import started
    from spine_migrate.carry.settings import change
    from spine_migrate.db.connect import PINNED, connect
    from spine_migrate.mapping.load import load

    asked = change(words)
    with connect(target, settings=PINNED) as connection:
        migrations = started(connection, mappings=[load(name).name for name in mapping], migration_id=migration)
        orders.change(connection, migrations, asked)
        told = orders.everything(connection)
    found = [(one.migration_id, one.mapping, told[one.migration_id].settings) for one in migrations]
    if as_json:
        rows = [{"migration_id": number, "mapping": name, "settings": settings} for number, name, settings in found]
        click.echo(json.dumps({"format": FORMAT, "migrations": rows}))
        return
    for number, name, settings in found:
        shown = ", ".join(f"{key}={_word(key, value)}" for key, value in sorted(settings.items()))
        click.echo(f"migration {number}  {name}: {shown or 'as the run was started'}")


def _word(name: str, value: float | None) -> str:
    return str(SETTINGS[name].none if value is None and name in SETTINGS else value)
