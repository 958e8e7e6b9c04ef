"""A good mapping file, and what a mistake in it is."""

from __future__ import annotations

from dataclasses import dataclass

GOOD = """\
title = "orders become runs"

[source]
table = "orders"
key = "id"

[source.columns]
id = { type = "bigint", not_null = true }
label = { type = "text" }
state = { type = "text" }
tries = { type = "integer", optional = true }
payload = { type = "jsonb" }
at = { type = "timestamp" }
old = { type = "text" }
owner = { type = "any" }

[target]
table = "runs"

[fields.run_id]
copy = "id"
uuid = "shop/orders"
keep = "metadata.legacy.id"

[fields.kind]
constant = "task"

[fields.name]
copy = "label"
too_long = "shorten"
keep = "metadata.legacy.label"

[fields.status]
copy = "state"

[fields.status.values]
open = "running"
shut = "completed"

[fields.attempt]
copy = "tries"
default = 0
plus = 1
lossy = "nobody counts"

[fields.params]
copy = "payload"

[fields.created_at]
copy = "at"
zone = "Europe/Berlin"
keep = "metadata.legacy.at"

[fields."metadata.owner"]
copy = "owner"

[fields."metadata.entity_type"]
constant = "owner"
when_present = "owner"

[fields."metadata.migrated_from"]
origin = true

[dropped]
old = "nobody reads it"
"""


@dataclass(frozen=True)
class Mistake:
    """``old`` becomes ``new``. Then ``line`` is how the line that the error names begins (None: it names none).

    ``path`` is a part of its key path, ``words`` of its sentence; ``in_schema``: the JSON Schema refuses the file, too.
    """

    name: str
    old: str
    new: str
    line: str | None
    path: str
    words: str
    in_schema: bool = False
