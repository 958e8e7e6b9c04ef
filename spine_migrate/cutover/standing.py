"""That what the gates were told of the catalog is still so when the switch holds its locks.

Somebody may have answered the question an hour after he was asked, and the locks may have been waited for. What a view,
a trigger or a constraint needs in order to be made is a lock that the switch keeps from everybody, so that what is seen
then stays so to its end. Functions whose text names a table, and statements that applications send, need none: the
gates look at those again after the answer, and nothing can do more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from spine_migrate.carry.known import Known
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused

#: By table (its oid), kind and name: how it is.
Standing = dict[tuple[int, str, str], str]
#: What the tables themselves are, without what is spelled by the names of others, which a switch may have changed by
#: the time it looks.
TABLES = ("table", "column", "constraint", "unique index", "trigger")
# So many are named in a sentence.
_NAMED = 5


def standing(connection: Connection, oids: Sequence[int]) -> Standing:
    """The tables, and all that hangs on them by the catalog. The session's search_path is to be pinned."""
    return {
        (oid, kind, name): state
        for oid in oids
        for kind, name, state in connection.execute(query("standing", "standing"), {"oid": oid})
    }


def tables_of(members: Sequence[Known]) -> list[int]:
    """The legacy tables and the targets, by oid."""
    return list(dict.fromkeys(oid for one in members for oid in (one.tables.source.oid, one.tables.target.oid)))


def refuse_changed(
    connection: Connection, before: Standing, *, views: Collection[Name] = (), kinds: Collection[str] = ()
) -> None:
    """Raises Refused (``changed``), which names what is new, gone or otherwise than it was. ``views`` are ours;
    ``kinds``: look at these alone.
    """
    now = standing(connection, list(dict.fromkeys(oid for oid, _, _ in before)))
    ours = {("view", _printed(connection, name)) for name in views}
    changed = {place[1:] for place in before.keys() | now.keys() if before.get(place) != now.get(place)}
    _refuse(one for one in changed - ours if not kinds or one[0] in kinds)


def followers(connection: Connection, oids: Sequence[int]) -> Standing:
    """What hangs on views (their oids), whatever these are called by now."""
    return {
        (oid, kind, name): state
        for oid in oids
        for kind, name, state in connection.execute(query("standing", "followers"), {"oid": oid})
    }


def refuse_other_followers(connection: Connection, before: Standing, oids: Sequence[int]) -> None:
    """Raises as ``refuse_changed``; ``before``: what ``followers`` gave."""
    now = followers(connection, oids)
    _refuse({place[1:] for place in before.keys() | now.keys() if before.get(place) != now.get(place)})


def _refuse(changed: Iterable[tuple[str, str]]) -> None:
    apart = sorted(changed)
    if apart:
        named = ", ".join(f"{kind} {name}" for kind, name in apart[:_NAMED])
        more = f" and {len(apart) - _NAMED} more" if len(apart) > _NAMED else ""
        raise Refused(
            "changed",
            f"Somebody has changed what hangs on the tables since the command looked at it ({named}{more}); nothing "
            f"was switched. Give the command again.",
        )


def _printed(connection: Connection, name: Name) -> str:
    ((printed,),) = connection.execute("SELECT %s::regclass::text", (str(name),)).fetchall()
    return str(printed)
