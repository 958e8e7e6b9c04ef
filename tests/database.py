"""What the fixture ``database`` hands to a test: one database, its owner, and logins for further ordinary roles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow


@dataclass(frozen=True)
class Role:
    name: str
    password: str


def url_for(server_url: str, database: str, role: Role | None = None) -> str:
    """The same server, another database and, where a role is given, another login."""
    parts = urlsplit(server_url)
    netloc = parts.netloc
    if role is not None:
        netloc = f"{role.name}:{role.password}@{parts.netloc.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}"))


@dataclass(frozen=True)
class Database:
    """A fresh database. ``url`` logs in as its owner, an ordinary role; ``admin_url`` as the superuser."""

    name: str
    server_url: str
    owner: Role
    extra_roles: list[Role] = field(default_factory=list)

    @property
    def url(self) -> str:
        return url_for(self.server_url, self.name, self.owner)

    @property
    def admin_url(self) -> str:
        return url_for(self.server_url, self.name)

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection[TupleRow]:
        """A connection of the owner; close it, or use it as a context manager."""
        return psycopg.connect(self.url, autocommit=autocommit)

    def connect_admin(self, *, autocommit: bool = False) -> psycopg.Connection[TupleRow]:
        return psycopg.connect(self.admin_url, autocommit=autocommit)

    def add_role(self, purpose: str) -> Role:
        """A further ordinary role without any privilege here, dropped with the database; see ``url_as``."""
        role = create_role(self.server_url, f"{self.name}_{purpose}")
        self.extra_roles.append(role)
        return role

    def url_as(self, role: Role) -> str:
        return url_for(self.server_url, self.name, role)


def create_role(server_url: str, name: str) -> Role:
    role = Role(name, token_hex(8))
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER PASSWORD {}").format(
                sql.Identifier(role.name), sql.Literal(role.password)
            )
        )
    return role


def drop_role(server_url: str, role: Role) -> None:
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role.name)))


@contextmanager
def fresh_database(server_url: str, name: str, owner: Role) -> Iterator[Database]:
    """Created from ``template0``, to which nobody can connect: several workers may copy it at the same time."""
    database = Database(name, server_url, owner)
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {}").format(
                sql.Identifier(name), sql.Identifier(owner.name)
            )
        )
        try:
            yield database
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            for role in database.extra_roles:
                drop_role(server_url, role)
