"""The self-test: known differences are made in a scratch copy, and the comparison must find each and invent none.

The statements are the very same ones that compared the real tables, over temporary tables in their shape. A statement
that finds nothing in the real tables has then been seen to find what there would have been.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import psycopg

from spine_migrate.db.connect import PINNED, Connection
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.parity import rows
from spine_migrate.parity.evidence import Injection, SelfTest
from spine_migrate.parity.made import AGREEING, CANCELLING, Made, planned
from spine_migrate.parity.model import Comparison, Difference, Reason, Verdict
from spine_migrate.parity.scratch import MIGRATION, Pair, Scratch
from spine_migrate.parity.self_test_methods import METHODS, Finder, by_join

NO_ROWS = "self-test-no-rows"
FAILED = "self-test-failed"

_NO_ROWS = Reason(NO_ROWS, "The self-test had no rows to work on: the legacy table has none that could be moved.")
_ALL = 1_000_000
_HINDRANCES: dict[type[psycopg.Error], tuple[str, str]] = {
    psycopg.errors.InsufficientPrivilege: (
        "self-test-privilege",
        "The self-test may make no temporary tables here; GRANT TEMPORARY on the database, or use --no-self-test.",
    ),
    psycopg.errors.ReadOnlySqlTransaction: (
        "self-test-read-only",
        "The self-test can make no temporary tables on a standby; compare on the primary, or use --no-self-test.",
    ),
    psycopg.errors.UndefinedObject: (
        "self-test-types",
        "The self-test cannot make the legacy table's columns on the target's server, for want of a type.",
    ),
    psycopg.errors.LockNotAvailable: (
        "self-test-locked",
        "The self-test waited in vain for a lock on one of the tables; try again later, or use --no-self-test.",
    ),
}


def self_test(
    connection: Connection, parity: Parity, migration_id: int, *, method: str = "join", apart: bool = False
) -> SelfTest:
    """Test the statements of one migration, by the method that its comparison went by.

    ``apart`` says that the legacy table is on another server, so that all rows are made up.

    The connection must be another than the comparison's, idle, in autocommit and able to write; what is made there is
    temporary, and rolled back. Of the application's tables a few rows are read. Raises psycopg.Error where the server
    fails; what only hinders the self-test is ``skipped``.
    """
    try:
        with connection.transaction(force_rollback=True):
            for name, value in {"jit": "off", **PINNED}.items():
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
            return _test(Scratch(connection, parity, apart=apart), migration_id, method)
    except tuple(_HINDRANCES) as error:
        hindrance = next(reason for kind, reason in _HINDRANCES.items() if isinstance(error, kind))
        return SelfTest(0, skipped=Reason(*hindrance))
    except psycopg.DataError as error:
        sentence = (
            f"The self-test could not be evaluated: a rule or a check fails on a value (SQLSTATE {error.sqlstate})."
        )
        return SelfTest(0, skipped=Reason("self-test-fails", sentence))


def with_self_test(comparison: Comparison, test: SelfTest) -> Comparison:
    """The comparison with its self-test; one that failed, or could not be made, leaves no "equal"."""
    reason = test.skipped
    if test.failed:
        kinds = ", ".join(dict.fromkeys(_named(one) for one in test.failed[:5]))
        reason = Reason(
            FAILED,
            f"The self-test failed: of {len(test.injections)} kinds of known difference, {len(test.failed)} were not "
            f"found as they were made ({kinds}{', ...' if len(test.failed) > 5 else ''}); do not rely on this result.",  # noqa: PLR2004
        )
    tested = replace(comparison, self_test=test)
    if reason is None or reason.code == NO_ROWS:
        return tested
    verdict = Verdict.UNKNOWN if comparison.verdict is Verdict.EQUAL else comparison.verdict
    return replace(tested, verdict=verdict, reasons=[*comparison.reasons, reason])


def _test(scratch: Scratch, migration_id: int, method: str) -> SelfTest:
    find = METHODS[method]
    prepared = prepare(scratch, migration_id)
    if prepared is None:
        return SelfTest(0, skipped=_NO_ROWS)
    test = judge(prepared, find)
    # In a bucket beside another difference they would be found for its sake.
    alone = [judge(one, find) for one in apart(scratch, prepared)] if method == "buckets" else []
    further = [replace(one, kind=f"{one.kind}, alone") for other in alone for one in other.injections[:1]]
    return replace(test, injections=[*test.injections, *further])


def _named(one: Injection) -> str:
    return f"{one.kind} in {one.field}" if one.field else one.kind


@dataclass(frozen=True)
class Prepared:
    """The scratch tables with the differences in them, as ``parity`` is to find them. ``rows``: how many pairs."""

    connection: Connection
    parity: Parity
    made: list[Made]
    rows: int
    counted: tuple[int, int]


def prepare(scratch: Scratch, migration_id: int) -> Prepared | None:
    """Fill the scratch tables, in the caller's transaction; None where there are no rows to do it with."""
    scratch.create()
    if not scratch.sample(migration_id):
        return None
    scratch.make_up()
    if not scratch.carry():
        return None
    return _fill(scratch, list(planned(scratch)))


