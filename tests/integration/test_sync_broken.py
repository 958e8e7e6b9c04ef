"""A capture of which somebody has taken a part away: whoever asks how it stands is told."""

from __future__ import annotations

import json
from typing import LiteralString

import pytest
from click.testing import CliRunner
from psycopg import sql

from spine_migrate.cli import main
from tests.cutting import Pair, gate_of, ten_followed
from tests.database import Database
from tests.legacy import Legacy, filled

_DAMAGE: dict[str, LiteralString] = {
    "disabled": "ALTER TABLE {table} DISABLE TRIGGER {trigger}",
    "not always": "ALTER TABLE {table} ENABLE TRIGGER {trigger}",
    "dropped": "DROP TRIGGER {trigger} ON {table}",
    "replaced": "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
}
_SAYS = {"replaced": "are not captured any more: the function", "renamed": "is not there any more"}


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return filled(database, ten_followed)


def damage(legacy: Legacy, how: str, table: str) -> None:
    number = legacy.value(
        "SELECT capture_id FROM spine_migrate.capture WHERE relation = %s",
        sql.Identifier("public", table).as_string(None),
    )
    legacy.execute(
        sql.SQL(_DAMAGE[how]).format(
            table=sql.Identifier("public", table),
            trigger=sql.Identifier(f"spine_capture_{number}_update"),
            function=sql.Identifier("spine_migrate", f"capture_{number}"),
        )
    )


def asked(legacy: Legacy, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*words, "--target", legacy.url])
    return done.exit_code, done.stdout


_ASKING = (("sync", "status"), ("status",), ("watch", "--once"))


def well(legacy: Legacy) -> bool:
    """Whether all that ask say so, or all say that it is not."""
    codes = {asked(legacy, *words)[0] for words in _ASKING}
    assert len(codes) == 1, codes
    return codes == {0}


def told(legacy: Legacy, sentence: str) -> None:
    for words in _ASKING:
        code, text = asked(legacy, *words)
        assert (code, sentence in text) == (1, True), text
    code, text = asked(legacy, "sync", "status", "--json")
    found = [one["broken"] for one in json.loads(text)["captures"]]
    assert code == 1
    assert [one is not None and sentence in one for one in found] == [True, False]
    (first, second) = json.loads(asked(legacy, "status", "--json")[1])["migrations"]
    assert (first["capture_broken"], second["capture_broken"]) == tuple(found)


@pytest.mark.parametrize("how", _DAMAGE)
def test_whoever_asks_is_told(legacy: Legacy, how: str) -> None:
    """Before a cutover and after it, with what to do."""
    assert well(legacy)
    damage(legacy, how, "executions")
    told(legacy, _SAYS.get(how, "_update is missing or does not fire always"))
    assert "sync stop and sync start" in asked(legacy, "sync", "status")[1]
    assert not gate_of(legacy, "capture").ok
    assert asked(legacy, "sync", "stop", "--yes")[0] == 0
    assert asked(legacy, "sync", "start")[0] == 0
    Pair(legacy).apply()
    assert well(legacy)
    Pair(legacy).switch()
    assert well(legacy)
    damage(legacy, how, "runs")
    told(legacy, "run spine-migrate sync start, which")
    assert asked(legacy, "sync", "start")[0] == 0
    assert well(legacy)


def test_a_table_that_was_renamed(legacy: Legacy) -> None:
    legacy.execute("ALTER TABLE executions RENAME TO elsewhere")
    told(legacy, "is not there any more: it was dropped or renamed")
    legacy.execute("ALTER TABLE elsewhere RENAME TO executions")
    assert well(legacy)


def test_a_role_that_may_only_look_is_told(legacy: Legacy, database: Database) -> None:
    """It needs no right on the tables."""
    damage(legacy, "disabled", "executions")
    role = database.add_role("watcher")
    script = asked(legacy, "grants", "status", "--role", role.name)[1]
    with legacy.connect() as connection:
        connection.execute(sql.SQL(script))
    done = CliRunner().invoke(main, ["status", "--target", database.url_as(role)])
    assert (done.exit_code, "does not fire always" in done.stdout) == (1, True), done.output
