"""``spine-migrate mapping``: check, show and compile mapping files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from spine_migrate.cli.options import json_option, source_schema_option, target_schema_option

if TYPE_CHECKING:
    from spine_migrate.errors import SpineMigrateError
    from spine_migrate.mapping.model import Mapping

_CHECK_EXAMPLES = """\b
Examples:
  spine-migrate mapping check
  spine-migrate mapping check mine/orders.toml
  spine-migrate mapping check capture-spine/jobs --target postgresql://dba@db.example/app"""
_SHOW_EXAMPLES = """\b
Examples:
  spine-migrate mapping show capture-spine/executions
  spine-migrate mapping show mine/orders.toml --json"""
_SQL_EXAMPLES = """\b
Examples:
  spine-migrate mapping sql capture-spine/executions
  spine-migrate mapping sql capture-spine/jobs --form judge"""
_DOCS_EXAMPLES = """\b
Examples:
  spine-migrate mapping docs --check
  spine-migrate mapping docs mine/orders.toml > orders.md"""
_SCHEMA_EXAMPLES = """\b
Example:
  spine-migrate mapping schema > mapping.schema.json"""


@click.group()
def mapping() -> None:
    """Check, show and compile mapping files.

    A mapping is named as it ships, such as capture-spine/executions, or by the path of a file that ends in .toml.
    """


@mapping.command(epilog=_CHECK_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[NAME_OR_FILE]...")
@click.option("--target", metavar="URL", help="Hold them against the catalog of this database, too; changes nothing.")
@source_schema_option
@target_schema_option
@json_option
def check(
    names: tuple[str, ...], target: str | None, source_schema: str | None, target_schema: str | None, *, as_json: bool
) -> None:
    """Say whether mappings are complete; without a name, all that ship with the tool."""
    from spine_migrate.mapping.load import shipped

    found = [_checked(name, target, source_schema, target_schema) for name in names or shipped()]
    if as_json:
        click.echo(json.dumps(found))
    for one in found if not as_json else ():
        for problem in one["problems"]:
            click.echo(f"{one['mapping']}: {problem}", err=True)
        if not one["problems"]:
            missing = f"; the table lacks optional {', '.join(one['missing'])}" if one["missing"] else ""
            live = f", fits the database{missing}" if target is not None else ""
            click.echo(f"{one['mapping']}: complete, {one['fields']} fields for {one['columns']} columns{live}.")
    if worst := max(one["exit_code"] for one in found):
        raise click.exceptions.Exit(worst)


def _checked(name: str, target: str | None, source_schema: str | None, target_schema: str | None) -> dict[str, Any]:
    """The outcome for one mapping: its problems as sentences, and the exit code that they deserve."""
    from spine_migrate.errors import Drift, MappingError
    from spine_migrate.mapping.check import problems
    from spine_migrate.mapping.load import find, read_file

    found: list[SpineMigrateError] = []
    outcome: dict[str, Any] = {"mapping": name, "problems": [], "missing": [], "exit_code": 0}
    try:
        loaded = read_file(find(name))
        outcome |= {"digest": loaded.digest, "fields": len(loaded.fields), "columns": len(loaded.columns)}
        found.extend(problems(loaded))
        if not found and target is not None:
            outcome["missing"] = _missing(loaded, target, source_schema, target_schema)
    except Drift as error:
        return outcome | {"problems": error.differences, "exit_code": error.exit_code}
    except MappingError as error:
        found.append(error)
    return outcome | {
        "problems": [error.sentence for error in found],
        "exit_code": max((error.exit_code for error in found), default=0),
    }


def _missing(loaded: Mapping, url: str, source_schema: str | None, target_schema: str | None) -> list[str]:
    """The optional columns that the live table lacks. Raises Drift where the tables do not fit."""
    from spine_migrate.carry.tables import find_legacy
    from spine_migrate.db import catalog
    from spine_migrate.db.connect import connect
    from spine_migrate.mapping.bind import bind

    with connect(url) as connection:
        source = find_legacy(connection, loaded.source_table, source_schema or loaded.source_schema)
        target = catalog.find(connection, loaded.target.name, target_schema or loaded.target_schema)
        return bind(loaded, source, target).missing


@mapping.command(epilog=_SHOW_EXAMPLES)
@click.argument("name", metavar="NAME_OR_FILE")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show each field of a mapping: where it comes from, how, and how it comes back."""
    from dataclasses import asdict

    from spine_migrate.mapping.emit.docs import field_rows
    from spine_migrate.mapping.load import load

    loaded = load(name)
    rows = field_rows(loaded)
    if as_json:
        facts = {"mapping": loaded.name, "digest": loaded.digest, "source_table": loaded.source_table}
        facts |= {"target_table": loaded.target.name}
        fields = [asdict(row) for row in rows]
        click.echo(json.dumps({**facts, "fields": fields, "dropped": loaded.dropped}, ensure_ascii=False))
        return
    click.echo(f"{loaded.name}: {loaded.source_table} into {loaded.target.name}, digest {loaded.digest[:12]}")
    for row in rows:
        click.echo(f"\n{row.target} <- {row.source}".replace("`", ""))
        for label, text in (
            ("how", row.how),
            ("back", row.back),
            ("refused", ", ".join(row.refused)),
            ("note", row.note),
        ):
            if text not in ("", "—"):
                click.echo(f"  {label}: {text}".replace("`", ""))
    for column, reason in loaded.dropped.items():
        click.echo(f"\n{column} is dropped: {reason}")


@mapping.command("sql", epilog=_SQL_EXAMPLES)
@click.argument("name", metavar="NAME_OR_FILE")
@click.option(
    "--form",
    type=click.Choice(["forward", "judge", "inverse", "parity"]),
    default="forward",
    show_default=True,
    help="What moves rows, finds those that cannot be carried, restores them, or compares both sides.",
)
@source_schema_option
@target_schema_option
def show_sql(name: str, form: str, source_schema: str | None, target_schema: str | None) -> None:
    """Print what a mapping compiles to, for tables exactly as it declares them."""
    from spine_migrate.mapping.bind import declared
    from spine_migrate.mapping.emit import listing
    from spine_migrate.mapping.load import load

    binding = declared(load(name), source_schema=source_schema, target_schema=target_schema)
    click.echo(listing.FORMS[form](binding))


@mapping.command(epilog=_DOCS_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[NAME_OR_FILE]...")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 where mappings/README.md is stale.")
def docs(names: tuple[str, ...], *, check: bool) -> None:
    """Write mappings/README.md anew, or print the documentation of the mappings that are named."""
    from spine_migrate.mapping.emit.docs import readme, readme_file, section
    from spine_migrate.mapping.load import load

    if names:
        if check:
            raise click.UsageError("--check is for the documentation of the shipped mappings; leave the names out.")
        click.echo("\n".join(section(load(name)) for name in names), nl=False)
        return
    file, text = readme_file(), readme()
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        click.echo("mappings/README.md is up to date.", err=True)
    elif check:
        click.echo("mappings/README.md is stale; run spine-migrate mapping docs.", err=True)
        raise click.exceptions.Exit(1)
    else:
        file.write_text(text, encoding="utf-8")
        click.echo("mappings/README.md is written anew.", err=True)


@mapping.command(epilog=_SCHEMA_EXAMPLES)
def schema() -> None:
    """Print the JSON Schema of mapping files, for editors."""
    from spine_migrate.resources import mappings_dir

    click.echo((mappings_dir() / "mapping.schema.json").read_text(encoding="utf-8"), nl=False)
