"""``spine-migrate runs cancel|retry|reprocess``: what is asked for here is carried out by relay and workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spine_migrate.cli.options import json_option
from spine_migrate.cli.runs_opened import opened, place_options

if TYPE_CHECKING:
    from spine_migrate.execution.core import SyncDispatcher

Command = TypeVar("Command", bound=Callable[..., Any])

_CODES = """
Exit codes: 0 done for all, 1 done for some, else that of the first that was not: 2 there is no such run, 3 its status
does not allow it."""
_EPILOGS = {
    "cancel": f"""\b
Examples:
  spine-migrate runs cancel 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11 --reason "wrong feed"
  spine-migrate runs cancel ID ID ID --json
{_CODES}""",
    "retry": f"""\b
Examples:
  spine-migrate runs retry 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11
  spine-migrate runs retry ID ID ID --json
{_CODES}""",
    "reprocess": f"""\b
Examples:
  spine-migrate runs reprocess 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11
  spine-migrate runs reprocess ID ID ID --json
{_CODES}""",
}


@dataclass(frozen=True)
class Outcome:
    """What came of one run. ``outcome``: cancelled, asked (its worker is to stop), retried (as ``new_run_id``),
    reprocessed, refused, unknown. ``exit_code`` is 0 where it was done.
    """

    run_id: str
    outcome: str
    sentence: str
    new_run_id: str | None = None
    exit_code: int = 0


def _several(command: Command) -> Command:
    """``run_ids``, ``as_json`` and the place."""
    for option in (place_options, json_option, click.argument("run_ids", nargs=-1, required=True, metavar="ID...")):
        command = option(command)
    return command


@click.command(epilog=_EPILOGS["cancel"])
@click.option("--reason", default="spine-migrate runs cancel", metavar="TEXT", help="Recorded with the event.")
@_several
def cancel(
    *, run_ids: tuple[str, ...], reason: str, as_json: bool, target: str | None, target_schema: str | None
) -> None:
    """Cancel runs. One that a worker has is asked to stop, which it notices with its next heartbeat."""

    def work(dispatcher: SyncDispatcher, run_id: str) -> Outcome:
        if not dispatcher.cancel(run_id, reason):
            run = dispatcher.get_run(run_id)
            status = "gone" if run is None else run.status
            return Outcome(run_id, "refused", f"Run {run_id} is {status} already; there is nothing to cancel.", None, 3)
        run = dispatcher.get_run(run_id)
        if run is None or run.status == "cancelled":
            return Outcome(run_id, "cancelled", f"Run {run_id} is cancelled.")
        return Outcome(run_id, "asked", f"Run {run_id} is running; its worker is asked to stop.")

    _each("cancel", work, run_ids, target, target_schema, as_json=as_json)


@click.command(epilog=_EPILOGS["retry"])
@_several
def retry(*, run_ids: tuple[str, ...], as_json: bool, target: str | None, target_schema: str | None) -> None:
    """Make a new run of each that failed or was cancelled. It is pending until the relay publishes it."""

    def work(dispatcher: SyncDispatcher, run_id: str) -> Outcome:
        new = dispatcher.retry(run_id)
        return Outcome(run_id, "retried", f"Run {run_id} is retried as {new}, pending for the relay to publish.", new)

    _each("retry", work, run_ids, target, target_schema, as_json=as_json)


@click.command(epilog=_EPILOGS["reprocess"])
@_several
def reprocess(*, run_ids: tuple[str, ...], as_json: bool, target: str | None, target_schema: str | None) -> None:
    """Bring dead letters back, each as the run it is, with all its retries. Pending until the relay publishes it."""

    def work(dispatcher: SyncDispatcher, run_id: str) -> Outcome:
        run = dispatcher.reprocess(run_id)
        sentence = f"Run {run_id} is pending again, attempt {run.attempt}, for the relay to publish."
        return Outcome(run_id, "reprocessed", sentence)

    _each("reprocess", work, run_ids, target, target_schema, as_json=as_json)


def _each(
    action: str,
    work: Callable[[SyncDispatcher, str], Outcome],
    run_ids: Sequence[str],
    target: str | None,
    target_schema: str | None,
    *,
    as_json: bool,
) -> None:
    """One after the other, each committed by itself; raises click's Exit where not all was done."""
    outcomes: list[Outcome] = []
    try:
        with opened(target, target_schema) as dispatcher:
            outcomes.extend(_outcomes(dispatcher, work, dict.fromkeys(run_ids), quiet=as_json))
    finally:
        # A fault half way leaves what was done before it.
        if as_json and outcomes:
            click.echo(json.dumps({"format": 1, "action": action, "runs": [asdict(one) for one in outcomes]}))
    failed = [one.exit_code for one in outcomes if one.exit_code]
    if failed:
        raise click.exceptions.Exit(failed[0] if len(failed) == len(outcomes) else 1)


def _outcomes(
    dispatcher: SyncDispatcher,
    work: Callable[[SyncDispatcher, str], Outcome],
    run_ids: Iterable[str],
    *,
    quiet: bool,
) -> Iterator[Outcome]:
    """Told as they come: what is done stays done where a later one fails."""
    from spine_migrate.errors import Refused
    from spine_migrate.execution.errors import (
        BackendError,
        ConcurrencyError,
        ExecutionNotFoundError,
        OrchestrationError,
        TransitionError,
    )

    for run_id in run_ids:
        try:
            outcome = work(dispatcher, run_id)
        except BackendError:
            raise
        except OrchestrationError as error:
            state = isinstance(error, TransitionError | ConcurrencyError)
            outcome = Outcome(
                run_id,
                "unknown" if isinstance(error, ExecutionNotFoundError) else "refused",
                error.sentence,
                exit_code=Refused.exit_code if state else error.exit_code,
            )
        if not quiet:
            click.echo(outcome.sentence, err=bool(outcome.exit_code))
        yield outcome
