"""Certificates as files: canonical JSON under a digest of its own, written whole or not at all.

The digest is the SHA-256 of the document without it, as JSON with sorted keys, no blanks, and everything beyond ASCII
escaped. It shows that a file was damaged or edited by hand, not who wrote it. ``certificate.schema.json``, beside this
file, says what the keys mean.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

from spine_migrate.errors import ConfigurationError
from spine_migrate.mapping.emit.certificate import BUCKETS
from spine_migrate.parity.certificate import Certificate, Sealed
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.model import Counts, Links, Quarantined, Snapshot, Verdict
from spine_migrate.parity.roots import Side

FORMAT = 1
KIND = "spine-migrate parity certificate"
SCHEMA = Path(__file__).with_name("certificate.schema.json")


def digest(document: dict[str, Any]) -> str:
    """In hexadecimal; a ``digest`` that the document has is left out."""
    body = {key: value for key, value in document.items() if key != "digest"}
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def document(certificate: Certificate) -> dict[str, Any]:
    body = {
        "kind": KIND,
        "format": FORMAT,
        "verdict": Verdict.EQUAL.value,
        "tool_version": certificate.tool_version,
        "snapshot": {**asdict(certificate.snapshot), "taken_at": certificate.snapshot.taken_at.isoformat()},
        "mode": certificate.mode.value,
        "equality": certificate.equality,
        "not_checked": certificate.not_checked,
        "settings": certificate.settings,
        "migrations": [_migration(one) for one in certificate.migrations],
    }
    return {"digest": digest(body), **body}


def _migration(one: Sealed) -> dict[str, Any]:
    return {
        "mapping": one.mapping,
        "mapping_file": one.file,
        "mapping_digest": one.digest,
        "migration_id": one.migration_id,
        "source_table": one.source_table,
        "target_table": one.target_table,
        "old": {"rows": one.old.rows, "root": one.old.root},
        "new": {"rows": one.new.rows, "root": one.new.root},
        "buckets": list(one.new.buckets),
        "counts": asdict(one.counts),
        "quarantine": [asdict(held) for held in one.quarantine],
        "links": [asdict(link) for link in one.links],
        "method": one.method,
        "self_test": one.self_test,
        "not_compared": one.not_compared,
        "statements": {"old": one.statements[0], "new": one.statements[1]},
    }


def check_place(file: Path) -> None:
    """Raises ConfigurationError where ``write`` could not succeed, to be asked before the work is done."""
    if file.exists() and not file.is_file():
        raise ConfigurationError(f"{file} is no ordinary file; a certificate cannot take its place.")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise ConfigurationError(f"The folder of {file} is not there or cannot be written; name another one.")


def write(certificate: Certificate, file: Path) -> str:
    """Put the certificate in place of ``file`` and give its digest. Raises OSError, and then leaves nothing behind."""
    check_place(file)
    made = document(certificate)
    beside = file.with_name(f".{file.name}.{token_hex(4)}")
    try:
        with beside.open("x", encoding="utf-8") as opened:
            opened.write(json.dumps(made, indent=2) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(file)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise
    return str(made["digest"])


def read(file: Path) -> Certificate:
    """Raises ConfigurationError for what is no certificate, was edited, or has a format that this version cannot read;
    OSError where the file cannot be read.
    """
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{file} is no certificate: it is not JSON.") from None
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise ConfigurationError(f"{file} is no certificate: it lacks the kind {KIND!r}.")
    if found.get("format") != FORMAT:
        raise ConfigurationError(
            f"{file} has format {found.get('format')!r}; this version of spine-migrate reads format {FORMAT}."
        )
    if found.get("digest") != digest(found):
        raise ConfigurationError(f"{file} was changed after it was written: its digest is not that of what it says.")
    try:
        return _certificate(found)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigurationError(f"{file} is no certificate: a part is missing, or is not what it should be.") from None


def _certificate(found: dict[str, Any]) -> Certificate:
    snapshot = {**found["snapshot"], "taken_at": datetime.fromisoformat(found["snapshot"]["taken_at"])}
    return Certificate(
        tool_version=found["tool_version"],
        snapshot=Snapshot(**snapshot),
        mode=Equality(found["mode"]),
        equality=found["equality"],
        not_checked=found["not_checked"],
        settings=found["settings"],
        migrations=[_sealed(one) for one in found["migrations"]],
    )


def _sealed(one: dict[str, Any]) -> Sealed:
    return Sealed(
        mapping=one["mapping"],
        file=one["mapping_file"],
        digest=one["mapping_digest"],
        migration_id=one["migration_id"],
        source_table=one["source_table"],
        target_table=one["target_table"],
        counts=Counts(**one["counts"]),
        quarantine=[Quarantined(**held) for held in one["quarantine"]],
        links=[Links(**link) for link in one["links"]],
        method=one["method"],
        self_test=one["self_test"],
        old=_side(one["old"], one["buckets"]),
        new=_side(one["new"], one["buckets"]),
        statements=(one["statements"]["old"], one["statements"]["new"]),
        not_compared=one["not_compared"],
    )


def _side(side: dict[str, Any], buckets: list[str]) -> Side:
    if len(buckets) != BUCKETS or sha256(b"".join(map(bytes.fromhex, buckets))).hexdigest() != side["root"]:
        raise ValueError("the root is not that of the buckets")
    return Side(side["rows"], side["root"], tuple(buckets))
