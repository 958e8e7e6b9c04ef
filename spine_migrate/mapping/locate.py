"""On which line of a TOML file a key path stands; tomllib does not say."""

from __future__ import annotations

import re
import tomllib
from typing import Any

_KEY = re.compile(
    r"""^\s*(?P<key>(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*="""
)


def _path(document: dict[str, Any]) -> tuple[str, ...]:
    """The single path through a document that holds one key."""
    path: list[str] = []
    node: Any = document
    while isinstance(node, dict) and len(node) == 1:
        (key, node), *_ = node.items()
        path.append(key)
    return tuple(path)


def lines(text: str) -> dict[tuple[str, ...], int]:
    """Key path to 1-based line, for table headers and for the keys written under them, one to a line."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        match = _KEY.match(line)
        try:
            if line.lstrip().startswith("["):
                table = _path(tomllib.loads(line))
                for end in range(1, len(table) + 1):
                    found.setdefault(table[:end], number)
            elif match:
                found.setdefault((*table, *_path(tomllib.loads(f"{match['key']} = 0"))), number)
        except tomllib.TOMLDecodeError:
            continue  # inside a multi-line array or string that happens to look like a key
    return found


def line_of(found: dict[tuple[str, ...], int], path: tuple[str, ...]) -> int | None:
    """The line of ``path``, or of the nearest enclosing key that has one."""
    for end in range(len(path), 0, -1):
        if path[:end] in found:
            return found[path[:end]]
    return None
