"""Lists of text as parameters: the keys of a batch go to the server several times."""

from __future__ import annotations

from typing import Any

from psycopg.types.array import ListDumper


class TextsDumper(ListDumper):
    """psycopg looks at each element whether it is to be quoted, which for thousands of keys takes as long as looking up
    their rows. Here all are quoted at once; whatever needs more than quotes is left to psycopg.
    """

    def dump(self, obj: list[Any]) -> Any:
        try:
            joined = '","'.join(obj)
        except TypeError:
            return super().dump(obj)
        if not obj or "\\" in joined or "\0" in joined or joined.count('"') != 2 * (len(obj) - 1):
            return super().dump(obj)
        # Every session is in UTF-8 (``connect``).
        return f'{{"{joined}"}}'.encode()
