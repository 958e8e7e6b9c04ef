"""Whether all is right, by SQL that shares nothing with the tool: what was committed is there, on both sides."""

from __future__ import annotations

from collections import Counter
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from tests.chaos.storm.record import Told
from tests.legacy import differences, doubled, lost, wrong_links

Connection = psycopg.Connection[Any]
_PAIR = ("executions", "execution_events")


def halfway(connection: Connection) -> None:
    """History is on the move: what has been moved is as its source row says."""
    _as_they_must_be(connection, *_PAIR, "jobs")


def _as_they_must_be(connection: Connection, *entities: str) -> None:
    for entity in entities:
        assert not (found := differences(connection, entity)), (entity, len(found), found[:3])


def agree(connection: Connection, *, cut_over: bool) -> None:
    """Everything is applied: nothing waits, nothing is in quarantine, target == forward(source)."""
    assert not _rows(connection, "SELECT * FROM spine_migrate.change_log LIMIT 3")
    assert not (found := _rows(connection, "SELECT * FROM spine_migrate.pending LIMIT 3")), found
    assert not (found := _rows(connection, "SELECT source_key, reason FROM spine_migrate.quarantine")), found
    _whole(connection, *_PAIR, "jobs")
    _linked(connection, judged=not cut_over)
    if not cut_over:
        return
    # The application's names are views of the target by now: the tables behind are to say the same. Temporary views
    # come first in the search path.
    with connection.transaction(force_rollback=True):
        connection.execute("CREATE TEMP VIEW executions AS SELECT * FROM public.executions_legacy")
        connection.execute("CREATE TEMP VIEW execution_events AS SELECT * FROM public.execution_events_legacy")
        _whole(connection, *_PAIR)
        _linked(connection, judged=False)
    for entity in _PAIR:
        apart = _apart(connection, sql.Identifier(entity), sql.Identifier(f"{entity}_legacy"))
        assert not apart, (entity, apart[:3])


def _whole(connection: Connection, *entities: str) -> None:
    _as_they_must_be(connection, *entities)
    for entity in entities:
        assert not (found := lost(connection, entity)), (entity, found[:3])
        assert not (found := doubled(connection, entity)), (entity, found[:3])


def _linked(connection: Connection, *, judged: bool) -> None:
    """``judged``: whether an open link's row may still come is said as well; after a cutover nobody asks."""
    found = wrong_links(connection)
    if not judged:
        # As it is on record and as it is due, with different states.
        twice = Counter(row[:3] for row in found)
        found = [row for row in found if twice[row[:3]] != 2]
    assert not found, found[:5]


def _apart(connection: Connection, one: sql.Identifier, other: sql.Identifier) -> list[Any]:
    """Rows that only one of them has."""
    return connection.execute(
        sql.SQL("(TABLE {0} EXCEPT ALL TABLE {1}) UNION ALL (TABLE {1} EXCEPT ALL TABLE {0})").format(one, other)
    ).fetchall()


def recorded(connection: Connection, told: Told) -> None:
    """Every write that a writer knows to be committed is there by the application's names, and nothing else is."""
    there = {(writer, number) for writer, number in _rows(connection, "SELECT writer, number FROM storm.witness")}
    assert there == told.witnessed, ("transactions", list(there ^ told.witnessed)[:5])
    found = {
        key: (status, error)
        for key, status, error in connection.execute(
            "SELECT execution_id::text, status, error FROM executions"
            " WHERE execution_id = ANY(%s::uuid[]) OR pipeline_name = 'live'",
            (list(told.committed.rows),),
        )
    }
    expected = {
        key: (found.get(key, (None, None))[0] if row[0] is None else row[0], row[1])
        for key, row in told.committed.rows.items()
        if row is not None
    }
    assert found == expected, ("executions", _unlike(found, expected))
    events = dict(
        connection.execute(
            "SELECT execution_id::text, count(*) FROM execution_events WHERE execution_id = ANY(%s::uuid[]) GROUP BY 1",
            (list(told.committed.events),),
        ).fetchall()
    )
    wanted = {key: count for key, count in told.committed.events.items() if count}
    assert events == wanted, ("events", _unlike(events, wanted))
    ((truncated,),) = _rows(connection, "SELECT n FROM storm.truncated")
    jobs = dict(_rows(connection, "SELECT job_id::text, error_message FROM jobs WHERE job_type = 'live'"))
    left = {key: job[1] for key, job in told.committed.jobs.items() if job is not None and job[0] == truncated}
    assert jobs == left, ("jobs", _unlike(jobs, left))


def carried(connection: Connection, told: Told) -> None:
    """The same on the target, by its own names."""
    found = {
        key: (status, error)
        for key, status, error in connection.execute(
            "SELECT run_id::text, status, error FROM runs WHERE run_id = ANY(%s::uuid[])", (list(told.committed.rows),)
        )
    }
    expected = {
        key: (found.get(key, (None, None))[0] if row[0] is None else row[0], row[1])
        for key, row in told.committed.rows.items()
        if row is not None
    }
    assert found == expected, ("runs", _unlike(found, expected))
    events = dict(
        connection.execute(
            "SELECT run_id::text, count(*) FROM run_events WHERE run_id = ANY(%s::uuid[]) GROUP BY 1",
            (list(told.committed.events),),
        ).fetchall()
    )
    wanted = {key: count for key, count in told.committed.events.items() if count}
    assert events == wanted, ("run_events", _unlike(events, wanted))


def keep(connection: Connection) -> None:
    """What the application sees, for ``retired``."""
    for entity in _PAIR:
        connection.execute(sql.SQL("CREATE TABLE storm.{0} AS TABLE public.{0}").format(sql.Identifier(entity)))


def retired(connection: Connection) -> None:
    """The names are gone, and the archive, restored into the schema ``archived``, has what they showed."""
    for entity in _PAIR:
        ((left,),) = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s)",
            ([entity, f"{entity}_legacy"],),
        ).fetchall()
        assert not left, entity
        names = _rows(connection, "SELECT relname::text FROM pg_class WHERE relnamespace = 'archived'::regnamespace")
        (name,) = [name for (name,) in names if name in (entity, f"{entity}_legacy")]
        apart = _apart(connection, sql.Identifier("storm", entity), sql.Identifier("archived", name))
        assert not apart, (entity, apart[:3])


def one_active(connection: Connection) -> None:
    """A feed that all writers flip has exactly one running row, or was never flipped."""
    found = _rows(
        connection,
        "SELECT f.feed_id, count(*) FILTER (WHERE e.status = 'running'), count(e.*) FROM storm.feed f"
        " LEFT JOIN executions e ON e.feed_id = f.feed_id GROUP BY 1",
    )
    assert all(running == (1 if rows else 0) for _, running, rows in found), found


def _rows(connection: Connection, statement: LiteralString) -> list[Any]:
    return connection.execute(statement).fetchall()


def _unlike(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
    return {"number": len(keys), **{key: (found.get(key), expected.get(key)) for key in keys[:5]}}
