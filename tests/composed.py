"""Mappings composed at random: every transform, every kind of place, names and texts that need quoting."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.values import BY_TYPE, TRANSITIONS, integers, local_times

_NAMES = st.text(st.sampled_from("aZ_ .%$'\"\\{}:;-\u00e4\u00df\U0001f600"), min_size=1, max_size=8).filter(str.strip)
_KEYS = _NAMES | st.sampled_from(["null", "0", "a.b"])
_SMALL = {"text": st.sampled_from(["a", "b", "", "%s", "'", "\\"]), "integer": st.integers(-3, 3)}


def toml(value: Any) -> str:
    """A value as inline TOML; its strings are JSON's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_string(key)} = {toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(inner) for inner in value) + "]"
    return _string(value) if isinstance(value, str) else json.dumps(value)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def write(folder: Path, name: str, document: dict[str, Any]) -> Path:
    """Each top-level key on a line of its own, tables inline."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.toml"
    file.write_text("".join(f"{_string(key)} = {toml(value)}\n" for key, value in document.items()), encoding="utf-8")
    return file


def dotted(*parts: str) -> str:
    return ".".join(_string(part) for part in parts)


@dataclass
class Composed:
    """A mapping's two documents, the live table's column types, and rows as Python values."""

    document: dict[str, Any]
    target: dict[str, Any]
    live: dict[str, str]
    rows: list[dict[str, Any]]


@dataclass
class _Maker:
    draw: st.DrawFn
    names: list[str] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)
    values: dict[str, st.SearchStrategy[Any]] = field(default_factory=dict)
    meta: str = ""

    def fresh(self, strategy: st.SearchStrategy[str] = _NAMES) -> str:
        name = self.draw(strategy.filter(lambda name: name not in self.names and len(name.encode()) < 60))
        self.names.append(name)
        return name

    def source(self, kind: str, values: st.SearchStrategy[Any], live: str | None = None) -> str:
        """A nullable source column, which the real table may lack."""
        name = self.fresh()
        optional = self.draw(st.booleans())
        self.columns[name] = {"type": kind, "optional": optional}
        if not (optional and self.draw(st.integers(0, 4)) == 0):
            self.live[name] = live or kind
            self.values[name] = st.none() | values
        return name

    def place(self, kind: str, *, path: bool, not_null: bool = False) -> str:
        if path:
            return dotted(self.meta, self.fresh(_KEYS))
        name = self.fresh()
        self.targets[name] = {"type": kind, "not_null": not_null, "has_default": not_null}
        return dotted(name)

    def keep(self) -> dict[str, str]:
        """Where the whole goes, or why it may be lost."""
        if self.draw(st.booleans()):
            return {"lossy": "of no further use"}
        inner = [self.fresh(_KEYS)] if self.draw(st.booleans()) else []
        return {"keep": dotted(self.meta, "kept", *inner, self.fresh(_KEYS))}


def _copied(maker: _Maker) -> None:
    kind = maker.draw(st.sampled_from([*BY_TYPE, "any", "any", "any"]))
    path = kind == "any" or maker.draw(st.booleans())
    live = maker.draw(st.sampled_from(["bigint", "uuid", "jsonb", "jsonb", "text"])) if kind == "any" else None
    values = BY_TYPE[live or kind]
    if kind == "jsonb" and maker.draw(st.booleans()):
        live = "json"
        values |= st.sampled_from([{"\0": 1}, ["a\0"], "\\u0000"])
    not_null = not path and maker.draw(st.integers(0, 3)) == 0
    column = maker.source(kind, values, live)
    declared = "varchar(12)" if kind == "text" and not path and maker.draw(st.booleans()) else kind
    maker.fields[maker.place(declared, path=path, not_null=not_null)] = {"copy": column}
    if maker.draw(st.booleans()):
        constant = maker.draw(st.sampled_from(["%s", 2**40, True, {"a": [1, 1.5]}, -(2**31)]))
        maker.fields[maker.place("text", path=True)] = {"constant": constant, "when_present": column}


def _shortened(maker: _Maker) -> None:
    column = maker.source("text", BY_TYPE["text"])
    rule = {"copy": column, "too_long": "shorten", **maker.keep()}
    if maker.draw(st.booleans()):
        rule["default"] = "none"
    maker.fields[maker.place("varchar(6)", path=False, not_null="default" in rule)] = rule


def _valued(maker: _Maker) -> None:
    given, gives = maker.draw(st.sampled_from([("text", "text"), ("integer", "text"), ("integer", "integer")]))
    pairs = maker.draw(st.dictionaries(_SMALL[given], _SMALL[gives], min_size=1, max_size=4))
    passing = given == gives and maker.draw(st.booleans())
    column = maker.source(given, st.sampled_from(list(pairs)) | _SMALL[given])
    rule: dict[str, Any] = {"copy": column, "values": {str(old): new for old, new in pairs.items()}}
    if passing:
        rule["others"] = "pass"
    collides = passing and any(new not in pairs for new in pairs.values())
    if len(set(pairs.values())) < len(pairs) or collides:
        rule |= maker.keep()
    maker.fields[maker.place(gives, path=maker.draw(st.booleans()))] = rule


def _counted(maker: _Maker) -> None:
    kind = maker.draw(st.sampled_from(["integer", "bigint"]))
    rule: dict[str, Any] = {"copy": maker.source(kind, integers[kind]), "plus": maker.draw(st.integers(-2, 2))}
    if maker.draw(st.booleans()):
        rule |= {"default": maker.draw(st.integers(-5, 5)), **maker.keep()}
    maker.fields[maker.place(kind, path=maker.draw(st.booleans()))] = rule


def _cast(maker: _Maker) -> None:
    given, gives, lossless = maker.draw(
        st.sampled_from([
            ("text", "uuid", False), ("text", "integer", False), ("text", "bigint", False), ("uuid", "text", True),
            ("bigint", "integer", True), ("integer", "text", True),
        ])
    )  # fmt: skip
    values = BY_TYPE[given]
    if given == "text":
        values = BY_TYPE[gives].map(str) | BY_TYPE[gives].map(lambda value: f"0{value}".upper()) | st.just("7x")
    rule = {"copy": maker.source(given, values), "cast": gives}
    maker.fields[maker.place(gives, path=maker.draw(st.booleans()))] = rule | ({} if lossless else maker.keep())


def _zoned(maker: _Maker) -> None:
    zone = maker.draw(st.sampled_from(sorted(TRANSITIONS)))
    rule = {"copy": maker.source("timestamp", local_times(zone)), "zone": zone}
    exact = zone == "UTC" or zone.startswith("Etc/")
    maker.fields[maker.place("timestamptz", path=maker.draw(st.booleans()))] = rule | ({} if exact else maker.keep())


def _read(maker: _Maker) -> None:
    leaf = BY_TYPE["jsonb"].map(lambda value: None if hasattr(value, "value") else value)
    documents = st.fixed_dictionaries({"a": st.just("text") | leaf | st.lists(leaf, max_size=2)})
    gives = maker.draw(st.sampled_from(["text", "jsonb"]))
    rule: dict[str, Any] = {
        "copy": maker.source("jsonb", documents | BY_TYPE["jsonb"]),
        "read": maker.draw(st.sampled_from([["a"], ["a", "0"], ["a", "-1"]])),
        "read_as": gives,
        **maker.keep(),
    }
    path = maker.draw(st.booleans())
    # What is given up for good leaves NULL behind, which a NOT NULL column would refuse the next time.
    not_null = not path and "keep" in rule and maker.draw(st.booleans())
    maker.fields[maker.place(gives, path=path, not_null=not_null)] = rule


def _overlaid(maker: _Maker) -> None:
    """A whole JSON column with keys of other rules inside it."""
    column = maker.source("jsonb", BY_TYPE["jsonb"] | st.just({"added": 1}))
    place = maker.place("jsonb", path=False)
    maker.fields[place] = {"copy": column, "default": {"made": True}, **maker.keep()}
    maker.fields[f'{place}."added"'] = {"constant": "x", "when_present": column}


class _Keys(NamedTuple):
    source: str
    target: str


def _key(maker: _Maker) -> tuple[_Keys, st.SearchStrategy[Any]]:
    """A target key that gives the source key back, that keeps it, or beside which another field carries it."""
    given, step = maker.draw(
        st.sampled_from([
            ("uuid", None), ("bigint", "plus"), ("bigint", "uuid"), ("text", "uuid"), ("bigint", "aside"),
            ("text", "aside"), ("text", "cast"),
        ])
    )  # fmt: skip
    keys = _Keys(maker.fresh(), maker.fresh())
    maker.columns[keys.source] = {"type": given, "not_null": True}
    maker.live[keys.source] = given
    maker.targets[keys.target] = {"type": "bigint" if step == "plus" else "uuid", "not_null": True}
    rule: dict[str, Any] = {"copy": keys.source}
    values = BY_TYPE[given]
    if step == "plus":
        rule["plus"] = maker.draw(st.integers(-2, 2))
    elif step is not None:
        rule |= {"cast": "uuid"} if step == "cast" else {"uuid": maker.draw(_NAMES)}
    if step == "aside":
        maker.fields[maker.place(given, path=maker.draw(st.booleans()), not_null=True)] = {"copy": keys.source}
    elif step in ("uuid", "cast"):
        rule["keep"] = dotted(maker.meta, "kept", maker.fresh(_KEYS))
    if step == "cast":
        values = BY_TYPE["uuid"].flatmap(lambda one: st.just(str(one)) if one.int % 2 else st.just(str(one).upper()))
    maker.fields[dotted(keys.target)] = rule
    return keys, values


_KINDS = (_copied, _shortened, _valued, _counted, _cast, _zoned, _read, _overlaid)


@st.composite
def composed(draw: st.DrawFn) -> Composed:
    maker = _Maker(draw)
    maker.meta = maker.fresh()
    maker.targets[maker.meta] = {"type": "jsonb"}
    maker.names.append("kept")
    key, values = _key(maker)
    maker.fields[dotted(maker.meta, maker.fresh(_KEYS))] = {"origin": True}
    for make in draw(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=6)):
        make(maker)
    dropped = maker.source("text", BY_TYPE["text"])
    keys = draw(st.lists(values, min_size=1, max_size=25, unique=True))
    rows = [{key.source: one} | {name: draw(values) for name, values in maker.values.items()} for one in keys]
    return Composed(
        document={
            "source": {"table": maker.fresh(), "key": key.source, "columns": maker.columns},
            "target": {"table": "t", "file": "target.toml"},
            "fields": maker.fields,
            "dropped": {dropped: "nobody reads it"},
        },
        target={"table": maker.fresh(), "key": key.target, "columns": maker.targets},
        live=maker.live,
        rows=rows,
    )
