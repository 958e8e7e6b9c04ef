"""Where something is in a JSON document, and patterns of such places.

Written as JSONPath does (RFC 9535): ``$.rows[3].price``, and ``$["odd key"]`` where a name is no plain word. What is
not in a result but beside it has its own name in the place of ``$``: ``events[2].type``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

#: The root's name, then keys and indexes.
Path = tuple[str | int, ...]

RESULT = "$"

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ROOT = re.compile(r"\$|[a-z_]+")
_STEP = re.compile(
    r"""(?P<deep>\.\.)?
        (?: \.?(?P<word>(?<=\.)[A-Za-z_][A-Za-z0-9_-]*)
          | \.?(?P<star>(?<=\.)\*)
          | \[(?P<index>[0-9]+)\]
          | (?P<every>\[\*\])
          | \[(?P<key>"(?:[^"\\]|\\.)*")\]
        )""",
    re.VERBOSE,
)


def written(path: Path) -> str:
    root, *steps = path
    return f"{root}{''.join(map(_written, steps))}"


def of_every_item(path: Path) -> str:
    """The same for all items of its arrays: ``$.rows[*].price``."""
    root, *steps = path
    return f"{root}{''.join('[*]' if isinstance(step, int) else _written(step) for step in steps)}"


def covered(path: Path, places: frozenset[Path]) -> bool:
    """Whether the path, or what it is in, is one of ``places``."""
    return any(path[:end] in places for end in range(1, len(path) + 1))


class Step(Enum):
    EVERY = "*"
    ANYWHERE = ".."


@dataclass(frozen=True)
class Pattern:
    """``text`` is as it was written; ``[*]`` is every item or member, ``..`` any depth."""

    text: str
    root: str
    steps: tuple[str | int | Step, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises ValueError, whose text says where it stops making sense."""
        root = _ROOT.match(text)
        if root is None:
            raise ValueError(f"{text!r} begins neither with $ nor with the name of what is beside the result")
        steps: list[str | int | Step] = []
        at = root.end()
        while at < len(text):
            found = _STEP.match(text, at)
            if found is None or found.end() == at:
                raise ValueError(f"{text!r} makes no sense from {text[at:]!r} on")
            if found["deep"]:
                steps.append(Step.ANYWHERE)
            steps.append(_parsed(found))
            at = found.end()
        return cls(text, root[0], tuple(steps))

    def matches(self, path: Path) -> bool:
        return path[:1] == (self.root,) and _matches(self.steps, path[1:])

    def covers(self, path: Path) -> bool:
        """Whether it matches the path, or what the path is in."""
        return any(self.matches(path[:end]) for end in range(1, len(path) + 1))


def _written(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _WORD.fullmatch(step) else f"[{json.dumps(step, ensure_ascii=False)}]"


def _parsed(found: re.Match[str]) -> str | int | Step:
    if found["index"] is not None:
        return int(found["index"])
    if found["key"] is not None:
        key: Any = json.loads(found["key"])
        return str(key)
    return found["word"] or Step.EVERY


def _matches(steps: tuple[str | int | Step, ...], path: Path) -> bool:
    if not steps:
        return not path
    first, rest = steps[0], steps[1:]
    if first is Step.ANYWHERE:
        return any(_matches(rest, path[start:]) for start in range(len(path)))
    return bool(path) and (first is Step.EVERY or first == path[0]) and _matches(rest, path[1:])
