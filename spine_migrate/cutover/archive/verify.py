"""Is an archive what it was written as: every file, every row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from spine_migrate.cutover.archive import manifest as manifests
from spine_migrate.cutover.archive.manifest import Damaged
from spine_migrate.cutover.archive.model import Manifest, Table
from spine_migrate.cutover.archive.streams import Rows, hashed, lines


@dataclass(frozen=True)
class Damage:
    """``what`` goes on where the file's name ends: "is missing", ..."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


@dataclass
class Verified:
    """``manifest`` is None where it is damaged itself; then nothing else could be looked at."""

    manifest: Manifest | None
    damage: list[Damage] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.damage


def verify(directory: Path, *, report: Callable[[Table], None] = lambda _: None) -> Verified:
    """Read all of an archive again. ``report`` is called with each table that has been read.

    Raises ConfigurationError where there is no archive, or one of another format; OSError where it cannot be read.
    """
    try:
        manifest = manifests.read(directory)
    except Damaged as damaged:
        return Verified(None, [Damage(damaged.file, damaged.what)])
    found = Verified(manifest)
    known = {manifests.NAME, manifests.SCRIPT, *(file.name for table in manifest.tables for file in table.files)}
    for entry in sorted(directory.iterdir()):
        if entry.name not in known:
            found.damage.append(Damage(entry.name, "is not in the manifest"))
    _check(directory, manifests.SCRIPT, manifest.script, found)
    for table in manifest.tables:
        _table(directory, table, found)
        report(table)
    return found


def _table(directory: Path, table: Table, found: Verified) -> None:
    sound = [_check(directory, file.name, (file.bytes, file.sha256), found) for file in table.files]
    total = Rows()
    try:
        for file, whole in zip(table.files, sound, strict=True):
            for line in lines(directory, file) if whole else ():
                total.add(line)
    except Damaged as damaged:
        found.damage.append(Damage(damaged.file, damaged.what))
        return
    if all(sound) and (total.count, total.digest) != (table.rows, table.rows_digest):
        found.damage.append(
            Damage(manifests.NAME, f"says {table.rows} rows of {table.name}, or their digest, and the files say others")
        )


def _check(directory: Path, name: str, expected: tuple[int, str], found: Verified) -> bool:
    """Whether a file has the size and the SHA-256 that it should have."""
    try:
        size, digest = hashed(directory / name)
    except FileNotFoundError:
        found.damage.append(Damage(name, "is missing"))
        return False
    except IsADirectoryError:
        found.damage.append(Damage(name, "is a directory"))
        return False
    if size != expected[0]:
        found.damage.append(Damage(name, f"has {size} bytes, the manifest says {expected[0]}"))
    elif digest != expected[1]:
        found.damage.append(Damage(name, "was changed: its SHA-256 is not that of the manifest"))
    return (size, digest) == expected
