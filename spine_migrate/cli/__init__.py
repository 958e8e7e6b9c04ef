"""The command line. This module and ``options`` load nothing but click, so that ``--help`` answers at once; a command's
module is imported when the command is called, and what it works with inside its callback.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from spine_migrate import __version__
from spine_migrate.errors import ConfigurationError, Interrupted, ServerFault, SpineMigrateError

# In the order in which a migration meets them: where the command is, and its line in the list of commands.
_COMMANDS = {
    "demo": ("spine_migrate.cli.demo:demo", "Try everything on an embedded server and generated data."),
    "db": ("spine_migrate.cli.db:db", "Create, remove or report the target tables and the ledger."),
    "grants": ("spine_migrate.cli.grants:grants", "Print the GRANTs that a role needs for each command."),
    "mapping": ("spine_migrate.cli.mapping:mapping", "Check, show and compile mapping files."),
    "plan": ("spine_migrate.cli.plan:plan", "Show what a migration will do, lock and meet; nothing is changed."),
    "executions-to-runs": (
        "spine_migrate.cli.move:executions_to_runs",
        "Move capture-spine's executions and their events into runs.",
    ),
    "jobs-to-runs": ("spine_migrate.cli.move:jobs_to_runs", "Move capture-spine's legacy jobs into runs."),
    "sync": ("spine_migrate.cli.sync:sync", "Capture what the application writes, and bring it to the target."),
    "status": ("spine_migrate.cli.status:status", "Show every migration, its step and its progress."),
    "pause": ("spine_migrate.cli.pause:pause", "Hold a run back, from another terminal."),
    "resume": ("spine_migrate.cli.pause:resume", "Let a run that was paused go on."),
    "set": ("spine_migrate.cli.settings:set_", "Change a run's batch size or limits while it is going."),
    "watch": ("spine_migrate.cli.watch:watch", "Watch every migration on one live screen."),
    "quarantine": ("spine_migrate.cli.quarantine:quarantine", "List, show, export, retry or discard rejected rows."),
    "compare": ("spine_migrate.cli.compare:compare", "Prove that source and target agree, or list where they differ."),
    "certificate": ("spine_migrate.cli.certificate:certificate", "Show and verify certificates of a comparison."),
    "compare-backends": (
        "spine_migrate.cli.compare_backends:compare_backends",
        "Execute a pipeline on several backends and compare what it gives.",
    ),
    "repair": ("spine_migrate.cli.repair:repair", "Make right on the target what compare has found wrong."),
    "cutover": ("spine_migrate.cli.cutover:cutover", "Take the application over to the target, by a view or without."),
    "rollback": ("spine_migrate.cli.rollback:rollback", "Go back to the legacy tables with every write made since."),
    "retire": ("spine_migrate.cli.retire:retire", "Archive and drop the legacy side, once nobody needs it."),
    "undo": ("spine_migrate.cli.undo:undo", "Remove exactly what a migration moved."),
    "archive": ("spine_migrate.cli.archive:archive", "Write tables to compressed files, verify and restore them."),
    "worker-relay": (
        "spine_migrate.cli.worker_relay:worker_relay",
        "Bring runs to workers where one was lost on the way.",
    ),
    "shims": ("spine_migrate.cli.shims:shims", "Who still calls the old tasks, and which mode they are in."),
    "runs": ("spine_migrate.cli.runs:runs", "List, show, cancel, retry, reprocess, purge and index runs."),
}

#: Under this name a command leaves in the context's meta how its last sentence is said.
SAY = "spine_migrate.say"

_EPILOG = """\b
Exit codes:
  0  done and clean
  1  done, but there are differences or quarantined rows
  2  usage, configuration or mapping error
  3  refused, a precondition is missing; nothing was changed
  4  interrupted; the same command goes on from there
  5  a server or network fault that outlived the retries

\b
Examples:
  spine-migrate executions-to-runs --dry-run --target postgresql://dba@db.example/app
  SPINE_DATABASE_URL=postgresql://dba@db.example/app spine-migrate status
  spine-migrate COMMAND --help"""


class LazyGroup(click.Group):
    """The commands of ``_COMMANDS``, listed without an import, and the one place where errors become exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort) as error:
            _say(ctx, "Interrupted; what was committed stays, run the same command to go on.")
            raise click.exceptions.Exit(Interrupted.exit_code) from error
        except Exception as error:
            # The one place where every error, a defect too, becomes a sentence and an exit code.
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of a pipe has gone; click ends quietly
            if ctx.params["debug"]:
                traceback.print_exc()
            failure = known(error)
            _say(ctx, failure.sentence)
            if isinstance(error, OSError) and error.filename is None:
                _discard_output()
            raise click.exceptions.Exit(failure.exit_code) from error


def _say(ctx: click.Context, sentence: str) -> None:
    """As the command says things (``SAY`` in the context's meta, see ``cli.observing``), else as text."""
    say = ctx.meta.get(SAY)
    if say is None:
        click.echo(f"spine-migrate: {sentence}", err=True)
    else:
        say(sentence, event="error", level="error")


def _discard_output() -> None:
    """What the buffer still holds would be refused once more when the interpreter ends, with a traceback and exit code
    120 (Python manual, "Note on SIGPIPE").
    """
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def known(error: Exception) -> SpineMigrateError:
    """The error as one of ours. A driver's error that nobody explained is still the server's; any other is a defect."""
    if isinstance(error, SpineMigrateError):
        return error
    import psycopg

    from spine_migrate.db import faults

    if isinstance(error, psycopg.Error):
        return faults.explained(error)
    if isinstance(error, OSError):
        about = f" {error.filename}" if error.filename else " the output"
        return ConfigurationError(f"The system refuses{about}: {error.strerror or error}; what was committed stays.")
    return ServerFault(
        f"An unexpected {type(error).__name__} ended the command; what was committed stays. "
        f"Run it again with --debug before the command's name to see where."
    )


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="spine-migrate")
def main(*, debug: bool) -> None:  # read from the context, in LazyGroup.invoke
    """Move a live system off its legacy run-history tables onto one runs / run_events ledger."""
