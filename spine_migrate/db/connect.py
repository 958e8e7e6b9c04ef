"""Opening connections: libpq URLs in, a session with known settings out, failures as sentences, passwords masked."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from spine_migrate.errors import ConfigurationError, ServerFault, SpineMigrateError

Connection = psycopg.Connection[Any]

# A session's settings decide what the compiled expressions mean: timestamps inside JSON are written in the session's
# zone, row security must fail instead of hiding rows, and a scan must not start in the middle of a table.
SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "1",
    "row_security": "off",
    "synchronize_seqscans": "off",
    "client_min_messages": "warning",
    "lock_timeout": "5s",
    # What a role or database may set for its applications would cut a long run short.
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
    defaults: dict[str, Any] = {"application_name": "spine-migrate", "connect_timeout": "10"}
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
    # One round trip; set_config with parameters, so a value is never part of the statement.
    names = {**SETTINGS, **(settings or {})}
    connection.execute(
        # Older servers lack some of them.
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s(name, value)"
        " WHERE current_setting(name, true) IS NOT NULL",
        (list(names), list(names.values())),
    )
    connection.autocommit = autocommit
    return connection


def pin(connection: Connection) -> None:
    """Give a session the settings of ``PINNED``."""
    for name, value in PINNED.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


def _refused(error: psycopg.OperationalError, url: str | None) -> SpineMigrateError:
    """A failed connection has no SQLSTATE, only words."""
    words = masked(" ".join(str(error).split()), url)
    if "password" in words or "authentication" in words or "no pg_hba.conf entry" in words:
        return ConfigurationError(f"Cannot log in to {describe(url)}; check the user and the password ({words}).")
    if "does not exist" in words:
        return ConfigurationError(f"Cannot open {describe(url)}; check the names in the URL ({words}).")
    return ServerFault(f"No server answers for {describe(url)}; check that it runs and can be reached ({words}).")
