"""Roles that have what ``spine-migrate grants`` prints, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from click.testing import CliRunner
from psycopg import sql
from psycopg.rows import TupleRow

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


#: Of ``Fresh``: the rows as they were filled.
_KEPT = "kept by the test"


class Fresh:
    """What an attempt begins with: filled once, and put back after an attempt that has changed anything.

    To fill takes longer than to put back, which takes longer than to look.
    """

    def __init__(self, database: Database, fill: Callable[[], None]) -> None:
        self._database = database
        self._fill = fill
        self._contents: list[TupleRow] = []

    def again(self) -> None:
        with self._database.connect_admin(autocommit=True) as admin:
            tables = _tables(admin)
            if not self._contents:
                self._fill()
                _keep(admin, tables)
                self._contents = _contents(admin, tables)
            elif _contents(admin, tables) != self._contents:
                _put_back(admin, tables)
                assert _contents(admin, tables) == self._contents, "tables or triggers were left behind"


def _tables(admin: psycopg.Connection[TupleRow]) -> list[tuple[str, str]]:
    return admin.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname NOT IN ('information_schema', %s) AND n.nspname NOT LIKE 'pg\\_%%'"
        " ORDER BY 1, 2",
        [_KEPT],
    ).fetchall()


def _contents(admin: psycopg.Connection[TupleRow], tables: list[tuple[str, str]]) -> list[TupleRow]:
    """Every row of every table, and the triggers."""
    each = [
        sql.SQL("SELECT {}, string_agg(t::text, ', ' ORDER BY t::text) FROM {} AS t").format(
            sql.Literal(f"{schema}.{name}"), sql.Identifier(schema, name)
        )
        for schema, name in tables
    ]
    triggers = sql.SQL("SELECT tgname::text, tgrelid::text FROM pg_trigger WHERE NOT tgisinternal")
    return sorted(admin.execute(sql.SQL(" UNION ALL ").join([*each, triggers])).fetchall(), key=str)


def _keep(admin: psycopg.Connection[TupleRow], tables: list[tuple[str, str]]) -> None:
    admin.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(_KEPT)))
    for number, table in enumerate(tables):
        statement = sql.SQL("CREATE TABLE {} AS TABLE {}")
        admin.execute(statement.format(sql.Identifier(_KEPT, str(number)), sql.Identifier(*table)))


def _put_back(admin: psycopg.Connection[TupleRow], tables: list[tuple[str, str]]) -> None:
    with admin.transaction():
        # Neither triggers nor foreign keys.
        admin.execute("SET LOCAL session_replication_role = replica")
        names = [sql.Identifier(*table) for table in tables]
        admin.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(names)))
        for number, name in enumerate(names):
            statement = sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE TABLE {}")
            admin.execute(statement.format(name, sql.Identifier(_KEPT, str(number))))


#: The schemas of ``apart``, for the command line.
SCHEMAS = ("--source-schema", "old", "--target-schema", "spine")


def apart(database: Database) -> Legacy:
    """In schemas that PUBLIC may not use; the target draws from a sequence, and an application's table points to it."""
    built = build(database, source_schema="old", target_schema="spine")
    built.execute("ALTER TABLE spine.runs ADD COLUMN ticket bigserial")
    built.execute("CREATE SCHEMA billing")
    built.execute('CREATE TABLE billing."bills %s" (run_id uuid REFERENCES spine.runs)')
    built.execute("CREATE TABLE billing.reviews (event_id uuid REFERENCES spine.run_events ON DELETE CASCADE)")
    built.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.name)))
    return built
