"""The runtime's own tables beside the target: rows of which no legacy table knows, that point to a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from spine_migrate.db.definition import Definition, ForeignKey

# What has happened to a run (spine_0002), and from whom to whom it goes (spine_0004).
EVENTS, HANDOFF = "run_events", "run_handoff"
NO_ACTION, RESTRICT = "a", "r"


def pointing(target: Definition, table: str, *, moved: Collection[int] = ()) -> Iterator[ForeignKey]:
    """Foreign keys of one of these tables to the target. ``moved``: tables (oid) that have rows of legacy tables."""
    for key in target.inbound:
        if key.table == replace(target.name, table=table) and len(key.columns) == 1 and key.oid not in moved:
            yield key
