"""Legacy tables on one server, target and ledger on another of another major version: the same as on one."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from spine_migrate.db.embedded import EmbeddedServer
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import Scope, Slice
from spine_migrate.parity.model import Comparison, Report, Verdict
from spine_migrate.parity.options import Finding, Options
from spine_migrate.parity.scope import APART
from tests.conftest import StartServer
from tests.database import alone, drop
from tests.legacy import Legacy, build, uuid

# What is changed in the legacy table, and what beside the target.
HARM: tuple[tuple[bool, LiteralString], ...] = (
    (False, "UPDATE runs SET lane = 'touched' WHERE right(run_id::text, 1) = '3'"),
    (False, "UPDATE runs SET error = NULL, name = 'other' WHERE right(run_id::text, 2) = '11'"),
    (False, 'UPDATE runs SET params = \'{"x": [1, {"y": "\\u00e9"}]}\' WHERE right(run_id::text, 2) = \'12\''),
    (False, "DELETE FROM runs WHERE right(run_id::text, 2) = '24'"),
    (True, "DELETE FROM executions WHERE right(execution_id::text, 2) = '25'"),
    (True, "UPDATE executions SET retry_count = 2147483647 WHERE right(execution_id::text, 2) = '26'"),
    (True, "UPDATE executions SET created_at = '4713-01-01 BC' WHERE right(execution_id::text, 2) = '27'"),
    (True, "DELETE FROM executions WHERE execution_id = '00000000-0000-4000-8000-000000000177'"),
    (
        False,
        """INSERT INTO spine_migrate.quarantine (migration_id, source_key, source_row, reason, detail)
           SELECT migration_id, '00000000-0000-4000-8000-000000000030', '{}', 'too_long', 'by hand'
             FROM spine_migrate.migration""",
    ),
)
# The row that links were recorded as leading nowhere to.
COMES: LiteralString = """
    INSERT INTO executions (execution_id, pipeline_name, status)
    VALUES ('00000000-0000-4000-8000-000000009999', 'late', 'completed')"""


@dataclass(frozen=True)
class Place:
    """The same history three times: whole in one database, and its two halves on two servers."""

    whole: Legacy
    source: Legacy
    target: Legacy

    def change(self, statement: LiteralString, *, legacy: bool) -> None:
        for one in (self.whole, self.source if legacy else self.target):
            one.execute(statement)

    def compared(self, scope: Scope | None = None, *, seconds: float = 0.02, named: int = 1000) -> Report:
        options = Options(settle_seconds=seconds, max_differences=named, scope=scope or Scope(), picture=True)
        with connect(self.target.url) as connection, connect(self.source.url) as source:
            return compare(connection, options=options, source=source)

    def expected(self, scope: Scope | None = None) -> Comparison:
        with connect(self.whole.url) as connection:
            options = Options(max_differences=1000, scope=scope or Scope(), picture=True)
            return only(compare(connection, options=options))


def only(report: Report) -> Comparison:
    (comparison,) = report.comparisons
    return comparison


def drawn(comparison: Comparison) -> tuple[str, list[Slice], Slice, int]:
    """The picture without where its slices begin: a default of now() is in each history another."""
    picture = comparison.picture
    assert picture is not None
    return picture.axis, [replace(one, start=None) for one in picture.slices], picture.timeless, picture.unplaced


def _administer(server: EmbeddedServer, statement: LiteralString, *names: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def history(server: EmbeddedServer, name: str) -> Legacy:
    _administer(server, "CREATE DATABASE {}", name)
    legacy = build(server.url(name))
    legacy.many_executions(300)
    legacy.execute(
        """UPDATE executions SET created_at = '2024-01-01'::timestamptz + interval '1 hour'
            * right(execution_id::text, 12)::int"""
    )
    legacy.execute("UPDATE executions SET status = 'zombie' WHERE right(execution_id::text, 2) = '77'")
    legacy.execute(
        "UPDATE executions SET parent_execution_id = %s, retry_of_execution_id = %s"
        " WHERE right(execution_id::text, 2) IN ('11', '13')",
        uuid(77),
        uuid(9999),
    )
    legacy.move()
    return legacy


@pytest.fixture(scope="module")
def servers(start_module_server: StartServer) -> dict[str, EmbeddedServer]:
    """The servers of the three databases that ``place`` copies, by name."""
    newer, older = start_module_server(18), start_module_server(16)
    history(newer, "whole")
    source, target = history(older, "source"), history(newer, "target")
    source.execute("TRUNCATE runs CASCADE")
    source.execute("DROP SCHEMA spine_migrate CASCADE")
    target.execute("TRUNCATE executions CASCADE")
    return {"whole": newer, "source": older, "target": newer}


@pytest.fixture
def place(servers: dict[str, EmbeddedServer]) -> Iterator[Place]:
    copies = {name: f"{name}_copy" for name in servers}
    for name, server in servers.items():
        with psycopg.connect(server.url(), autocommit=True) as admin:
            alone(admin, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (copies[name], name))))
    try:
        yield Place(*(Legacy(server.url(copies[name])) for name, server in servers.items()))
    finally:
        for name, server in servers.items():
            with psycopg.connect(server.url(), autocommit=True) as admin:
                drop(admin, copies[name])


def test_it_is_the_same_as_on_one_server(place: Place) -> None:
    equal = place.compared()
    assert equal.verdict is Verdict.EQUAL, only(equal).reasons
    assert equal.source_snapshot is not None
    assert equal.source_snapshot.server_version != equal.snapshot.server_version
    for legacy, statement in HARM:
        place.change(statement, legacy=legacy)
    place.change(COMES, legacy=True)
    found, expected = only(place.compared()), place.expected()
    assert found.verdict is Verdict.DIFFERENT
    assert found.method is not None
    assert (found.method.name, found.method.why) == ("buckets", "the tables are on two servers")
    assert sorted(map(repr, found.differences)) == sorted(map(repr, expected.differences))
    assert (found.counts, found.fields, found.links) == (expected.counts, expected.fields, expected.links)
    assert drawn(found) == drawn(expected)
    assert [(one.name, one.holds) for one in found.equations] == [(one.name, one.holds) for one in expected.equations]


@pytest.mark.parametrize(
    "scope",
    [
        Scope(sample=0.3),
        Scope(since=datetime(2024, 1, 5, tzinfo=UTC)),
        Scope(sample=0.5, since=datetime(2024, 1, 5, tzinfo=UTC)),
        Scope(keys=(uuid(3), uuid(11), uuid(25), uuid(27), uuid(77), uuid(5000))),
    ],
    ids=str,
)
def test_a_part_is_the_same_as_on_one_server(place: Place, scope: Scope) -> None:
    agrees = only(place.compared(scope))
    assert (agrees.verdict, [one.code for one in agrees.reasons]) == (Verdict.UNKNOWN, ["partial"])
    for legacy, statement in HARM:
        place.change(statement, legacy=legacy)
    found, expected = only(place.compared(scope)), place.expected(scope)
    assert found.verdict is Verdict.DIFFERENT
    assert sorted(map(repr, found.differences)) == sorted(map(repr, expected.differences))
    assert found.fields == expected.fields
    assert drawn(found) == drawn(expected)


def test_the_list_is_limited(place: Place) -> None:
    place.change("UPDATE runs SET lane = 'touched'", legacy=False)
    comparison = only(place.compared(named=5))
    assert (comparison.differences_total, len(comparison.differences)) == (297, 5)


def test_rows_that_are_written_on_both_servers_are_no_differences_and_a_real_one_is_found(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row is changed, added or removed on the one, and a little later on the other, all the time."""
    chance, stop, wrote = random.Random(20261121), threading.Event(), 0
    place.change("UPDATE runs SET error = 'harm' WHERE run_id = '00000000-0000-4000-8000-000000000250'", legacy=False)

    def write() -> None:
        nonlocal wrote
        with place.source.connect() as old, place.target.connect() as new:
            while not stop.is_set():
                key, error = uuid(chance.choice([n for n in range(1, 240) if n % 100 not in (11, 13, 77)])), str(wrote)
                old.execute("UPDATE executions SET error = %s WHERE execution_id = %s", [error, key])
                time.sleep(chance.random() / 50)
                new.execute("UPDATE runs SET error = %s WHERE run_id = %s", [error, key])
                wrote += 1

    def settle(_: float) -> None:
        """As long as it takes on this machine until what was under way is on the other server, too."""
        come = wrote + 10
        while wrote < come:
            assert writer.is_alive()
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        settle(0)
        monkeypatch.setattr("spine_migrate.parity.settle.time", SimpleNamespace(monotonic=time.monotonic, sleep=settle))
        for _ in range(5):
            comparison = only(place.compared())
            assert [(one.key, one.field, one.new) for one in comparison.differences] == [(uuid(250), "error", "harm")]
            assert [one.code for one in comparison.reasons] == ["differing"]
    finally:
        stop.set()
        writer.join()
    assert wrote > 50