def apart(scratch: Scratch, whole: Prepared) -> Iterator[Prepared]:
    """The scratch tables with one difference in them at a time, for those that sums over rows might not show."""
    for made in whole.made:
        if made.kind in CANCELLING:
            scratch.clear()
            agreeing = next(one for one in whole.made if one.expected == "nothing" and one.kind == AGREEING)
            yield _fill(scratch, [replace(made), replace(agreeing)])


def _fill(scratch: Scratch, found: list[Made]) -> Prepared:
    pairs = scratch.copy([number for made in found for number in made.numbers])
    rest = iter(pairs)
    for made in found:
        made.pairs = [next(rest) for _ in made.numbers]
    for made in found:
        made.make(made.pairs)
    return Prepared(scratch.connection, scratch.parity, found, len(pairs), scratch.counted())


def judge(prepared: Prepared, find: Finder = by_join) -> SelfTest:
    """Compare the scratch tables; each injection with what was found of it."""
    seen = _see(prepared, find)
    injections = [seen.injection(made) for made in prepared.made]
    return SelfTest(prepared.rows, [*injections, seen.strangers(prepared.made), _counts(prepared)])


@dataclass
class _Seen:
    """What the comparison says of the scratch tables. ``pairs`` by target key, ``fields`` the listed ones by it."""

    parity: Parity
    pairs: dict[str, rows.Pair] = field(default_factory=dict)
    fields: dict[str, list[str]] = field(default_factory=dict)
    duplicates: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    suspects: frozenset[str] | None = None

    def injection(self, made: Made) -> Injection:
        found = sum(self._found(made, pair) for pair in made.pairs)
        invented = sum(self._invented(made, pair) for pair in made.pairs)
        wanted = len(made.pairs) if made.expected != "nothing" else 0
        return Injection(made.kind, made.field, wanted, found, invented)

    def _found(self, made: Made, pair: Pair) -> bool:
        there = self.pairs.get(pair.target_key)
        match made.expected:
            case "nothing":
                return False
            case "duplicate":
                looked_at = self.suspects is None or pair.target_key in self.suspects
                return pair.target_key in self.duplicates and looked_at
            case "gone":
                return pair.source_key in self.gone
            case "field":
                number = self._number(made.field)
                if there is None or there.kind != "differing" or number is None or not (there.differs or [])[number]:
                    return False
                listed = self.fields.get(pair.target_key, [])
                return any(one == made.field or one.startswith(f"{made.field}.") for one in listed)
        return there is not None and there.kind == made.expected

    def _number(self, name: str | None) -> int | None:
        return next((number for number, check in enumerate(self.parity.checks) if check.name == name), None)

    def _invented(self, made: Made, pair: Pair) -> bool:
        """Whether something else is said of the row than what was done to it."""
        there = self.pairs.get(pair.target_key)
        others = (pair.target_key in self.duplicates) > (made.expected == "duplicate")
        if there is None:
            return others
        if made.expected != "field":
            return others or there.kind != made.expected
        number = self._number(made.field)
        flags = [at for at, differs in enumerate(there.differs or []) if differs and at != number]
        return others or (made.alone and bool(flags))

    def strangers(self, found: list[Made]) -> Injection:
        """Rows that are no pair of ours at all."""
        ours = {pair.target_key for made in found for pair in made.pairs}
        return Injection("nothing, in no row", None, 0, 0, len((self.pairs.keys() | self.duplicates) - ours))


def _see(prepared: Prepared, find: Finder) -> _Seen:
    connection, parity = prepared.connection, prepared.parity
    looked = find(connection, parity, MIGRATION)
    found = looked.found
    seen = _Seen(parity, suspects=looked.suspects)
    # A key that several pairs have is among the duplicates; each of them counts.
    seen.pairs = {pair.target_key: pair for pair in found.pairs if pair.target_key is not None}
    for difference in _listed(connection, parity, found):
        if difference.target_key is not None and difference.field is not None:
            seen.fields.setdefault(difference.target_key, []).append(difference.field)
    for source in (True, False):
        _, listed = rows.duplicates(connection, parity, MIGRATION, source=source, named=_ALL)
        seen.duplicates |= {one.target_key for one in listed if one.target_key is not None}
    gone = rows.gone(connection, parity, MIGRATION, _ALL)
    seen.gone = {one.key for one in gone.differences if one.key is not None}
    return seen


def _listed(connection: Connection, parity: Parity, found: rows.Found) -> Iterator[Difference]:
    differing = replace(found, pairs=[pair for pair in found.pairs if pair.kind == "differing"])
    return rows.differences(connection, parity, MIGRATION, differing)


def _counts(prepared: Prepared) -> Injection:
    """The rows that are counted without the join, against what is there."""
    source, target = prepared.counted
    others = sum(len(made.pairs) for made in prepared.made if made.unmarks)
    said = rows.sizes(prepared.connection, prepared.parity)
    return Injection("rows counted", None, 1, int(said == (source, target - others, others)))
