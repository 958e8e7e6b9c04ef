"""Roles that have what ``spine-migrate grants`` prints, and nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner
from psycopg import sql

from spine_migrate.cli import main
from tests.database import Database, Role
from tests.legacy import Legacy, build


@dataclass(frozen=True)
class Held:
    """One privilege that a role was granted, and the two statements that take it and give it back."""

    name: str
    revoke: sql.SQL
    grant: sql.SQL


def printed(database: Database, role: Role, *command: str) -> list[dict[str, Any]]:
    """The grants that the command line prints for a command, for example ``"executions-to-runs", "--offline"``."""
    result = CliRunner().invoke(main, ["grants", *command, "--role", role.name, "--target", database.url, "--json"])
    assert result.exit_code == 0, result.stderr
    return [grant for grants in json.loads(result.stdout)["commands"].values() for grant in grants]


def give(database: Database, role: Role, *command: str) -> list[Held]:
    """Run what is printed for a command, as a superuser: membership in an owner is nobody else's to give. Gives what
    the role holds by it.
    """
    grants = printed(database, role, *command)
    with database.connect_admin(autocommit=True) as admin:
        for grant in grants:
            admin.execute(sql.SQL(grant["statement"]))
    return [held for grant in grants for held in _held(grant, role)]


def _held(grant: dict[str, Any], role: Role) -> list[Held]:
    if grant["kind"] == "role":
        give_back = sql.SQL(grant["statement"])
        take = sql.SQL("REVOKE {} FROM {}").format(sql.SQL(grant["object"]), sql.Identifier(role.name))
        return [Held(f"membership in {grant['object']}", sql.SQL(take.as_string(None)), give_back)]
    found = []
    for privilege in grant["privileges"]:
        columns = ", ".join(f'"{name}"' for name in grant["columns"])
        what = f"{privilege} ({columns})" if columns else privilege
        place = f"{what} ON {grant['kind'].upper()} {grant['object']}"
        grantee = sql.Identifier(role.name).as_string(None)
        found.append(Held(place, sql.SQL(f"REVOKE {place} FROM {grantee}"), sql.SQL(f"GRANT {place} TO {grantee}")))
    return found


#: The schemas of ``apart``, for the command line.
SCHEMAS = ("--source-schema", "old", "--target-schema", "spine")


def apart(database: Database) -> Legacy:
    """In schemas that PUBLIC may not use; the target draws from a sequence, and an application's table points to it."""
    built = build(database.url, source_schema="old", target_schema="spine")
    built.execute("ALTER TABLE spine.runs ADD COLUMN ticket bigserial")
    built.execute("CREATE SCHEMA billing")
    built.execute('CREATE TABLE billing."bills %s" (run_id uuid REFERENCES spine.runs)')
    built.execute("CREATE TABLE billing.reviews (event_id uuid REFERENCES spine.run_events ON DELETE CASCADE)")
    built.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.name)))
    return built
