"""What ``spine-migrate grants`` prints for the shims is enough, and nothing of it is too much."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from spine_migrate.cli import main
from spine_migrate.db import schema
from spine_migrate.execution.errors import BackendError
from spine_shims.modes import LEGACY, Side
from spine_shims.tables import Tables
from spine_shims.telemetry import Telemetry
from tests.database import Database, Role, patient
from tests.grants import give
from tests.shim_caller import NEVER
from tests.shim_calls import BILL, add_worker, days

_GRANTS = "spine-migrate grants shims prints what the role needs"


def _command(database: Database, role: Role, *calls: tuple[str, ...]) -> bool:
    results = [CliRunner().invoke(main, ["shims", *words, "--target", database.url_as(role)]) for words in calls]
    refused = [one for one in results if "lacks a privilege" in one.stderr]
    assert all(one.exit_code == 0 for one in results if one not in refused), [one.stderr for one in results]
    return not refused


def _report(database: Database, role: Role) -> bool:
    return _command(database, role, ("report",), ("report", "--silent-for", "1d"))


def _purge(database: Database, role: Role) -> bool:
    return _command(database, role, ("purge", "--older-than", "5d", "--yes"))


def _mode(database: Database, role: Role) -> bool:
    calls = (("mode",), ("mode", BILL, "shadow"), ("mode", BILL, "dispatch"), ("mode", BILL, "--clear"))
    return _command(database, role, *calls)


def _shadow(database: Database, role: Role) -> bool:
    return _command(database, role, ("shadow",))


def _application(database: Database, role: Role) -> bool:
    """A worker that counts, announces and looks; then one that goes on with what it has announced."""
    _run(database, "TRUNCATE shim_worker")
    tables, flushed = Tables.at(patient(database.url_as(role))), []
    for _ in range(2):
        telemetry = Telemetry(tables, interval_seconds=NEVER)
        telemetry.note(BILL, "somebody", LEGACY, Side.LEGACY)
        telemetry.announce([BILL])
        flushed.append(telemetry.flush())
        _run(database, "UPDATE shim_worker SET since = since - interval '1 min', seen_at = seen_at - interval '1 min'")
        telemetry.close()
    try:
        tables.modes_and_ready()
    except BackendError as error:
        return _GRANTS not in error.sentence
    finally:
        tables.close()
    return all(flushed)


def _run(database: Database, statement: str) -> None:
    with database.connect(autocommit=True) as owner:
        owner.execute(statement.encode())


@pytest.mark.parametrize(
    ("command", "works"),
    [
        ("shims report", _report),
        ("shims mode", _mode),
        ("shims shadow", _shadow),
        ("shims purge", _purge),
        ("shims", _application),
    ],
)
def test_each_grant_is_needed_and_all_are_enough(
    command: str, works: Callable[[Database, Role], bool], database: Database
) -> None:
    database.arrange(schema.upgrade)
    _run(database, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    now = datetime.now(UTC)
    add_worker(database, now - days(9), now)
    role = database.add_role("role")
    for held in give(database, role, *command.split()):
        with database.connect(autocommit=True) as owner:
            owner.execute(held.revoke)
        assert not works(database, role), f"not needed: {held.name}"
        with database.connect(autocommit=True) as owner:
            owner.execute(held.grant)
    assert works(database, role)
