"""What stands in the way of a view in the legacy table's place, or has to be seen to, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dependent:
    """``object`` is named as in SQL, ``kind`` is one or two words. ``breaks`` and ``remedy`` are sentences for people.

    ``statement`` is the remedy as SQL where there is one. ``blocks``: after the cutover the application would fail, or
    write or read something else than it did, unless this is lifted; what does not block is to be known.
    """

    object: str
    kind: str
    breaks: str
    remedy: str
    statement: str | None = None
    blocks: bool = True
