"""Expressions of the legacy table that the view's triggers evaluate in its stead, where that is not the same.

A table evaluates CHECK constraints and generated columns as the role that writes, with that session's search_path and
settings. The view's trigger functions are SECURITY DEFINER and pinned, so that there it is the role that made them. For
the server's own immutable functions that makes no difference. A function that somebody has written would run with the
rights of the tool's role, which its owner could use, and might not find what it names; and what asks who is writing
would get another answer. Defaults are evaluated by the server outside the triggers, as before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from psycopg.rows import dict_row

from spine_migrate.cutover.dependent import Dependent
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query

# As pg_get_expr writes what stands without a call (SQLValueFunction), where the role or the search_path decides. The
# session's own role is the same in the trigger.
_WHO = re.compile(r"\b(?:CURRENT_ROLE|CURRENT_USER|USER|CURRENT_SCHEMA)\b")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
# The server's functions that go by the role or by the search_path.
_ASKING = re.compile(
    r"has_\w+_privilege|pg_has_role|current_(?:user|schemas?|setting)|row_security_active|set_config|to_reg\w+"
    r"|text_regclass|pg_\w+_is_visible"
)
# Those that are the same for every role and setting.
_THE_SAME = frozenset({
    "now", "transaction_timestamp", "statement_timestamp", "clock_timestamp", "random", "gen_random_uuid", "uuidv4",
    "uuidv7", "pg_backend_pid",
})  # fmt: skip
_REMEDY = (
    "Drop it before the cutover and hold the target to it, where it is still needed; or say it with the server's "
    "immutable functions."
)


def expressions(connection: Connection, oid: int) -> Iterator[Dependent]:
    """Of a table, where this session's role makes the triggers. The search_path is pinned."""
    ((role,),) = connection.execute("SELECT current_user::text").fetchall()
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(query("view", "expressions"), {"oid": oid}).fetchall()
    for one in found:
        words = _WHO.findall(_QUOTED.sub("", one["expression"]))
        asking = sorted({*words, *(name for name in one["settled"] if _ASKING.fullmatch(name))})
        settings = [name for name in one["settled"] if name not in asking and name not in _THE_SAME]
        if one["written"]:
            yield Dependent(
                one["name"],
                one["kind"],
                f"It calls {', '.join(one['written'])}, which runs as whoever writes the table; the view's triggers "
                f"would call it as {role}, with all that this role may do and with no schema in the search_path.",
                _REMEDY,
            )
        elif asking:
            yield Dependent(
                one["name"],
                one["kind"],
                f"It goes by the role or the search_path of whoever writes the table ({', '.join(asking)}); in the "
                f"view's triggers these are {role} and pg_catalog.",
                _REMEDY,
            )
        elif settings:
            yield Dependent(
                one["name"],
                one["kind"],
                f"It may go by settings of the session ({', '.join(settings)}); in the view's triggers TimeZone is UTC "
                f"and DateStyle ISO.",
                "Know it.",
                blocks=False,
            )
