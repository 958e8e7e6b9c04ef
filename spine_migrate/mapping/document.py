"""A parsed TOML file that knows where it is: its errors name file, key path, line and the nearest right name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from spine_migrate.errors import MappingError
from spine_migrate.mapping.locate import line_of, lines
from spine_migrate.mapping.model import Place
from spine_migrate.mapping.path import join


@dataclass(frozen=True)
class Table:
    """One table of the file, at ``path``. Every read checks the type; ``only`` checks the names."""

    file: Path
    found: dict[tuple[str, ...], int]
    path: tuple[str, ...]
    values: dict[str, Any]

    def place(self, *key: str) -> Place:
        path = (*self.path, *key)
        return Place(self.file, join(path), line_of(self.found, path))

    def fail(self, message: str, *key: str) -> NoReturn:
        place = self.place(*key)
        raise MappingError(message, file=self.file, path=place.key, line=place.line)

    def only(self, allowed: Iterable[str]) -> None:
        """Refuse the first key that is not ``allowed``, with the nearest one that is."""
        allowed = tuple(allowed)
        for key in self.values:
            if key not in allowed:
                self.fail(f"unknown key{nearest(key, allowed)}", key)

    def has(self, key: str) -> bool:
        return key in self.values

    def read(self, key: str, kind: type, what: str) -> Any:
        """The value at ``key``, or None if absent. ``what`` names the expected type for people."""
        value = self.values.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            self.fail(f"must be {what}, not {value!r}", key)
        return value

    def text(self, key: str) -> str | None:
        value: str | None = self.read(key, str, "a string")
        if value is not None and not value.strip():
            self.fail("must not be empty", key)
        return value

    def need_text(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            self.fail(f"{key!r} is missing")
        return value

    def flag(self, key: str) -> bool:
        return bool(self.read(key, bool, "true or false"))

    def table(self, key: str) -> Table:
        """The table under ``key``, empty if absent."""
        value = self.read(key, dict, "a table") or {}
        return replace(self, path=(*self.path, key), values=value)

    def need_table(self, key: str) -> Table:
        if key not in self.values:
            self.fail(f"the table [{join((*self.path, key))}] is missing")
        return self.table(key)

    def tables(self) -> Iterable[tuple[str, Table]]:
        for key in self.values:
            yield key, self.table(key)


def nearest(wrong: str, right: Iterable[str]) -> str:
    """``; did you mean 'status'?`` or, where nothing is near, the list of what there is."""
    right = tuple(right)
    close = get_close_matches(wrong, right, n=1)
    if close:
        return f" {wrong!r}; did you mean {close[0]!r}?"
    return f" {wrong!r}; there is {', '.join(repr(name) for name in right)}" if right else f" {wrong!r}"


def open_document(file: Path, what: str = "mapping") -> Table:
    """Read and parse. Raises MappingError where the file is missing, unreadable, not UTF-8 or not TOML; ``what`` it is
    is for the sentence.
    """
    try:
        text = file.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise MappingError(f"there is no such {what} file", file=file) from None
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"cannot be read: {error}", file=file) from error
    except tomllib.TOMLDecodeError as error:
        raise MappingError(f"is not TOML: {error}", file=file) from error
    document = Table(file, lines(text), (), values)
    _refuse_nul(document)
    return document


def _refuse_nul(table: Table) -> None:
    """No name and no text in PostgreSQL holds the character U+0000."""
    for key, value in table.values.items():
        if "\0" in key or _holds_nul(value):
            table.fail("holds the character U+0000, which PostgreSQL cannot", key)


def _holds_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any("\0" in key or _holds_nul(inner) for key, inner in value.items())
        case list():
            return any(_holds_nul(inner) for inner in value)
    return False