def test_a_row_that_never_comes_to_rest_is_neither_equal_nor_different(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written on one side between any two looks at it."""
    monkeypatch.setattr("spine_migrate.parity.settle.PATIENCE", 0.2)
    stop, wrote = threading.Event(), 0

    def write() -> None:
        nonlocal wrote
        with place.source.connect() as old:
            while not stop.is_set():
                old.execute(
                    "UPDATE executions SET max_retries = coalesce(max_retries, 0) + 1 WHERE execution_id = %s",
                    [uuid(5)],
                )
                wrote += 1

    def written(_: float) -> None:
        come = wrote + 2
        while wrote < come:
            assert writer.is_alive()
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        written(0)
        monkeypatch.setattr(
            "spine_migrate.parity.settle.time", SimpleNamespace(monotonic=time.monotonic, sleep=written)
        )
        comparison = only(place.compared(seconds=0.05))
    finally:
        stop.set()
        writer.join()
    assert (comparison.verdict, [one.code for one in comparison.reasons]) == (Verdict.UNKNOWN, ["unsettled"])


def test_a_retry_from_quarantine_meanwhile_is_no_difference(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first look and the second the row comes to the target as it should be, and is held no longer."""
    place.source.execute("UPDATE executions SET status = 'completed' WHERE execution_id = %s", uuid(277))

    def retried(_: float) -> None:
        place.target.execute(
            "INSERT INTO runs SELECT (jsonb_populate_record(r, jsonb_build_object('run_id', %s::text, 'created_at',"
            " r.created_at + interval '2 hours'))).* FROM runs r WHERE run_id = %s ON CONFLICT DO NOTHING",
            uuid(277),
            uuid(275),
        )
        place.target.execute("DELETE FROM spine_migrate.quarantine WHERE source_key = %s", uuid(277))
        place.target.execute("UPDATE spine_migrate.checkpoint SET rows_moved = rows_moved + 1 WHERE segment = -1")

    with monkeypatch.context() as patched:
        patched.setattr("spine_migrate.parity.settle.time.sleep", retried)
        report = place.compared()
    assert report.verdict is Verdict.UNKNOWN
    assert [one.code for one in only(report).reasons] == ["unsettled"]
    assert place.compared().verdict is Verdict.EQUAL


def test_a_join_is_refused_and_one_database_is_known_by_two_urls(place: Place) -> None:
    with connect(place.target.url) as connection, connect(place.source.url) as source:
        report = compare(connection, options=Options(method=Finding.JOIN), source=source)
    assert (report.verdict, [one.code for one in only(report).reasons]) == (Verdict.UNKNOWN, ["method"])
    with connect(place.whole.url) as connection, connect(place.whole.url) as source:
        report = compare(connection, options=Options(method=Finding.JOIN), source=source)
    assert (report.verdict, report.source_snapshot) == (Verdict.EQUAL, None)


def test_that_histories_are_not_put_together_over_two_servers_is_said(place: Place) -> None:
    report = place.compared()
    assert (report.histories, report.not_checked[-1], report.events) == ([], APART, APART)
