"""``spine-migrate quarantine accept``: rows that stay behind at the cutover, by name and with a reason."""

from __future__ import annotations

import json

import click

from spine_migrate.cli.options import json_option
from spine_migrate.cli.quarantine_options import migrations_options, reasons_option


@click.command(
    epilog="""\b
Examples:
  spine-migrate quarantine accept 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11 --why "test data of 2019, INC-4711"
  spine-migrate quarantine accept --reason orphan --why "events of purged executions" --json

A row that changes afterwards, and is refused again, is open again.

Exit codes: 0; 3 where a key is in no quarantine."""
)
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--why", required=True, metavar="TEXT", help="The reason, which stays on record with who accepted.")
@reasons_option
@json_option
@migrations_options
def accept(
    *,
    keys: tuple[str, ...],
    why: str,
    mapping: tuple[str, ...],
    migration: int | None,
    target: str | None,
    reason: tuple[str, ...],
    as_json: bool,
) -> None:
    """Accept that rows will not be in the target after the cutover.

    They stay in quarantine, whole, and in the legacy table. A cutover refuses while a row is neither mended nor
    accepted.
    """
    from spine_migrate.backfill.acceptance import accept as mark
    from spine_migrate.backfill.quarantine import Selected
    from spine_migrate.carry.known import chosen
    from spine_migrate.db.connect import PINNED, connect
    from spine_migrate.mapping.load import load

    if not keys and not reason:
        raise click.UsageError("Say which rows: their keys, or --reason.")
    if not why.strip():
        raise click.UsageError("Say why, in words that mean something to whoever reads them next year.")
    names = [load(name).name for name in mapping]
    with connect(target, settings=PINNED) as connection:
        migrations = chosen(connection, mappings=names, migration_id=migration)
        accepted = mark(connection, migrations, Selected(list(reason) or None, list(keys) or None), why=why)
    if as_json:
        click.echo(json.dumps({"format": 1, "accepted": accepted}))
    else:
        reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(accepted.items()))
        click.echo(f"{sum(accepted.values()):,} rows accepted{f': {reasons}' if reasons else ''}.")
