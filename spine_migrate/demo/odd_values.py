"""Values that production really has: text in many scripts, JSON of every shape, very long logs."""

from __future__ import annotations

import json

from spine_migrate.demo.kind import Draw

UNICODE = (
    # an astronaut in three code points joined, a flag, a variation selector
    "\U0001f469\U0001f3fd\u200d\U0001f680 \U0001f1f3\U0001f1f4 \u2708\ufe0f",
    # Arabic and Hebrew with direction marks
    "\u0646\u0634\u0631\u0629 \u200f123\u200e \u202b\u05e2\u05d1\u05e8\u05d9\u05ea\u202c",
    # Latin and Hangul in decomposed form
    "Zoe\u0308 A\u030a n\u0303o\u0302 \u1100\u1161\u11a8",
    # beyond the Basic Multilingual Plane
    "\U00020bb7\u91ce\u5bb6 \U00010330\U00010331 \U0001d4d0",
    # letters whose case or compatibility form differs, and spaces that do not look it
    "\ufb01 \u0131 \u0130 \u00df \u1e9e \u017f \u00a0\u200b\ufeff|",
    # Thai, Devanagari, Tamil
    "\u0e01\u0e33\u0e25\u0e31\u0e07 \u0939\u093f\u0928\u094d\u0926\u0940 \u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
)

CONTROL = "\tone\r\ntwo\\three\\\\N 'four' \"five\" \x1b[31mred\x1b[0m \x01\x7f %s {} $1 ;--"

NOT_OBJECTS = ('"text"', "17", "true", "[]", '[1, "two", null, {"three": 3}]', '""', "{}")

NUMBERS = (
    '{"price": 1.1000, "zero": -0.0, "small": 1E-30, "hash": 123456789012345678901234567890, '
    '"scale": 0.000000000, "large": 1E399, "above_double_precision": 9007199254740993}'
)


def json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def deep_json(levels: int, n: int) -> str:
    return '{"step": ' * levels + str(n) + "}" * levels


def many_ids(draw: Draw, n: int, count: int) -> str:
    return json_text({"document_ids": [draw.uuid(f"document:{n}:{m}") for m in range(count)]})


def log_text(draw: Draw, n: int, size: int) -> str:
    """``size`` characters of log lines, each with a different hash so that compression does not make it small."""
    line = "2021-11-08 04:12:{:02} worker[{}] ERROR chunk {} failed\n"
    lines = (line.format(m % 60, m % 24, draw.digest(f"log:{n}:{m}").hex()) for m in range(size // 100 + 1))
    return "".join(lines)[:size]
