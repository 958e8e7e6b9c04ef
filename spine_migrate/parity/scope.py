"""What "equal" means here and what a comparison cannot see; printed with every report."""

from __future__ import annotations

from collections.abc import Iterator

from spine_migrate.mapping.bind import Binding

EQUALITY = (
    "IS DISTINCT FROM: NULL equals only NULL, text is compared byte by byte, timestamps to the microsecond, jsonb by "
    "content (1.0 equals 1.00, the order of keys does not count)."
)
EXACT = (
    "the binary image of the values (*<>): NULL equals only NULL, text is compared byte by byte, timestamps to the "
    "microsecond, jsonb as it is stored (1.0 is not 1.00; the order of keys is not stored)."
)

NOT_CHECKED = [
    "Whether the mapping is right: the expected row is computed by the same rules that moved it.",
    "Target rows without the mapping's mark, written by others; one that lost its mark is reported as missing.",
    "Target columns that no rule writes and legacy columns that the mapping drops; they are named per mapping.",
    "What was written after the snapshot was taken.",
    "How JSON was spelled: 1.0 or 1.00, the order of keys, in json columns blanks and repeated keys.",
    "Trailing blanks of char(n) columns, which are no part of their values.",
    "The content of rows in quarantine, beyond that they are absent from the target.",
    "Whether a history is plausible: legal transitions, events after the end, numbers of attempts.",
]

EVENTS = (
    "Events are compared as rows, each by its own key, with its run, type and timestamp. Where all rows agree, every "
    "run has the same number of events, of the same types, in the same order of timestamps; that is not counted again."
)


def not_compared(binding: Binding) -> Iterator[str]:
    """The blind spots of one mapping, by name."""
    mapping = binding.mapping
    places = {field.target for field in mapping.fields} | {f.keep.column for f in mapping.fields if f.keep}
    idle = [name for name in mapping.target.columns if name not in places]
    if idle:
        yield f"{mapping.target.name}: {', '.join(idle)} (no rule writes them)"
    for name, reason in mapping.dropped.items():
        yield f"{mapping.source_table}.{name} (dropped: {reason})"
    for field in mapping.fields:
        if field.lossy:
            yield f"{mapping.source_table}.{field.column} beyond what {field.name} keeps (lossy: {field.lossy})"
    for name in binding.missing:
        yield f"{mapping.source_table}.{name} (optional, the table lacks it; compared as NULL)"
