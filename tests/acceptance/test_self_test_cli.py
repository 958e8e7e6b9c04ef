"""``compare --self-test``: when it is on, what it prints, and the exit code where it cannot be had."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from psycopg import sql

from tests.command import run
from tests.database import Database
from tests.grants import give
from tests.legacy import Legacy, arranged


@arranged
def moved(legacy: Legacy) -> None:
    legacy.executions(1, 2, 3)
    legacy.move("executions")


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


def compare(url: str, *arguments: str, ci: str | None = None) -> subprocess.CompletedProcess[str]:
    return run(url, "compare", *arguments, env={} if ci is None else {"CI": ci})


@pytest.mark.parametrize(
    ("ci", "arguments", "on"),
    [
        (None, (), False),
        ("true", (), True),
        ("1", (), True),
        ("false", (), False),
        ("", (), False),
        ("true", ("--no-self-test",), False),
        (None, ("--self-test",), True),
    ],
)
def test_it_is_on_where_it_is_asked_for_and_in_ci(
    moved: Legacy, ci: str | None, arguments: tuple[str, ...], *, on: bool
) -> None:
    ended = compare(moved.url, *arguments, ci=ci)
    assert ended.returncode == 0, ended.stderr
    (said,) = [[line.strip() for line in ended.stdout.splitlines() if "self-test" in line]]
    assert bool(said) is on
    for line in said:
        found, of = re.match(r"self-test: (\d+) of (\d+) kinds of difference found", line).groups()  # type: ignore[union-attr]  # None fails
        assert int(found) == int(of) > 100


def test_where_it_cannot_be_made_nothing_is_told(database: Database, moved: Legacy) -> None:
    role = database.add_role("reader")
    give(database, role, "compare")
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.name)))
    url = database.url_as(role)
    ended = compare(url, "--self-test")
    assert ended.returncode == 5
    assert "GRANT TEMPORARY on the database, or use --no-self-test." in ended.stdout
    assert "Could not tell." in ended.stdout
    assert compare(url, "--no-self-test").returncode == 0
    document = json.loads(compare(url, "--self-test", "--json").stdout)
    assert document["verdict"] == "could not tell"
