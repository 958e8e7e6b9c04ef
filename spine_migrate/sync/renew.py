"""A reverse capture that is broken, made anew: a trigger was dropped or disabled, a function replaced.

What was written meanwhile is not in the log, so every row is looked at again: those of the target, and those of the
legacy table that ever were there, whose target rows may not lead back to them any more. The triggers come first, in
a transaction of their own, so that nothing that is written from then on is missed; until the rest is done the capture
is not ``caught_up``, and no rollback relies on it.
"""

from __future__ import annotations

import threading

from psycopg import sql

from spine_migrate.carry.known import Known
from spine_migrate.db import captures
from spine_migrate.db.advisory import ENDED, try_lock
from spine_migrate.db.captures import REVERSE
from spine_migrate.db.connect import Connection
from spine_migrate.db.patience import Patience
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused
from spine_migrate.sync import capture
from spine_migrate.sync.applier import EVERYTHING
from spine_migrate.sync.appliers import reverse_key, verify_whole


def renew(connection: Connection, one: Known, *, patience: Patience, stop: threading.Event) -> bool:
    """Whether there was anything to mend. The caller holds the migration's lock; it can be killed and done again.

    Raises Refused (``already-running``) where an applier is at work, Interrupted where a lock cannot be had.
    """
    found = captures.captured(connection, one.migration.migration_id, REVERSE)
    if found is None:
        return False
    try:
        verify_whole(connection, one, found)
    except Refused as refused:
        if refused.precondition != "capture-broken":
            raise
    else:
        return False
    if not try_lock(connection, ("capture", "try_apply"), one.lock, seconds=ENDED, stop=stop):
        raise Refused(
            "already-running", f"A process applies the changes of {one.mapping.name}; stop it first (Ctrl-C)."
        )
    key, target, legacy = reverse_key(connection, one), one.tables.target, one.tables.source
    own = sql.Identifier(one.mapping.key)
    capture.mend(connection, found, oid=target.oid, key=key, patience=patience, stop=stop)
    with connection.transaction():
        execute(
            connection,
            sql.SQL(
                "INSERT INTO spine_migrate.change_log (capture_id, row_key) SELECT $1, g.key FROM ("
                "SELECT {} AS key FROM {} AS t UNION SELECT l.{}::text FROM {} AS l WHERE NOT EXISTS (SELECT FROM"
                " spine_migrate.quarantine AS q WHERE q.migration_id = $2 AND q.source_key = l.{}::text)"
                ") AS g WHERE g.key IS NOT NULL"
            ).format(key.of("t"), target.name.identifier, own, legacy.name.identifier, own),
            found.capture_id,
            found.migration_id,
        )
        everything = {"capture_id": found.capture_id, "why": "all", "keys": [EVERYTHING]}
        connection.execute(query("capture", "note_gone"), everything)
        connection.execute(query("capture", "caught_up"), {"capture_id": found.capture_id})
    return True
