"""constraints.txt holds every package that an installation brings, by version and nothing else."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import spine_migrate

_PINS = (Path(spine_migrate.__file__).parents[1] / "constraints.txt").read_text().splitlines()


def _installed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> set[str]:
    """``name`` and all that it requires in this environment."""
    if (name, extras) in seen:
        return set()
    seen.add((name, extras))
    names: set[str] = {canonicalize_name(name)}
    for line in requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            names |= _installed(requirement.name, frozenset(requirement.extras), seen)
    return names


def test_a_pin_is_a_name_and_a_version() -> None:
    assert [line for line in _PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!+]*", line)] == []


def test_whatever_is_installed_is_pinned() -> None:
    needed = _installed("spine-migrate", frozenset({"embedded", "celery", "redis", "dev"}), set()) - {"spine-migrate"}
    assert needed <= {canonicalize_name(line.partition("==")[0]) for line in _PINS}
    assert {"psycopg-binary", "mako", "hatchling", "kombu", "redis"} <= needed
