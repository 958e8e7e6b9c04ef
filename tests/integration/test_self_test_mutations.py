"""The self-test can fail: every class of rule in the compiled statements is broken on purpose, and it notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from secrets import token_hex

import pytest

from spine_migrate.db import catalog, ledger, schema
from spine_migrate.db.connect import connect
from spine_migrate.demo.generate import generate
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.parity import Parity, parity
from spine_migrate.mapping.load import load
from spine_migrate.parity.evidence import Injection
from spine_migrate.parity.scratch import Scratch
from spine_migrate.parity.self_test import Prepared, judge, prepare
from tests.database import Database, Role, fresh_database
from tests.legacy import ENTITIES, Legacy
from tests.mutants import EVENTS, EXECUTIONS, JOBS, MUTANTS, Mutant, with_inequality, without_check


@pytest.fixture(scope="module")
def history(server_url: str, owner: Role) -> Iterator[Database]:
    """The demonstration, moved; nothing here changes it."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database:
        with database.connect() as connection:
            generate(connection, executions=300, jobs=150, seed=20261121)
        database.arrange(schema.upgrade)
        legacy = Legacy(database.url)
        for entity in ENTITIES:
            legacy.move(entity)
        yield database


@pytest.fixture(scope="module")
def prepared(history: Database) -> Iterator[dict[str, Prepared]]:
    """The scratch tables of each mapping, filled once; the statements that look at them are what differs."""
    with ExitStack() as open_ones:
        yield {name: _prepared(open_ones, history.url, name) for name in (EXECUTIONS, EVENTS, JOBS)}


def _prepared(open_ones: ExitStack, url: str, name: str) -> Prepared:
    connection = open_ones.enter_context(connect(url))
    (migration,) = [one for one in ledger.migrations(connection) if one.mapping == name]
    tables = (migration.source_table, migration.target_table)
    source, target = (catalog.named(connection, table) for table in tables)
    compiled = parity(bind(load(name), source, target), target.columns)
    open_ones.enter_context(connection.transaction(force_rollback=True))
    found = prepare(Scratch(connection, compiled), migration.migration_id)
    assert found is not None
    return found


def failed(prepared: Prepared, broken: Parity) -> list[Injection]:
    return judge(replace(prepared, parity=broken)).failed


@pytest.mark.parametrize("name", [EXECUTIONS, EVENTS, JOBS])
def test_sound_statements_find_everything_and_invent_nothing(prepared: dict[str, Prepared], name: str) -> None:
    test = judge(prepared[name])
    assert test.failed == []
    assert len(test.injections) > 40
    names = [(one.kind, one.field) for one in test.injections]
    assert len(set(names)) == len(names)
    assert test.rows > sum(one.injected for one in test.injections if one.kind != "rows counted")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_broken_rule_is_noticed(prepared: dict[str, Prepared], mutant: Mutant) -> None:
    found = prepared[mutant.mapping]
    assert failed(found, mutant.breaks(found.parity))


@pytest.mark.parametrize("name", [EXECUTIONS, EVENTS, JOBS])
def test_every_check_that_is_left_out_is_noticed(prepared: dict[str, Prepared], name: str) -> None:
    """But for that of the key: rows are joined by it, so it never differs."""
    compiled = prepared[name].parity
    unnoticed = [
        check.name
        for number, check in enumerate(compiled.checks)
        if not failed(prepared[name], without_check(compiled, number))
    ]
    assert set(unnoticed) <= {compiled.binding.mapping.target.key}


@pytest.mark.parametrize("name", [EXECUTIONS, EVENTS, JOBS])
def test_every_check_that_lets_null_pass_is_noticed(prepared: dict[str, Prepared], name: str) -> None:
    """But for two that can never see a NULL: that of the key, and what is left of the column that holds the mark."""
    compiled = prepared[name].parity
    mapping = compiled.binding.mapping
    unnoticed = {
        check.name
        for number, check in enumerate(compiled.checks)
        if not failed(prepared[name], with_inequality(compiled, number))
    }
    assert unnoticed <= {mapping.target.key, mapping.origin.target}
