"""``spine-migrate compare-backends``: one pipeline through several backends, and whether they give the same."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.options import json_option, yes_option
from spine_migrate.cli.runs_opened import KINDS, place_options

if TYPE_CHECKING:
    from spine_migrate.cli.backends_opened import Asked, Work
    from spine_migrate.parity.outputs.compare import Options
    from spine_migrate.parity.outputs.model import Outputs

_FORMATS = ("text", "json", "markdown", "junit")

_EPILOG = """\b
Backends:
  simple, memory, local   in this process, with a ledger in memory
  celery                  by --app, on the ledger of --target; a worker must be there
  legacy                  the old function or Celery task of --legacy, called in this process
  others                  that the application has registered with register_backend

\b
Examples:
  spine-migrate compare-backends ingest_otc --params '{"week_ending": "2026-01-16"}' --import shop.pipelines \\
    --backend memory --backend local
  spine-migrate compare-backends ingest_otc --params @params.json --app shop.celery:app \\
    --backend memory --backend celery --repeat 5 --rules rules.toml
  spine-migrate compare-backends ingest_otc --params '{"week_ending": "2026-01-16"}' --import shop.pipelines \\
    --legacy shop.tasks:ingest --backend memory --format junit --output outputs.xml

The first backend is the baseline; an old body is, unless it has another place. With --repeat 2 or more
the baseline is compared with itself first: where it differs, the work is not deterministic, and a
difference there is noise. Rules for what may differ: runbooks/compare-backends.md.

\b
Exit codes:
  0  equal
  1  different: the result, the end, or the events
  2  usage: no such handler, backend or rule; side effects without --yes
  3  refused: the tables of runs are not there
  4  could not tell: a run that did not end in time, a baseline that fails; interrupted
  5  the database or the broker did not answer"""


@click.command(name="compare-backends", epilog=_EPILOG)
@click.argument("name")
@click.option(
    "--params", default="{}", metavar="JSON|@FILE", help="What the handler is given; an empty object if left out."
)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="A backend; more than once.")
@click.option("--kind", type=click.Choice(KINDS), help="What NAME is; needed where several kinds have it.")
@click.option(
    "--app",
    metavar="MODULE:NAME",
    envvar="SPINE_CELERY_APP",
    show_envvar=True,
    help="The Celery application or the executor that publishes; the working directory is looked in, too.",
)
@click.option(
    "--import", "modules", multiple=True, metavar="MODULE", help="Load this module, which registers handlers."
)
@click.option("--registry", metavar="MODULE:NAME", help="The handlers, where they are not in the default registry.")
@click.option("--legacy", metavar="MODULE:NAME", help="The old function or Celery task, to be compared as well.")
@click.option("--legacy-params", metavar="JSON|@FILE", help="Its arguments by name, where they are not the params.")
@click.option(
    "--repeat", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N", help="Runs of each backend."
)
@click.option(
    "--rules", "rules_file", type=click.Path(path_type=Path), metavar="FILE", help="What may differ, as TOML."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each run; it is cancelled then.",
)
@click.option(
    "--max-retries",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    metavar="N",
    help="How often a run that fails is tried again, at once.",
)
@click.option("--lane", default="default", show_default=True, metavar="NAME", help="The lane of the runs.")
@click.option("--accept-failure", is_flag=True, help="A baseline that fails is meant to; failing alike is equal.")
@click.option("--format", "form", type=click.Choice(_FORMATS), default=None, help="How to report; text is the default.")
@json_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    help="Write the report to this file.",
)
@yes_option
@place_options
def compare_backends(
    *,
    name: str,
    params: str,
    backends: tuple[str, ...],
    kind: str | None,
    app: str | None,
    modules: tuple[str, ...],
    registry: str | None,
    legacy: str | None,
    legacy_params: str | None,
    repeat: int,
    rules_file: Path | None,
    timeout: float,
    max_retries: int,
    lane: str,
    accept_failure: bool,
    form: str | None,
    as_json: bool,
    output: Path | None,
    yes: bool,
    target: str | None,
    target_schema: str | None,
) -> None:
    """Execute NAME on every backend, and compare the results and the events.

    It is really executed, with all that it changes, and so it asks first; not where the handler is registered with
    pure=True, or with dry_run=, a function that makes params with which it changes nothing. An old body is asked for
    in any case.
    """
    from spine_migrate.cli import backends_opened
    from spine_migrate.parity.outputs.compare import Options
    from spine_migrate.parity.outputs.rules import NO_RULES, load

    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} are two different reports; give one of them.")
    chosen = backends_opened.names(backends, legacy)
    rules = NO_RULES if rules_file is None else load(rules_file)
    asked = backends_opened.Asked(
        name, kind, params, chosen, app, modules, registry, legacy, legacy_params, lane, max_retries, timeout, target,
        target_schema,
    )  # fmt: skip
    # What the application prints is no part of the report.
    with redirect_stdout(sys.stderr):
        work = backends_opened.work(asked)
        options = Options(
            work.spec.kind, name, rules, repeat=repeat, accept_failure=accept_failure, dry_run=work.dry_run
        )
        outputs = _compared(asked, work, options, yes=yes)
    _write(outputs, "json" if as_json else form or "text", output)
    _end(outputs)


def _ask(asked: Asked, work: Work, repeat: int) -> None:
    """Raises ConfigurationError where there is nobody to ask, and click's Abort on anything but yes."""
    from spine_migrate.cli.backends_opened import LEGACY
    from spine_migrate.errors import ConfigurationError

    if work.pure and LEGACY not in asked.backends:
        return
    times = len(asked.backends) * repeat
    what = f"This executes the {work.spec.kind} {asked.name} {times} times, with all that it changes"
    if not sys.stdin.isatty():
        marked = "" if work.pure else ", or register its handler with pure=True or dry_run= where it changes nothing"
        raise ConfigurationError(f"{what}; say --yes{marked}.")
    click.confirm(f"{what}. Go on?", abort=True, err=True)


