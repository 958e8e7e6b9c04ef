"""``spine-migrate worker-relay``: publishes what nobody published or claimed, and reaps lost workers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.options import json_option
from spine_migrate.cli.runs_opened import found_runs, place_options

if TYPE_CHECKING:
    from spine_migrate.execution.relay import Pass, Relay

FORMAT = 1

_EXAMPLES = """\b
Examples:
  spine-migrate worker-relay --app shop.celery:app
  spine-migrate worker-relay --app shop.celery:executor --poll 0.5 --claim-within 120
  spine-migrate worker-relay --app shop.celery:app --once --json

--app names a Celery application, whose queues are then those of the priorities and of the lane
background, or an executor, such as a CeleryExecutor with queues of your own.

It runs until Ctrl-C or SIGTERM, and outlives an outage of the database or the broker. Several may run at
the same time. A pass that did something is told on stdout, as a line of JSON with --json.

Exit codes: 0 once it is stopped; with --once 0, or 5 where the database or the broker did not answer."""


@click.command(name="worker-relay", epilog=_EXAMPLES)
@click.option(
    "--app",
    "place",
    required=True,
    metavar="MODULE:NAME",
    envvar="SPINE_CELERY_APP",
    show_envvar=True,
    help="The Celery application or the executor that publishes; the working directory is looked in, too.",
)
@click.option("--once", is_flag=True, help="Work until nothing is left to do at this moment, then end.")
@click.option(
    "--poll", type=click.FloatRange(0.01), default=1.0, show_default=True, metavar="SECONDS", help="Between two passes."
)
@click.option(
    "--batch", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="Runs of a rule in a pass."
)
@click.option(
    "--claim-within",
    type=click.FloatRange(1),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="After which a published run that no worker has claimed is published again.",
)
@click.option(
    "--retry-lost-after",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="After which a run is tried again whose worker is lost.",
)
@json_option
@place_options
def worker_relay(
    *,
    place: str,
    once: bool,
    poll: float,
    batch: int,
    claim_within: float,
    retry_lost_after: float,
    as_json: bool,
    target: str | None,
    target_schema: str | None,
) -> None:
    """Bring runs to workers where a submitter, the broker or a worker was lost on the way."""
    import logging

    from psycopg_pool import ConnectionPool

    from spine_migrate.cli.publisher import publisher
    from spine_migrate.cli.signals import stopping
    from spine_migrate.db.connect import connect, conninfo
    from spine_migrate.execution.ledgers.postgres import PostgresLedger
    from spine_migrate.execution.relay import Relay

    # Each attempt to reconnect; the relay tells an outage once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    executor = publisher(place)
    # By itself, so that a wrong URL is told at once and in a sentence; the pool would only time out.
    with connect(target) as connection:
        schema = found_runs(connection, target_schema).name.schema
    with (
        stopping() as (stop, _),
        ConnectionPool(conninfo(target), min_size=1, max_size=2, timeout=10) as pool,
    ):
        relay = Relay(
            PostgresLedger(pool, schema),
            executor,
            batch=batch,
            claim_within_seconds=claim_within,
            backoff_seconds=retry_lost_after,
        )
        if once:
            _once(relay, as_json=as_json)
            return
        click.echo(f"Relaying runs to {executor.name}, every {poll:g} seconds; Ctrl-C stops it.", err=True)
        relay.run(stop, poll_seconds=poll, tell=_Teller(as_json=as_json))


def _once(relay: Relay, *, as_json: bool) -> None:
    from spine_migrate.errors import ServerFault
    from spine_migrate.execution.errors import BackendError

    try:
        done = relay.drain()
    except BackendError as error:
        raise ServerFault(error.sentence) from error
    click.echo(_line(done, as_json=as_json))
    if done.error is not None:
        raise ServerFault(f"Runs that could not be published: {done.failed:,}. {done.error}")


class _Teller:
    """A line for each pass that did something; an outage is told when it begins and when it is over."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._error: str | None = None

    def __call__(self, done: Pass) -> None:
        if done.error is not None and done.error != self._error:
            click.echo(f"spine-migrate: {done.error} Trying again.", err=True)
        if done.error is None and self._error is not None:
            click.echo("spine-migrate: It works again.", err=True)
        self._error = done.error
        if any(done.counts.values()):
            click.echo(_line(done, as_json=self._as_json))


def _line(done: Pass, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"format": FORMAT, **done.counts, "error": done.error})
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in done.counts.items())
