"""A privilege as a GRANT statement, and whether a role holds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.errors import ConfigurationError


@dataclass(frozen=True)
class Grant:
    """``kind`` is DATABASE, SCHEMA, TABLE, SEQUENCE, or ROLE for membership; ``name`` its parts, unquoted.

    ``columns`` limits the privileges to some of a table's columns. ``superuser``: membership in this role would be more
    than any command needs, so its statement is a comment.
    """

    kind: str
    name: tuple[str, ...]
    privileges: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    superuser: bool = False

    @property
    def object(self) -> str:
        return sql.Identifier(*self.name).as_string(None)

    def statement(self, role: str) -> str:
        """The GRANT, quoted, with its semicolon."""
        grantee = sql.Identifier(role)
        if self.superuser:
            return (
                f"-- Needs what {self.object} owns, a superuser: run the command as that role, or give that "
                "to an ordinary role first, with ALTER TABLE ... OWNER TO."
            )
        if self.kind == "ROLE":
            return sql.SQL("GRANT {} TO {};").format(sql.Identifier(*self.name), grantee).as_string(None)
        columns = sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, self.columns)))
        privileges = [
            sql.SQL("{}{}").format(sql.SQL(privilege), columns) if self.columns else sql.SQL(privilege)
            for privilege in self.privileges
        ]
        return (
            sql.SQL("GRANT {} ON {} {} TO {};")
            .format(sql.SQL(", ").join(privileges), sql.SQL(self.kind), sql.Identifier(*self.name), grantee)
            .as_string(None)
        )


def merged(grants: Iterable[Grant]) -> list[Grant]:
    """One grant per object (and per list of columns), in the order of first mention."""
    merged: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Grant] = {}
    for grant in grants:
        place = (grant.kind, grant.name, grant.columns)
        held = merged.get(place)
        both = dict.fromkeys([*(held.privileges if held else ()), *grant.privileges])
        merged[place] = replace(grant, privileges=tuple(both))
    return list(merged.values())


def acting_role(connection: Connection, role: str | None) -> str:
    """``role``, or the session's own. Raises ConfigurationError where there is no such role."""
    if role is None:
        return str(ask(connection, "current_role"))
    if not ask(connection, "role_exists", role=role):
        raise ConfigurationError(f"There is no role {role!r} on this server; create it, or correct --role.")
    return role


def missing(connection: Connection, grants: Iterable[Grant], role: str | None = None) -> list[Grant]:
    """Those of ``grants``, cut down to the privileges that the role (the session's own by default) does not hold.

    What it has through membership, ownership and PUBLIC counts. An object that is not there yet is missing as a whole.
    """
    who = acting_role(connection, role)
    found = []
    for grant in grants:
        if grant.kind == "ROLE":
            if not _held(connection, who, grant, "USAGE"):
                found.append(grant)
            continue
        lacking = tuple(one for one in grant.privileges if not _held(connection, who, grant, one))
        if lacking:
            found.append(replace(grant, privileges=lacking))
    return found


def _held(connection: Connection, role: str, grant: Grant, privilege: str) -> bool:
    kind = "columns" if grant.columns else grant.kind.lower()
    return bool(
        ask(
            connection,
            f"held_{kind}",
            role=role,
            schema=grant.name[0],
            object=grant.name[-1],
            privilege=privilege,
            columns=list(grant.columns),
        )
    )


def ask(connection: Connection, name: str, **parameters: Any) -> Any:
    """The first value that a query about privileges returns; None where it returns no row."""
    row = connection.execute(query("privileges", name), parameters).fetchone()
    return None if row is None else row[0]
