"""What became of an archive, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spine_migrate.cutover.archive.against import Compared, State
from spine_migrate.cutover.archive.manifest import document
from spine_migrate.cutover.archive.model import Manifest, Table
from spine_migrate.cutover.archive.restore import Restored
from spine_migrate.cutover.archive.verify import Verified
from spine_migrate.db.catalog import Name
from spine_migrate.report.value import escaped

FORMAT = 1


def counted(table: Name, rows: int) -> str:
    return escaped(f"{table}: {rows:,} rows")


def made_as_json(manifest: Manifest) -> dict[str, Any]:
    """``{"format", "digest", "snapshot", "lsn", "rows", "tables"}``; what else there is, the manifest itself says."""
    return {
        "format": FORMAT,
        "digest": document(manifest)["digest"],
        "snapshot": manifest.snapshot.snapshot,
        "lsn": manifest.snapshot.lsn,
        "rows": manifest.rows,
        "tables": [
            {**_table(table.name, table.rows), "bytes": _bytes(table), "left_out": list(table.left_out)}
            for table in manifest.tables
        ],
    }


def made_as_text(manifest: Manifest, directory: Path) -> str:
    lines = []
    for table in manifest.tables:
        size, stream = _bytes(table), sum(file.stream_bytes for file in table.files)
        lines.append(f"{table.name}  rows {table.rows:,}, {size:,} bytes for {stream:,} of text")
        lines.extend(f"  not held: {part}" for part in table.left_out)
    lines.extend(f"must be there to restore: {one}" for one in manifest.requires)
    lines.append(f"Archive {document(manifest)['digest'][:12]} written to {directory}.")
    return _text(lines)


def all_equal(compared: Sequence[Compared] | None) -> bool:
    return all(one.state is State.EQUAL for one in compared or ())


def verified_as_json(found: Verified, compared: Sequence[Compared] | None) -> dict[str, Any]:
    """``{"format", "sound", "damage", "tables", "against"}``; ``tables`` is null where the manifest is damaged,
    ``against`` where nothing was compared.
    """
    return {
        "format": FORMAT,
        "sound": found.sound,
        "damage": [{"file": one.file, "what": one.what} for one in found.damage],
        "tables": None if found.manifest is None else [_table(one.name, one.rows) for one in found.manifest.tables],
        "against": None
        if compared is None
        else [
            {**_table(one.place, one.rows_archived), "rows_now": one.rows_now, "state": one.state.value}
            for one in compared
        ],
    }


def verified_as_text(found: Verified, compared: Sequence[Compared] | None, directory: Path) -> str:
    lines = [str(one) for one in found.damage]
    if found.manifest is None or not found.sound:
        return _text([*lines, f"Damaged: the archive {directory} is not as it was written."])
    manifest = found.manifest
    lines.append(
        f"Sound: tables {len(manifest.tables)}, rows {manifest.rows:,}, of {manifest.snapshot.database} as of "
        f"{manifest.snapshot.made_at.isoformat()}."
    )
    lines.extend(_beside(one) for one in compared or ())
    if compared is not None:
        lines.append("The tables are as archived." if all_equal(compared) else "The tables are not as archived.")
    return _text(lines)


def _beside(one: Compared) -> str:
    now = "" if one.rows_now is None else f", {one.rows_now:,} now"
    return f"{one.place}  {one.state.value}; rows: {one.rows_archived:,} archived{now}"


def restored_as_json(restored: Sequence[Restored]) -> dict[str, Any]:
    """``{"format", "tables"}``."""
    return {
        "format": FORMAT,
        "tables": [
            {**_table(one.place, one.rows), "from": [one.table.schema, one.table.table], "left_out": list(one.left_out)}
            for one in restored
        ],
    }


def restored_as_text(restored: Sequence[Restored]) -> str:
    lines = []
    for one in restored:
        lines.append(f"{one.place}  restored, rows: {one.rows:,}")
        lines.extend(f"  not restored: {part}" for part in one.left_out)
    return _text(lines)


def _table(name: Name, rows: int) -> dict[str, Any]:
    return {"schema": name.schema, "table": name.table, "rows": rows}


def _bytes(table: Table) -> int:
    return sum(file.bytes for file in table.files)


def _text(lines: Sequence[str]) -> str:
    return "\n".join(escaped(line) for line in lines)
