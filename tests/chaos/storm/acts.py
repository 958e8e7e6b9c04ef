"""What the application does: every kind of write to its tables, by the names it knows, whatever is behind them.

Each act says what it makes of rows that are this writer's own, so that every one of them can be looked for later. An
own row that is not there when it is written to, or is not as it was committed, is ``Mislaid``.
"""

from __future__ import annotations

import time
from typing import Any, LiteralString

import psycopg

from tests.chaos.storm.own import ENDED, Mislaid, Own
from tests.chaos.storm.record import Job

# What a statement may have to wait for: nothing but the tool, other writers, all who use a table.
OWN, SHARED, TRUNCATE = "own rows", "shared rows", "truncate"
# Acts that must see what others have committed until then.
CURRENT = frozenset({"flip_shared", "truncate", "refer"})
_ANY = (*ENDED, "pending", "queued", "running")


class Application(Own):
    """``act`` does one of ``_WEIGHTS``, by its name."""

    def act(self, connection: psycopg.Connection[Any], name: str) -> None:
        self.connection = connection
        getattr(self, name)()

    def acts(self, *, odd: bool) -> list[str]:
        """Of one transaction. ``odd``: whether a row may be written that nobody can carry, to be mended by the next."""
        if self.known.odd is not None:
            return ["mend"]
        drawn = self.chance.random()
        if drawn < 0.004:
            return ["truncate"]
        if odd and drawn < 0.02:
            return ["odd"]
        names, weights = zip(*_WEIGHTS.items(), strict=True)
        drawn_acts = self.chance.choices(names, weights, k=self.chance.choice((1, 1, 2, 3)))
        # What locks before its snapshot comes first.
        return sorted(drawn_acts, key=lambda name: name != "job")

    def new(self) -> None:
        key = self.key()
        self.insert(key, self.chance.choice(_ANY))

    def change(self) -> None:
        if (key := self.own()) is None:
            return self.new()
        row = (self.ended(key), self.text())
        self.one(
            "UPDATE executions SET status = %s, error = %s, retry_count = retry_count + 1 WHERE execution_id = %s",
            *(*row, key),
        )
        self.draft.rows[key] = row
        return None

    def many(self) -> None:
        """One statement over own rows."""
        keys, text = {key for key in (self.own() for _ in range(20)) if key is not None}, self.text()
        done = self.run("UPDATE executions SET error = %s WHERE execution_id = ANY(%s::uuid[])", text, list(keys))
        if done != len(keys):
            raise Mislaid(f"{done} of {len(keys)} own rows were updated")
        for key in keys:
            self.draft.rows[key] = (self.status(key), text)

    def remove(self) -> None:
        if (key := self.own()) is None:
            return self.new()
        self.delete(key)
        return None

    def again(self) -> None:
        """Deleted and inserted once more in one transaction."""
        if (key := self.own()) is None:
            return self.new()
        self.delete(key)
        self.insert(key, self.chance.choice(_ANY))
        return None

    def rename(self) -> None:
        if (old := self.own()) is None:
            return self.new()
        key, row = self.key(), (self.status(old), self.text())
        self.drop_events(old)
        self.one("UPDATE executions SET execution_id = %s, error = %s WHERE execution_id = %s", key, row[1], old)
        self.draft.rows |= {old: None, key: row}
        for feed, active in self.active.items():
            if active == old:
                self.active[feed] = key
        return None

    def flip(self) -> None:
        """The active row of an own feed ends, another begins."""
        feed, key = self.chance.choice(self.feeds), self.key()
        ended = self.run("UPDATE executions SET status = 'completed' WHERE feed_id = %s AND status = 'running'", feed)
        before = self.active.get(feed)
        if ended != (before is not None):
            raise Mislaid(f"{ended} rows of feed {feed} were running, and {before} should have been")
        if before is not None:
            self.draft.rows[before] = ("completed", self.row(before)[1])
        self.insert(key, "running", feed=feed)
        self.active[feed] = key

    def flip_shared(self) -> None:
        """The same with a feed of all writers, who take turns. Their rows are left alone otherwise."""
        feed, key, text = self.chance.choice(self.given.feeds), self.key(), self.text()
        self.run("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", feed, waits=SHARED)
        self.run(
            "UPDATE executions SET status = 'completed' WHERE feed_id = %s AND status = 'running'", feed, waits=SHARED
        )
        self.run(
            "INSERT INTO executions (execution_id, pipeline_name, status, feed_id, error)"
            " VALUES (%s, 'live', 'running', %s, %s)",
            *(key, feed, text),
            waits=SHARED,
        )
        self.draft.rows[key] = (None, text)

    def batch(self) -> None:
        """Rows of the history that every writer updates, many at once."""
        first = self.chance.randrange(len(self.given.shared))
        self.run(
            "UPDATE executions SET result = %s::jsonb WHERE execution_id = ANY(%s::uuid[])",
            f'{{"n": {self.chance.random()}}}',
            list(self.given.shared[first : first + 40]),
            waits=SHARED,
        )

    def claim(self) -> None:
        """As workers do it: one row of all, which nobody else may have taken."""
        self.run(
            "UPDATE executions SET backend_task_id = %s WHERE execution_id ="
            " (SELECT execution_id FROM executions WHERE execution_id = ANY(%s::uuid[]) LIMIT 1"
            " FOR UPDATE SKIP LOCKED)",
            self.text(),
            self.chance.sample(self.given.shared, 3),
            waits=SHARED,
        )

    def event(self) -> None:
        if (key := self.own()) is None:
            return self.new()
        self.run("INSERT INTO execution_events (execution_id, event_type) VALUES (%s, 'progress')", key)
        self.draft.events[key] = self.events(key) + 1
        return None

    def amend(self) -> None:
        """The events of an own row."""
        if (key := self.own()) is None:
            return
        done = self.run("UPDATE execution_events SET data = '{\"seen\": true}' WHERE execution_id = %s", key)
        if done != self.events(key):
            raise Mislaid(f"{done} of {self.events(key)} events of {key} were updated")

    def shared_events(self) -> None:
        self.run(
            "INSERT INTO execution_events (execution_id, event_type)"
            " SELECT key, 'progress' FROM unnest(%s::uuid[]) AS key",
            self.chance.sample(self.given.shared, 5),
            waits=SHARED,
        )

    def link(self) -> None:
        """A child of an own row, which may go again."""
        key, parent = self.key(), self.own()
        self.insert(key, "completed")
        self.one("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", parent, key)

    def refer(self) -> None:
        """A child of a row that is another writer's as a rule, who may delete it or give it another key meanwhile."""
        key = self.key()
        self.insert(key, "completed")
        self.run(
            "UPDATE executions SET parent_execution_id = (SELECT execution_id FROM executions"
            " WHERE execution_id > %s AND pipeline_name = 'live' ORDER BY execution_id LIMIT 1)"
            " WHERE execution_id = %s",
            *(self.key(), key),
        )

    def look(self) -> None:
        if (key := self.own()) is None:
            return
        began = time.monotonic()
        found = self.connection.execute(
            "SELECT e.status, e.error, (SELECT count(*) FROM execution_events v WHERE v.execution_id = e.execution_id)"
            " FROM executions e WHERE e.execution_id = %s",
            (key,),
        ).fetchall()
        self.waited(OWN, began)
        if found != [(*self.row(key), self.events(key))]:
            raise Mislaid(f"{key} was read as {found}, not as {self.row(key)} with {self.events(key)} events")

    def odd(self) -> None:
        """A status that the mapping does not know."""
        key = self.own()
        if key is None or self.status(key) not in ENDED:
            return self.new()
        self.one("UPDATE executions SET status = 'odd' WHERE execution_id = %s", key)
        self.draft.rows[key] = ("odd", self.row(key)[1])
        self.odd_row = key
        return None

    def mend(self) -> None:
        key = self.known.odd
        assert key is not None
        self.one("UPDATE executions SET status = 'completed' WHERE execution_id = %s", key)
        self.draft.rows[key] = ("completed", self.row(key)[1])
        self.odd_row = None

    def job(self) -> None:
        """Inserted, updated or deleted in the table that is truncated now and then. Who has the lock before the
        snapshot knows how often that has been.
        """
        self.run("LOCK TABLE jobs IN ROW EXCLUSIVE MODE", waits=TRUNCATE)
        ((truncated,),) = self.connection.execute("SELECT n FROM storm.truncated").fetchall()
        jobs: dict[str, Job | None] = {**self.known.change.jobs, **self.draft.jobs}
        alive = [key for key, one in jobs.items() if one is not None and one[0] == truncated]
        text = self.text()
        if not alive or self.chance.random() < 0.4:
            ((number,),) = self.connection.execute(
                "INSERT INTO jobs (job_type, status, error_message) VALUES ('live', 'queued', %s) RETURNING job_id",
                (text,),
            ).fetchall()
            self.draft.jobs[str(number)] = (truncated, text)
            return
        key = self.chance.choice(alive)
        if self.chance.random() < 0.3:
            self.one("DELETE FROM jobs WHERE job_id = %s", int(key))
            self.draft.jobs[key] = None
            return
        self.one("UPDATE jobs SET error_message = %s, attempts = attempts + 1 WHERE job_id = %s", text, int(key))
        self.draft.jobs[key] = (truncated, text)

    def truncate(self) -> None:
        self.run("TRUNCATE jobs", waits=TRUNCATE)
        self.run("UPDATE storm.truncated SET n = n + 1", waits=TRUNCATE)

    def run(self, statement: LiteralString, *values: object, waits: str = OWN) -> int:
        began = time.monotonic()
        done = self.connection.execute(statement, values)
        self.waited(waits, began)
        return done.rowcount

    def one(self, statement: LiteralString, *values: object) -> None:
        if self.run(statement, *values) != 1:
            raise Mislaid(f"{statement} did not find its row: {values[-1]}")

    def waited(self, what: str, since: float) -> None:
        self.longest[what] = max(self.longest.get(what, 0.0), time.monotonic() - since)

    def insert(self, key: str, status: str, *, feed: str | None = None) -> None:
        text = self.text()
        self.run(
            "INSERT INTO executions (execution_id, pipeline_name, status, feed_id, error)"
            " VALUES (%s, 'live', %s, %s, %s)",
            *(key, status, feed, text),
        )
        self.draft.rows[key] = (status, text)

    def delete(self, key: str) -> None:
        self.drop_events(key)
        self.one("DELETE FROM executions WHERE execution_id = %s", key)
        self.draft.rows[key] = None
        self.active = {feed: active for feed, active in self.active.items() if active != key}

    def drop_events(self, key: str) -> None:
        if (done := self.run("DELETE FROM execution_events WHERE execution_id = %s", key)) != self.events(key):
            raise Mislaid(f"{done} of {self.events(key)} events of {key} were deleted")
        self.draft.events[key] = 0


_WEIGHTS = {
    "new": 3,
    "change": 4,
    "many": 1,
    "remove": 2,
    "again": 2,
    "rename": 2,
    "flip": 2,
    "flip_shared": 1,
    "batch": 2,
    "claim": 2,
    "event": 2,
    "amend": 1,
    "shared_events": 1,
    "link": 1,
    "refer": 1,
    "look": 2,
    "job": 2,
}
