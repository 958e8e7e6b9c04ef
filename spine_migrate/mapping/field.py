"""From one ``[fields.…]`` table to a ``Field`` with its pipeline of transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spine_migrate.mapping.document import Table, nearest
from spine_migrate.mapping.model import MISSING, Field, JsonPath, SourceColumn, TargetTable
from spine_migrate.mapping.path import split
from spine_migrate.mapping.transforms.base import Transform
from spine_migrate.mapping.transforms.cast import Cast
from spine_migrate.mapping.transforms.default import Default
from spine_migrate.mapping.transforms.offset import Offset
from spine_migrate.mapping.transforms.read_path import ReadPath
from spine_migrate.mapping.transforms.shorten import Shorten
from spine_migrate.mapping.transforms.uuid_from import UuidFrom
from spine_migrate.mapping.transforms.value_map import ValueMap
from spine_migrate.mapping.transforms.zone import Zone
from spine_migrate.mapping.types import INTEGER_RANGE, becomes, of_constant

_KEYS = (
    *("copy", "constant", "origin", "when_present"),
    *("read", "read_as", "default", "values", "others", "plus", "zone", "uuid", "cast", "too_long"),
    *("keep", "lossy", "link", "requires", "note"),
)
_STEP_KEYS = ("read", "default", "values", "plus", "zone", "uuid", "cast", "too_long")


# What a key works on: a copied column, or the key it belongs to.
_NEEDS = {
    **dict.fromkeys((*_STEP_KEYS, "keep", "lossy", "link", "requires"), "copy"),
    "when_present": "constant",
    "read_as": "read",
    "others": "values",
}


def load_field(name: str, part: Table, *, columns: Mapping[str, SourceColumn], target: TargetTable) -> Field:
    """Raises MappingError, placed in the file, where the table makes no sense by itself or with its columns."""
    part.only(_KEYS)
    path = _target_path(name, part, target)
    starts = [key for key in ("copy", "constant", "origin") if part.has(key)]
    if len(starts) != 1:
        part.fail("needs exactly one of 'copy', 'constant' and 'origin'")
    if starts == ["origin"] and not part.flag("origin"):
        part.fail("can only be true", "origin")
    for key, needed in _NEEDS.items():
        if part.has(key) and not part.has(needed):
            part.fail(f"{key!r} goes with {needed!r} only", key)
    column = part.text("copy")
    for key in ("copy", "when_present"):
        if (wanted := part.text(key)) is not None and wanted not in columns:
            part.fail(f"no source column{nearest(wanted, columns)}", key)
    if part.has("constant"):
        try:
            of_constant(part.values["constant"])
        except ValueError as error:
            part.fail(str(error), "constant")
    limit = target.columns[path.column].type.length if not path.keys else None
    return Field(
        target=path.column,
        path=path.keys,
        place=part.place(),
        column=column,
        constant=part.values["constant"] if part.has("constant") else MISSING,
        origin=part.flag("origin"),
        when_present=part.text("when_present"),
        steps=_steps(part, columns[column].type.name, limit) if column is not None else (),
        keep=_keep(part, target),
        lossy=part.text("lossy"),
        link=part.flag("link"),
        requires=part.text("requires"),
        note=part.text("note") or "",
    )


def _target_path(name: str, part: Table, target: TargetTable) -> JsonPath:
    try:
        column, *keys = split(name)
    except ValueError as error:
        part.fail(str(error))
    if column not in target.columns:
        part.fail(f"no target column{nearest(column, target.columns)}")
    if keys and target.columns[column].type.name != "jsonb":
        part.fail(f"{column!r} is {target.columns[column].type}; only a jsonb column has paths")
    return JsonPath(column, tuple(keys))


def _keep(part: Table, target: TargetTable) -> JsonPath | None:
    text = part.text("keep")
    if text is None:
        return None
    try:
        column, *keys = split(text)
    except ValueError as error:
        part.fail(str(error), "keep")
    path = JsonPath(column, tuple(keys))
    if column not in target.columns or target.columns[column].type.name != "jsonb":
        part.fail(f"{text!r} is not a path in a jsonb column of the target, such as 'metadata.legacy.name'", "keep")
    if not path.keys:
        part.fail(f"{text!r} is a whole column; name a path inside it", "keep")
    return path


def _steps(part: Table, given: str, limit: int | None) -> tuple[Transform, ...]:
    """The pipeline in its fixed order: read, default, values, plus, zone, uuid, cast, shorten."""
    steps: list[Transform] = []

    def add(key: str, make: Callable[[str], Transform]) -> None:
        if not part.has(key):
            return
        current = steps[-1].gives if steps else given
        try:
            step = make(current)
        except (ValueError, KeyError, OSError) as error:  # KeyError and OSError: a zone that is none
            part.fail(str(error) if isinstance(error, ValueError) else f"no time zone {part.values[key]!r}", key)
        if step.given != current:
            part.fail(f"works on {step.given}, but is given {current}", key)
        steps.append(step)

    add("read", lambda _: ReadPath(_read_path(part), part.text("read_as") or "jsonb"))
    add("default", lambda now: Default(now, _constant(part, "default", now)))
    add("values", lambda now: _value_map(part, now))
    add("plus", lambda now: Offset(now, part.read("plus", int, "an integer")))
    add("zone", lambda _: Zone(part.need_text("zone")))
    add("uuid", lambda now: UuidFrom(now, part.need_text("uuid")))
    add("cast", lambda now: Cast(now, part.need_text("cast")))
    if part.has("too_long"):
        choice = part.need_text("too_long")
        if choice not in ("shorten", "quarantine"):
            part.fail(f"no way to handle a long value{nearest(choice, ('shorten', 'quarantine'))}", "too_long")
        if limit is None:
            part.fail("the target has no length limit", "too_long")
        if choice == "shorten":
            add("too_long", lambda _: Shorten(limit))
    return tuple(steps)


def _read_path(part: Table) -> tuple[str, ...]:
    path = part.values["read"]
    if not isinstance(path, list) or not path or not all(isinstance(key, str) and key for key in path):
        part.fail("must be a list of keys", "read")
    if part.text("read_as") not in (None, "jsonb", "text"):
        part.fail("must be 'jsonb' or 'text'", "read_as")
    return tuple(path)


def _constant(part: Table, key: str, given: str) -> Any:
    value = part.values[key]
    if not becomes(of_constant(value), given):
        part.fail(f"must be {given}, not {value!r}", key)
    return value


def _key_of(text: str, given: str) -> Any:
    match given:
        case "text":
            return text
        case "boolean":
            return {"true": True, "false": False}[text]
        case _:
            number = int(text)
            low, high = INTEGER_RANGE[given]
            if str(number) != text or not low <= number <= high:
                raise ValueError(text)
            return number


def _value_map(part: Table, given: str) -> ValueMap:
    """TOML keys are strings, so an integer column's values are written ``"0" = "realtime"``."""
    if given not in ("text", "integer", "bigint", "boolean"):
        raise ValueError(f"works on text, integers or booleans, but is given {given}")
    raw = part.table("values").values
    if not raw:
        part.fail("is empty", "values")
    values: dict[Any, Any] = {}
    for key, value in raw.items():
        try:
            old = _key_of(key, given)
        except (ValueError, KeyError):
            part.fail(f"{key!r} is not a {given} value", "values", key)
        values[old] = value
    kinds = {of_constant(value) for value in values.values()}
    gives = "bigint" if kinds == {"integer", "bigint"} else min(kinds)
    if gives == "jsonb" or not all(becomes(kind, gives) for kind in kinds):
        part.fail("all values must be of one type: strings, integers or booleans", "values")
    others = part.text("others")
    if others not in (None, "pass", "quarantine"):
        part.fail(f"no way to handle other values{nearest(others, ('pass', 'quarantine'))}", "others")
    if others == "pass" and gives != given:
        if not becomes(gives, given):
            part.fail(f"other values cannot pass: {given} would become {gives}", "others")
        gives = given
    return ValueMap(given, gives, values, others_pass=others == "pass")
