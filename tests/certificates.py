"""What the tests of certificates share: issuing one, and asking whether it holds."""

from __future__ import annotations

from pathlib import Path

from spine_migrate.db.connect import connect
from spine_migrate.parity.certificate import Certificate, seal
from spine_migrate.parity.certificate_check import Check, Checked, check
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Report


def issue(url: str, *names: str) -> Certificate:
    """Compare and certify, in one snapshot."""
    issued: list[Certificate] = []
    with connect(url) as connection:

        def closing(report: Report) -> None:
            issued.append(seal(connection, report, names))

        compare(connection, names, closing=closing)
    return issued[0]


def verify(url: str, certificate: Certificate, *names: str) -> Check:
    with connect(url) as connection:
        return check(connection, certificate, names)


def one(url: str, certificate: Certificate) -> Checked:
    (found,) = verify(url, certificate).migrations
    return found


def roots(certificate: Certificate) -> list[tuple[str, str]]:
    return [(one.old.root, one.new.root) for one in certificate.migrations]


def read_text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
