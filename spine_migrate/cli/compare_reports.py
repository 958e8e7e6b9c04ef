"""How ``spine-migrate compare`` reports: the formats, where each goes, and the schema of the JSON."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from spine_migrate.cli.options import Command, json_option

if TYPE_CHECKING:
    from spine_migrate.parity.model import Report

FORMATS = ("text", "json", "markdown", "junit", "github", "sarif", "html")
"""Named here, since the renderers load what --help must not; a test holds both to each other."""


@dataclass(frozen=True)
class Destination:
    """``file`` is None for stdout."""

    form: str
    file: Path | None


class _FormatAndFile(click.ParamType[Destination]):
    name = "FORMAT=FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Destination:
        if isinstance(value, Destination):
            return value
        form, _, file = str(value).partition("=")
        if form not in FORMATS or not file:
            self.fail(f"{value!r} is not FORMAT=FILE, with one of {', '.join(FORMATS)}.", param, ctx)
        return Destination(form, None if file == "-" else Path(file))


def report_options(command: Command) -> Command:
    """--format, --json, --output, --report and --json-schema, in this order."""
    decorators = [
        click.option(
            "--format", "form", type=click.Choice(FORMATS), default=None, help="How to report; text is the default."
        ),
        json_option,
        click.option(
            "--output",
            type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
            help="Write the report to this file.",
        ),
        click.option(
            "--report",
            "reports",
            type=_FormatAndFile(),
            multiple=True,
            help="Write a further report of the same comparison; repeatable.",
        ),
        click.option(
            "--json-schema",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_schema,
            help="Print the JSON Schema of --format json and exit.",
        ),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def _print_schema(context: click.Context, _: click.Parameter, asked: bool) -> None:  # noqa: FBT001 - click's signature
    if asked and not context.resilient_parsing:
        from spine_migrate.report.parity_json import schema

        click.echo(schema(), nl=False)
        context.exit()


def destinations(
    *, form: str | None, as_json: bool, output: Path | None, reports: tuple[Destination, ...]
) -> list[Destination]:
    """Where the reports go, the main one first. Raises UsageError for what cannot be written, before anything is
    compared.
    """
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} are two different reports; give one of them.")
    main = Destination("json" if as_json else form or "text", None if output is None or str(output) == "-" else output)
    every = [main, *reports]
    files = [one.file.absolute() for one in every if one.file]
    if len(set(files)) < len(files) or sum(1 for one in every if one.file is None) > 1:
        raise click.UsageError("Two reports would go to the same place; give each a file of its own.")
    for file in files:
        if not file.parent.is_dir() or file.is_dir():
            raise click.UsageError(f"No report can be written to {file}; its folder must exist, and it be no folder.")
    return every


def wants_picture(every: list[Destination]) -> bool:
    """Whether one of the reports draws; the picture costs a pass over the legacy tables."""
    return any(one.form == "html" for one in every)


def write(report: Report, every: list[Destination]) -> None:
    for one in every:
        if one.form == "text" and one.file is None:
            _text(report, sys.stdout)
            continue
        text = _rendered(report, one.form)
        if one.file is None:
            click.echo(text, nl=False)
        else:
            one.file.write_text(text, encoding="utf-8")


def _text(report: Report, file: TextIO) -> None:
    from spine_migrate.report.parity_terminal import render

    render(report, file)


def _rendered(report: Report, form: str) -> str:
    from spine_migrate.report import (
        parity_github,
        parity_html,
        parity_json,
        parity_junit,
        parity_markdown,
        parity_sarif,
    )

    if form == "text":
        plain = io.StringIO()
        _text(report, plain)
        return plain.getvalue()
    renderers: dict[str, Callable[[Report], str]] = {
        "json": parity_json.render,
        "markdown": parity_markdown.render,
        "junit": parity_junit.render,
        "github": parity_github.render,
        "sarif": parity_sarif.render,
        "html": parity_html.render,
    }
    return renderers[form](report)
