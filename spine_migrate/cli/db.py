"""``spine-migrate db``: the target tables, the ledger and the runtime's tables, as revisions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from spine_migrate.cli.options import json_option, target_option, target_schema_option

if TYPE_CHECKING:
    from spine_migrate.db.schema import SchemaChange, SchemaState

_UPGRADE_EXAMPLES = """\b
Examples:
  spine-migrate db upgrade --target postgresql://dba@db.example/app
  spine-migrate db upgrade --target-schema spine
  spine-migrate db upgrade --sql > upgrade.sql"""
_DOWNGRADE_EXAMPLES = """\b
Examples:
  spine-migrate db downgrade base
  spine-migrate db downgrade spine_0002 --yes
  spine-migrate db downgrade base --sql > downgrade.sql"""
_CURRENT_EXAMPLES = """\b
Example:
  spine-migrate db current --target postgresql://dba@db.example/app"""


def _place(command: Callable[..., None]) -> Callable[..., None]:
    """The options that ``upgrade`` and ``downgrade`` share."""
    for option in (
        json_option,
        click.option("--sql", "sql_only", is_flag=True, help="Print the SQL and ask no server."),
        click.option(
            "--lock-timeout",
            metavar="DURATION",
            default="500ms",
            show_default=True,
            help="The longest that one attempt waits for a lock, and whoever queues behind it.",
        ),
        click.option(
            "--lock-within",
            type=click.FloatRange(0),
            default=60.0,
            show_default=True,
            metavar="SECONDS",
            help="Give up, changing nothing, after attempts of so long.",
        ),
        target_schema_option,
        target_option,
    ):
        command = option(command)
    return command


@click.group()
def db() -> None:
    """Create, remove or report the target tables, the ledger and the runtime's tables."""


@db.command(epilog=_UPGRADE_EXAMPLES)
@click.argument("revision", default="head")
@_place
def upgrade(
    revision: str,
    target: str | None,
    target_schema: str | None,
    lock_timeout: str,
    lock_within: float,
    *,
    sql_only: bool,
    as_json: bool,
) -> None:
    """Create runs, run_events, the ledger and the runtime's tables, up to REVISION (head)."""
    from spine_migrate.db import schema

    if sql_only:
        _refuse_both(as_json=as_json)
        click.echo(schema.upgrade_sql(target_schema=target_schema, lock_timeout=lock_timeout, revision=revision))
        return
    change = schema.upgrade(
        target, target_schema=target_schema, lock_timeout=lock_timeout, lock_within=lock_within, revision=revision
    )
    _report(change, as_json=as_json)


@db.command(epilog=_DOWNGRADE_EXAMPLES)
@click.argument("revision")
@_place
@click.option("--yes", is_flag=True, help="Drop tables that have rows, too.")
def downgrade(
    revision: str,
    target: str | None,
    target_schema: str | None,
    lock_timeout: str,
    lock_within: float,
    *,
    sql_only: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Drop what was created after REVISION; base drops all of it.

    Tables that have rows are only dropped with --yes. With --sql the script drops them, rows or not.
    """
    from spine_migrate.db import schema

    if sql_only:
        _refuse_both(as_json=as_json)
        click.echo(schema.downgrade_sql(target_schema=target_schema, lock_timeout=lock_timeout, revision=revision))
        return
    change = schema.downgrade(
        target,
        target_schema=target_schema,
        lock_timeout=lock_timeout,
        lock_within=lock_within,
        revision=revision,
        force=yes,
    )
    _report(change, as_json=as_json)


@db.command(epilog=_CURRENT_EXAMPLES)
@target_option
@json_option
def current(target: str | None, *, as_json: bool) -> None:
    """Print the revision that the database stands at; changes nothing."""
    from spine_migrate.db import schema

    state = schema.current(target)
    click.echo(json.dumps(_facts(state)) if as_json else _sentence(state))


def _refuse_both(*, as_json: bool) -> None:
    if as_json:
        raise click.UsageError("--sql prints SQL, so it cannot go with --json.")


def _report(change: SchemaChange, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"changed": change.changed, "before": _facts(change.before), **_facts(change.after)}))
    elif change.changed:
        click.echo(f"From {change.before.revision or 'base'} to {change.after.revision or 'base'}.")
        click.echo(_sentence(change.after))
    else:
        click.echo(f"Nothing to do. {_sentence(change.after)}")


def _facts(state: SchemaState) -> dict[str, Any]:
    return {"revision": state.revision, "head": state.head, "target_schema": state.target_schema}


def _sentence(state: SchemaState) -> str:
    if state.revision is None:
        return "The database is at base: runs, run_events and the ledger are not installed."
    newest = "the newest" if state.current else f"the newest is {state.head}"
    return f'The database is at {state.revision} ({newest}); the target tables are in schema "{state.target_schema}".'