def _compared(asked: Asked, work: Work, options: Options, *, yes: bool) -> Outputs:
    from spine_migrate.cli.backends_opened import opened
    from spine_migrate.errors import ServerFault
    from spine_migrate.execution.errors import BackendError
    from spine_migrate.parity.outputs.compare import compare

    try:
        with _interruptible(), opened(asked, work) as backends:
            if not yes:
                _ask(asked, work, options.repeat)
            return compare(backends, options, started=_say)
    except BackendError as error:
        raise ServerFault(f"{error.sentence} Nothing was compared.") from error


def _say(backend: str, number: int, of: int) -> None:
    click.echo(f"Executing on {backend} ({number} of {of})", err=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM is Ctrl-C: the run at hand is called off."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(outputs: Outputs, form: str, output: Path | None) -> None:
    from spine_migrate.report import outputs_json, outputs_junit, outputs_markdown
    from spine_migrate.report.outputs_terminal import render as render_text

    renderers: dict[str, Callable[[Outputs], str]] = {
        "json": outputs_json.render,
        "markdown": outputs_markdown.render,
        "junit": outputs_junit.render,
    }
    to_file = output is not None and str(output) != "-"
    if form in renderers:
        text = renderers[form](outputs)
    elif not to_file:
        render_text(outputs, sys.stdout)
        return
    else:
        plain = io.StringIO()
        render_text(outputs, plain)
        text = plain.getvalue()
    if output is not None and to_file:
        output.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=False)


def _end(outputs: Outputs) -> None:
    from spine_migrate.cli.backends_opened import LEGACY
    from spine_migrate.errors import Interrupted
    from spine_migrate.parity.model import Verdict
    from spine_migrate.parity.outputs.in_process import IN_PROCESS

    code = {Verdict.EQUAL: 0, Verdict.DIFFERENT: 1, Verdict.UNKNOWN: Interrupted.exit_code}[outputs.verdict]
    stuck = [
        one.name
        for one in outputs.backends
        if one.name in {*IN_PROCESS, LEGACY} and any(run.gave_up is not None for run in one.observations)
    ]
    if stuck:
        # A handler in a thread cannot be ended, and the interpreter would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise click.exceptions.Exit(code)
