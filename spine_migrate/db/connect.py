"""Opening connections: libpq URLs in, a session with known settings out, failures as sentences, passwords masked."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from spine_migrate.db.arrays import TextsDumper
from spine_migrate.db.refusal import sqlstate
from spine_migrate.errors import ConfigurationError, ServerFault, SpineMigrateError

Connection = psycopg.Connection[Any]

# A session's settings decide what the compiled expressions mean: timestamps inside JSON are written in the session's
# zone, row security must fail instead of hiding rows, and a scan must not start in the middle of a table.
SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "row_security": "off",
    "synchronize_seqscans": "off",
    "client_min_messages": "warning",
    "lock_timeout": "5s",
    # What a role or database may set for its applications would cut a long run short.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
    # Text comes and goes as UTF-8, and NULL in an array of it is a NULL.
    "client_encoding": "UTF8",
    "array_nulls": "on",
    # Types are compared with what format_type prints, "uuid" is not uuid.
    "quote_all_identifiers": "off",
}

# For sessions that evaluate a mapping's expressions. Otherwise a function or operator that somebody has put into a
# schema of the path could stand in for the server's own, even with pg_catalog first: the closest argument types win.
# Names must have been resolved before (PostgreSQL manual, 5.10.6 and 10.3).
PINNED = {"search_path": "pg_catalog, pg_temp"}


def conninfo(url: str | None) -> str:
    """A libpq URL or key=value string, completed with our defaults; None leaves everything to the PG* environment.

    Raises ConfigurationError where libpq cannot parse it, or would take part of a password for a host or a database and
    name it in a message; the text is not repeated.
    """
    # libpq's login ends at the first @, unless a / comes before it.
    place = re.sub(r"^[^@/]*@", "", (url or "").partition("://")[2]).partition("?")[0]
    if "@" in place:
        raise ConfigurationError(
            "The connection URL has an @ too many, or a / before it; in a password, user or database name write "
            "@ as %40, / as %2F and : as %3A."
        )
    try:
        given = conninfo_to_dict(url or "")
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "The connection URL cannot be parsed; write postgresql://user@host:port/database."
        ) from None
    # A server that was cut off, or a firewall that forgets an idle session, is noticed in a minute, not in a quarter of
    # an hour. Whoever is alive answers these, however long a statement takes.
    defaults: dict[str, Any] = {
        "application_name": "spine-migrate",
        "connect_timeout": "10",
        "keepalives_idle": "60",
        "tcp_user_timeout": "60000",
    }
    return make_conninfo("", **(defaults | given))


def describe(url: str | None) -> str:
    """Where a URL leads, for messages: user, database, host and port, never the password."""
    parts = conninfo_to_dict(conninfo(url))
    host = parts.get("host") or parts.get("hostaddr") or "the default host"
    port = f":{parts['port']}" if parts.get("port") else ""
    user = f" as {parts['user']}" if parts.get("user") else ""
    return f"{parts.get('dbname') or 'the default database'} on {host}{port}{user}"


def masked(text: str, url: str | None) -> str:
    """``text`` with the password of ``url`` replaced, wherever a driver or server message repeats it."""
    password = conninfo_to_dict(conninfo(url)).get("password")
    return text.replace(str(password), "****") if password else text


def connect(url: str | None, *, autocommit: bool = True, settings: dict[str, str] | None = None) -> Connection:
    """Open a connection with ``SETTINGS``, then ``settings`` on top.

    Raises ConfigurationError for a wrong password or a database that is not there, ServerFault where no server answers.
    """
    try:
        connection = psycopg.connect(conninfo(url), autocommit=True)
    except psycopg.OperationalError as error:
        raise _refused(error, url) from None
    except psycopg.ProgrammingError as error:
        raise _unusable(masked(" ".join(str(error).split()), url)) from None
    # One round trip; set_config with parameters, so a value is never part of the statement.
    names = {**SETTINGS, **(settings or {})}
    connection.execute(
        # Older servers lack some of them.
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s(name, value)"
        " WHERE current_setting(name, true) IS NOT NULL",
        (list(names), list(names.values())),
    )
    connection.autocommit = autocommit
    connection.adapters.register_dumper(list, TextsDumper)
    return connection


def another(connection: Connection, *, settings: dict[str, str] | None = None) -> Connection:
    """A further session with the same login, in autocommit. Raises as ``connect`` does."""
    login = {**connection.info.get_parameters(), "password": connection.info.password or None}
    return connect(make_conninfo("", **{name: value for name, value in login.items() if value}), settings=settings)


def pin(connection: Connection) -> None:
    """Give a session the settings of ``PINNED``."""
    for name, value in PINNED.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


# What libpq and the server say in English, and the code behind it.
_STATES = {
    "password": "28P01",
    "authentication": "28P01",
    "no pg_hba.conf entry": "28000",
    "does not exist": "3D000",
    "connection is bad: invalid ": "22023",
    "definition of service": "22023",
    "Connection refused": "",
    "is starting up": "57P03",
    "is shutting down": "57P03",
    "not accepting connections": "57P03",
    "not yet accepting connections": "57P03",
    "in recovery mode": "57P03",
    "too many clients": "53300",
    "too many connections": "53300",
    "remaining connection slots": "53300",
    "No such file or directory": "",
}


def _unusable(words: str) -> ConfigurationError:
    return ConfigurationError(f"The connection settings cannot be used ({words}).")


def _refused(error: psycopg.OperationalError, url: str | None) -> SpineMigrateError:
    """A failed connection has no SQLSTATE, only words; where they are not English, the server is asked for its code."""
    words = masked(" ".join(str(error).split()), url)
    state = _STATES.get(next((sign for sign in _STATES if sign in words), ""))
    if state is None and error.pgconn is not None and error.pgconn.needs_password:
        state = "28P01"
    if state is None and not isinstance(error, psycopg.errors.ConnectionTimeout):
        state = sqlstate(conninfo(url)) or ""
    # invalid_authorization_specification and invalid_password; invalid_catalog_name
    if state and state.startswith("28"):
        return ConfigurationError(f"Cannot log in to {describe(url)}; check the user and the password ({words}).")
    if state == "3D000":
        return ConfigurationError(f"Cannot open {describe(url)}; check the names in the URL ({words}).")
    # A setting in the URL that libpq or the server does not take: data exceptions, undefined_object and its class.
    if state and state != "42501" and state.startswith(("22", "42")):
        return _unusable(words)
    if state == "42501":
        return ConfigurationError(f"The role may not connect to {describe(url)} ({words}); GRANT it CONNECT.")
    if state in ("57P03", "53300"):
        return ServerFault(f"The server lets nobody in for {describe(url)} at present ({words}).", sqlstate=state)
    return ServerFault(f"No server answers for {describe(url)}; check that it runs and can be reached ({words}).")
