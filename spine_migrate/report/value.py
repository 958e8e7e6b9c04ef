"""Values of rows as a report shows them: told apart, harmless to a terminal, and short enough to read."""

from __future__ import annotations

from itertools import takewhile

MARK = "…"
_CONTEXT = 12


def shown(value: str | None, kind: str | None, *, absent: str = "NULL") -> str:
    """A value as text: NULL, ``'text'`` in quotes, everything else as the server writes it.

    A JSON string keeps its double quotes, so the JSON value null, the text 'null' and NULL are three different things.
    Whatever is not printable is written as an escape.
    """
    if value is None:
        return absent
    return f"'{escaped(value)}'" if kind == "text" else escaped(value)


def escaped(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def excerpts(old: str, new: str, width: int) -> tuple[str, str]:
    """Both texts cut to ``width`` characters around the first place where they differ, marked where they were cut."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    longest = max(len(old), len(new))
    start = max(0, min(same - _CONTEXT, longest - width))
    return _cut(old, start, width), _cut(new, start, width)


def cut(text: str, width: int) -> str:
    """At most ``width`` characters, marked where it was cut."""
    return _cut(text, 0, width)


def _cut(text: str, start: int, width: int) -> str:
    end = start + width
    head = MARK if start else ""
    tail = MARK if end < len(text) else ""
    return f"{head}{text[start + len(head) : end - len(tail)]}{tail}"
