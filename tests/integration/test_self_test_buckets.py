"""The self-test of the method buckets: digests broken on purpose are noticed, and sound ones find everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from secrets import token_hex

import pytest
from psycopg import sql

from spine_migrate.db import catalog, ledger, schema
from spine_migrate.db.connect import Connection, connect
from spine_migrate.demo.generate import generate
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.checks import cell
from spine_migrate.mapping.emit.digest import Digest, place
from spine_migrate.mapping.emit.parity import Parity, parity
from spine_migrate.mapping.load import load
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.parity import drill
from spine_migrate.parity.buckets import Buckets
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import SelfTest
from spine_migrate.parity.model import Verdict
from spine_migrate.parity.options import Finding, Options
from spine_migrate.parity.self_test import self_test
from tests.database import Database, Role, fresh_database
from tests.legacy import ENTITIES, Legacy
from tests.mutants import EVENTS, EXECUTIONS, JOBS

Breaks = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def history(server_url: str, owner: Role) -> Iterator[Database]:
    """The demonstration, moved; nothing here changes it."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database:
        with database.connect() as connection:
            generate(connection, executions=120, jobs=80, seed=20261122)
        database.arrange(schema.upgrade)
        legacy = Legacy(database.url)
        for entity in ENTITIES:
            legacy.move(entity)
        yield database


@pytest.fixture
def connection(history: Database) -> Iterator[Connection]:
    with connect(history.url) as opened:
        yield opened


def sound(connection: Connection, name: str, *, exact: bool = False) -> tuple[Parity, int]:
    (migration,) = [one for one in ledger.migrations(connection) if one.mapping == name]
    tables = (migration.source_table, migration.target_table)
    source, target = (catalog.named(connection, table) for table in tables)
    return parity(bind(load(name), source, target), target.columns, exact=exact), migration.migration_id


def digested(connection: Connection, name: str, *, exact: bool = False) -> SelfTest:
    compiled, migration_id = sound(connection, name, exact=exact)
    return self_test(connection, compiled, migration_id, method="buckets")


@pytest.mark.parametrize("exact", [False, True], ids=["value", "exact"])
@pytest.mark.parametrize("name", [EXECUTIONS, EVENTS, JOBS])
def test_sound_digests_find_everything_and_invent_nothing(connection: Connection, name: str, *, exact: bool) -> None:
    test = digested(connection, name, exact=exact)
    assert (test.skipped, test.failed) == (None, [])
    assert {"two rows exchanged, alone", "a row three times, alone"} < {one.kind for one in test.injections}


@pytest.mark.parametrize("method", ["join", "buckets"])
@pytest.mark.parametrize("name", [EXECUTIONS, EVENTS, JOBS])
def test_rows_are_made_up_where_the_legacy_table_is_elsewhere(connection: Connection, name: str, method: str) -> None:
    compiled, migration_id = sound(connection, name)
    test = self_test(connection, compiled, migration_id, method=method, apart=True)
    assert (test.skipped, test.failed) == (None, [])
    assert sum(one.injected for one in test.injections) > 50


def test_a_comparison_by_buckets_is_tested_by_buckets(history: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _ignoring_counts(monkeypatch)
    with connect(history.url) as opened, connect(history.url) as scratch:
        for method, verdict in ((Finding.JOIN, Verdict.EQUAL), (Finding.BUCKETS, Verdict.UNKNOWN)):
            options = Options(method=method)
            (comparison,) = compare(opened, [EVENTS], options, scratch=scratch).comparisons
            assert comparison.verdict is verdict


def _hashing(monkeypatch: pytest.MonkeyPatch, hashable: Callable[[Digest, int], Sql]) -> None:
    monkeypatch.setattr(Digest, "_hashable", hashable)


def _without(column: str) -> Breaks:
    """The hash leaves a column out."""
    whole = Digest._hashable  # noqa: SLF001 - what is broken

    def hashable(digest: Digest, number: int) -> Sql:
        return sql.SQL("NULL::text") if digest.sides.produced[number] == column else whole(digest, number)

    return lambda monkeypatch: _hashing(monkeypatch, hashable)


def _by_own_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A jsonb by the server's hash of it, which is 0 for an empty object as for NULL."""

    def hashable(digest: Digest, number: int) -> Sql:
        return sql.SQL("{}::{}").format(cell("x", number), digest.sides.type_of(number))

    _hashing(monkeypatch, hashable)


def _without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bucket for all, and no key in the hash: rows that were exchanged sum up to the same."""
    whole, hashed = Digest._hashable, Digest._hashed  # noqa: SLF001

    def hashable(digest: Digest, number: int) -> Sql:
        return sql.SQL("NULL::text") if number == digest.sides.key_number else whole(digest, number)

    def without(digest: Digest, relation: Sql) -> Sql:
        text = hashed(digest, relation).as_string(None)
        key = place(digest.sides, "x").as_string(None)
        assert key in text
        return sql.SQL(text.replace(key, "0::bigint"))

    _hashing(monkeypatch, hashable)
    monkeypatch.setattr(Digest, "_hashed", without)


def _without_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in quarantine, and values that a rule refuses, hash like any other."""
    hashed = Digest._hashed  # noqa: SLF001

    def without(digest: Digest, relation: Sql) -> Sql:
        text = hashed(digest, relation).as_string(None)
        for flag in ("x.held IS NOT NULL", *(f'"x"."r{number}"' for number in digest.sides.hidden)):
            text = text.replace(flag, "false")
        return sql.SQL(text)

    monkeypatch.setattr(Digest, "_hashed", without)


def _ignoring_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Buckets.differing

    def differing(one: Buckets, other: Buckets) -> bytes | None:
        return whole(Buckets(0, one.hashes), Buckets(0, other.hashes))

    monkeypatch.setattr(Buckets, "differing", differing)


def _ignoring_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Buckets.differing

    def differing(one: Buckets, other: Buckets) -> bytes | None:
        return whole(Buckets(one.counts, 0), Buckets(other.counts, 0))

    monkeypatch.setattr(Buckets, "differing", differing)


def _ignoring_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a bucket as a set."""
    monkeypatch.setattr(drill, "Counter", lambda hashes: set(Counter(hashes)))


def _first_suspects_only(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drill.unlike
    monkeypatch.setattr("spine_migrate.parity.self_test_methods.unlike", lambda old, new: list(whole(old, new))[:10])


BROKEN: list[tuple[str, Breaks, str]] = [
    *((f"{column} left out", _without(column), EXECUTIONS) for column in ("error", "metadata", "status", "created_at")),
    ("parent_run_id left out", _without("parent_run_id"), EXECUTIONS),
    ("timestamp left out", _without("timestamp"), EVENTS),
    ("run_id left out", _without("run_id"), EVENTS),
    ("jsonb by its own hash", _by_own_hash, EXECUTIONS),
    ("jsonb of events by its own hash", _by_own_hash, EVENTS),
    ("the key left out", _without_key, EXECUTIONS),
    ("flags left out", _without_flags, JOBS),
    ("counts ignored", _ignoring_counts, EVENTS),
    ("hashes ignored", _ignoring_hashes, EVENTS),
    ("repetition ignored", _ignoring_repetition, EVENTS),
    ("the first suspects only", _first_suspects_only, EVENTS),
]


@pytest.mark.parametrize(("breaks", "name"), [one[1:] for one in BROKEN], ids=[one[0] for one in BROKEN])
def test_a_broken_digest_is_noticed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, breaks: Breaks, name: str
) -> None:
    breaks(monkeypatch)
    test = digested(connection, name)
    assert test.skipped is None
    assert test.failed
