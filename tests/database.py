"""What the fixture ``database`` hands to a test: one database, its owner, and logins for further ordinary roles.

What many tests begin with is arranged once in a session and copied for each of them, see ``Database.arrange``: to copy
a database takes a tenth of the time that it takes to make the tables.
"""

from __future__ import annotations

import atexit
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from secrets import token_hex
from typing import Any
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


def patient(url: str) -> str:
    """For what would give up connecting after two seconds otherwise, which a busy machine may need."""
    return f"{url}{'&' if '?' in url else '?'}connect_timeout=60"


@dataclass
class Database:
    """``url`` logs in as its owner, an ordinary role; ``admin_url`` as the superuser.

    A fresh one is created when it is first asked for, so that ``arrange`` can still say what it is a copy of.
    ``closing``: what is closed before it is dropped.
    """

    name: str
    server_url: str
    owner: Role
    extra_roles: list[Role] = field(default_factory=list)
    exists: bool = True
    closing: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    @property
    def url(self) -> str:
        self._exist()
        return url_for(self.server_url, self.name, self.owner)

    @property
    def admin_url(self) -> str:
        self._exist()
        return url_for(self.server_url, self.name)

    def arrange(self, make: Callable[..., object], *arguments: Hashable) -> None:
        """What ``make(url, *arguments)`` does to an empty database, by a copy of one to which it was done before.

        ``make`` is a function of a module. It connects as the owner and closes what it opened; what it leaves outside
        of the database, roles or settings, is not copied. Where something was done here already, it is called here.
        """
        if self.exists:
            make(self.url, *arguments)
        else:
            templates(self.server_url, self.owner).copy(self.name, make, arguments)
            self.exists = True

    def _exist(self) -> None:
        if not self.exists:
            _create(administrator(self.server_url), self.name, self.owner)
            self.exists = True

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


_administrators: dict[str, psycopg.Connection[TupleRow]] = {}


def administrator(server_url: str) -> psycopg.Connection[TupleRow]:
    """The superuser's connection, in autocommit, that makes and drops databases and roles: one for each server."""
    kept = _administrators.get(server_url)
    if kept is not None:
        try:
            kept.execute("SELECT")
        except psycopg.OperationalError:
            # The server was restarted.
            kept.close()
        else:
            return kept
    kept = _administrators[server_url] = psycopg.connect(server_url, autocommit=True)
    atexit.register(kept.close)
    return kept


def create_role(server_url: str, name: str) -> Role:
    role = Role(name, token_hex(8))
    administrator(server_url).execute(
        sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER PASSWORD {}").format(
            sql.Identifier(role.name), sql.Literal(role.password)
        )
    )
    return role


def drop_role(server_url: str, role: Role) -> None:
    administrator(server_url).execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role.name)))


@contextmanager
def fresh_database(server_url: str, name: str, owner: Role) -> Iterator[Database]:
    database = Database(name, server_url, owner, exists=False)
    try:
        with database.closing:
            yield database
    finally:
        drop(administrator(server_url), name)
        for role in database.extra_roles:
            drop_role(server_url, role)


#: Seconds for which it is tried to copy or drop one.
_PATIENCE = 60.0
#: Each is about 10 MB. What was not used for the longest time goes.
_KEPT_TEMPLATES = 16


class Templates:
    """Databases to which nobody can connect, so that several may copy one at the same time."""

    def __init__(self, server_url: str, owner: Role) -> None:
        self._server_url = server_url
        self._owner = owner
        self._names: OrderedDict[tuple[Callable[..., object], tuple[Hashable, ...]], str] = OrderedDict()

    def copy(self, name: str, make: Callable[..., object], arguments: tuple[Hashable, ...]) -> None:
        admin = administrator(self._server_url)
        key = make, arguments
        if key not in self._names:
            self._names[key] = self._made(admin, make, arguments)
        self._names.move_to_end(key)
        _create(admin, name, self._owner, self._names[key])
        if len(self._names) > _KEPT_TEMPLATES:
            drop(admin, self._names.popitem(last=False)[1])

    def drop(self) -> None:
        admin = administrator(self._server_url)
        while self._names:
            drop(admin, self._names.popitem()[1])

    def _made(
        self, admin: psycopg.Connection[Any], make: Callable[..., object], arguments: tuple[Hashable, ...]
    ) -> str:
        name = f"{self._owner.name}_template_{token_hex(4)}"
        _create(admin, name, self._owner)
        try:
            make(url_for(self._server_url, name, self._owner), *arguments)
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        except BaseException:
            drop(admin, name)
            raise
        return name


@cache
def templates(server_url: str, owner: Role) -> Templates:
    return Templates(server_url, owner)


def _create(admin: psycopg.Connection[Any], name: str, owner: Role, template: str = "template0") -> None:
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
        *map(sql.Identifier, (name, template, owner.name))
    )
    # What is dear in it are the checkpoints, which cost nothing where nothing is flushed.
    if admin.info.server_version >= 150000 and admin.execute("SHOW fsync").fetchall() == [("off",)]:
        statement += sql.SQL(" STRATEGY file_copy")
    alone(admin, statement)


def drop(admin: psycopg.Connection[Any], name: str) -> None:
    alone(admin, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def alone(admin: psycopg.Connection[Any], statement: sql.Composed) -> None:
    """What nobody else may be in the database for. The server waits five seconds for the sessions that are about to
    end, and a pool may have opened another one.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            admin.execute(statement)
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > end:
                raise
        else:
            return
