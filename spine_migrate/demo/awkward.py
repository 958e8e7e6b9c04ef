"""The catalogue of awkward rows: what ten years of production make, how each kind came to be, and what becomes of it.

A kind's fate is what the shipped mappings do with it:

- ``moved``: carried unchanged;
- ``moved:shortened``: carried, one value cut to the target's length and kept whole in ``metadata``;
- ``moved:link_broken``: carried, and a link to a row that does not exist is reported;
- ``moved:link_waiting``: carried, and a link waits for a row that is in quarantine;
- ``quarantined:<reason code>``: not carried;
- ``one_moves:<reason code>``: of the rows that share a key one is carried, the others are quarantined for that reason;
  which of them is carried is a matter of order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spine_migrate.demo.awkward_events import EVENT_KINDS
from spine_migrate.demo.awkward_executions import EXECUTION_KINDS
from spine_migrate.demo.awkward_jobs import JOB_KINDS
from spine_migrate.demo.awkward_keys import KEY_KINDS
from spine_migrate.demo.kind import MOVED, ONE_MOVES, ONE_MOVES_EVENT, PARENT_QUARANTINED, Draw, Entity, Kind, Values

CATALOGUE: tuple[Kind, ...] = EXECUTION_KINDS + KEY_KINDS + EVENT_KINDS + JOB_KINDS

#: Name, fate and story of the kinds that follow from others: the events of executions that are, or may be, quarantined.
FOLLOWING: tuple[tuple[str, str, str], ...] = (
    (
        "event_of_quarantined",
        PARENT_QUARANTINED,
        "Its execution is quarantined; the event comes along when that is retried.",
    ),
    ("event_of_contender", ONE_MOVES_EVENT, "Its execution contends for a key with another one; the event follows it."),
)

_KEY_COLUMNS: Mapping[Entity, str] = {
    "executions": "execution_id",
    "execution_events": "event_id",
    "jobs": "job_id",
}


@dataclass(frozen=True)
class Placed:
    """An awkward row with its key: ``values`` has the key column and every column the kind sets."""

    kind: str
    entity: Entity
    key: str
    fate: str
    values: Values


def place(entity: Entity, draw: Draw, rows: int, awkward: float) -> list[Placed]:
    """The awkward rows of a table that shall have ``rows`` rows, in the order of the catalogue."""
    made = [
        (kind, f"{kind.name}:{n}:{m}", row)
        for kind in CATALOGUE
        if kind.entity == entity
        for n in range(kind.groups(rows, awkward))
        for m, row in enumerate(kind.make(draw, n))
    ]
    column = _KEY_COLUMNS[entity]
    # Ordinary job ids are 3 * i + 1: the awkward jobs stand in the gaps, all over the table.
    spread = max(1, rows // max(1, len(made)))
    placed = []
    for ordinal, (kind, label, row) in enumerate(made):
        made_up = str(3 * ordinal * spread + 2) if entity == "jobs" else draw.uuid(f"awkward:{label}")
        key = row.values.get(column) or made_up
        placed.append(Placed(kind.name, entity, key, row.fate or kind.fate, {**row.values, column: key}))
    return placed


def followers(executions: Sequence[Placed], lives: Mapping[str, Sequence[Values]]) -> list[Placed]:
    """The events that share the fate of an awkward execution; ``lives`` has the events of each by execution id."""
    quarantined, contender = FOLLOWING
    placed = []
    for execution in executions:
        if execution.fate.startswith("quarantined:"):
            kind, fate, _story = quarantined
        elif execution.fate == ONE_MOVES:
            kind, fate, _story = contender
        else:
            continue
        events = lives.get(execution.key, ())
        placed += [Placed(kind, "execution_events", str(event["event_id"]), fate, event) for event in events]
    return placed


def hosts(executions: Sequence[Placed]) -> list[str]:
    """Ids of the awkward executions that move for certain."""
    return [execution.key for execution in executions if execution.fate == MOVED]


def catalogue_markdown() -> str:
    """The catalogue as a Markdown table, for ``runbooks/demo.md``; counts are groups in 100,000 rows of the table."""
    lines = ["| kind | table | per 100,000 | how production got it | fate |", "|---|---|---|---|---|"]
    for kind in CATALOGUE:
        bounds = "" if kind.at_most is None else f", at most {kind.at_most}"
        lines.append(f"| `{kind.name}` | `{kind.entity}` | {kind.per_100k}{bounds} | {kind.story} | `{kind.fate}` |")
    for name, fate, story in FOLLOWING:
        lines.append(f"| `{name}` | `execution_events` | as it comes | {story} | `{fate}` |")
    return "\n".join(lines) + "\n"
