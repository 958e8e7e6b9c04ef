"""Dotted names: ``metadata.legacy.priority``. A part that holds a dot or a quote is written as a JSON string."""

from __future__ import annotations

import json
import re

_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[^."]+')
_BARE = re.compile(r'[^."]+')


def split(text: str) -> tuple[str, ...]:
    """The parts of a dotted name. Raises ValueError where it is malformed or a part is empty."""
    parts: list[str] = []
    at = 0
    while True:
        match = _PART.match(text, at)
        if match is None:
            raise ValueError(f"{text!r} has an empty or badly quoted part")
        part = json.loads(match[0], strict=False) if match[0].startswith('"') else match[0]
        parts.append(part)
        at = match.end()
        if at == len(text):
            break
        if text[at] != ".":
            raise ValueError(f"{text!r} has a badly quoted part")
        at += 1
    if not all(parts):
        raise ValueError(f"{text!r} has an empty part")
    return tuple(parts)


def join(parts: tuple[str, ...]) -> str:
    """The dotted name of ``parts``; ``split`` takes it apart again."""
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False) for part in parts)
