"""Taking back what was moved, as ``undo`` and ``rollback --before-cutover`` do it and tell of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.observing import Observed

if TYPE_CHECKING:
    from spine_migrate.backfill.undo import Options
    from spine_migrate.mapping.model import Mapping


def take_back(
    target: str | None, mappings: Sequence[Mapping], options: Options, seen: Observed, *, quiet: bool, as_json: bool
) -> None:
    """Exits with 4 where it was interrupted, with 1 where rows are left."""
    from spine_migrate.backfill.undo import undo
    from spine_migrate.cli.signals import stopping
    from spine_migrate.errors import Interrupted
    from spine_migrate.report import undo as report
    from spine_migrate.report.progress import shown

    with stopping(seen.say) as (stop, cancel), shown(quiet=quiet) as progress:
        results = undo(
            target,
            mappings=mappings,
            options=options,
            stop=stop,
            cancel=cancel,
            report=progress,
            observer=seen.observer,
        )
    click.echo(json.dumps(report.as_json(results), indent=2) if as_json else report.as_text(results))
    if any(one.state == "interrupted" for one in results):
        raise click.exceptions.Exit(Interrupted.exit_code)
    if not all(one.clean for one in results):
        raise click.exceptions.Exit(1)
