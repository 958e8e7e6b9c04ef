"""The plan of a move, shown: ``--dry-run``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from spine_migrate.errors import Refused

if TYPE_CHECKING:
    from spine_migrate.mapping.model import Mapping


def dry_run(
    url: str | None,
    mappings: Sequence[Mapping],
    *,
    source_schema: str | None,
    target_schema: str | None,
    offline: bool = False,
    stages: Sequence[str] = (),
    as_json: bool,
) -> None:
    """Print the plans in the order in which they would be carried out; exit code 3 where something blocks one.
    ``stages``: those whose locks are shown as well, capture and cutover.
    """
    from spine_migrate.backfill.explain import batch_steps
    from spine_migrate.cli.locking import of_stages
    from spine_migrate.db.connect import connect
    from spine_migrate.plan.make import Options, make_plan
    from spine_migrate.report import plan as report

    with connect(url) as connection:
        plans = [
            make_plan(
                connection,
                mapping,
                source_schema=source_schema,
                target_schema=target_schema,
                options=Options(offline=offline),
                steps=batch_steps,
                announce=lambda scan: click.echo(report.announcement(scan), err=True),
            )
            for mapping in mappings
        ]
        locks = of_stages(connection, mappings, stages, source_schema=source_schema, target_schema=target_schema)
    click.echo(json.dumps(report.as_json(plans, locks), indent=2) if as_json else report.as_text(plans, locks))
    if not (all(plan.ready for plan in plans) and all(one.ready for one in locks)):
        raise click.exceptions.Exit(Refused.exit_code)
