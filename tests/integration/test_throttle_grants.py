"""What ``spine-migrate grants`` prints for pause, resume and set is enough, and nothing of it is too much."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from spine_migrate.carry import orders
from spine_migrate.cli import main
from spine_migrate.db import ledger
from spine_migrate.db.connect import connect
from tests.database import Database
from tests.grants import SCHEMAS, apart, give


@pytest.mark.parametrize("command", [("pause",), ("resume",), ("set", "batch-size=5"), ("status",)])
def test_each_grant_is_needed(database: Database, command: tuple[str, ...]) -> None:
    legacy = apart(database)
    legacy.executions(1)
    legacy.move()
    role = database.add_role("role")

    def code() -> int:
        return CliRunner().invoke(main, [*command, "--target", database.url_as(role)]).exit_code

    def prepare() -> None:
        """So that there is something to do."""
        with connect(database.url) as connection:
            migrations = ledger.migrations(connection)
            (orders.resume if command == ("pause",) else orders.pause)(connection, migrations)

    for held in give(database, role, command[0], *SCHEMAS):
        prepare()
        legacy.execute(held.revoke)
        assert code() == 3, f"not needed: {held.name}"
        legacy.execute(held.grant)
    assert code() == 0
