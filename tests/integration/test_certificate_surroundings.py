"""What a certificate does not depend on (servers, copies, spelling), and where there is none."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import LiteralString

import pytest

from spine_migrate.db import ledger
from spine_migrate.db.connect import connect
from spine_migrate.db.embedded import bundled_binaries
from spine_migrate.errors import Refused, ServerFault
from spine_migrate.mapping.load import find, load
from spine_migrate.parity.certificate import seal
from spine_migrate.parity.certificate_check import Checked, Outcome
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.model import Verdict
from spine_migrate.parity.roots import roots as hashed
from tests.certificates import issue, one, roots, verify
from tests.database import Database, Role, fresh_database
from tests.legacy import Legacy, arranged, build, uuid

EXECUTIONS = "capture-spine/executions"


@arranged
def moved(legacy: Legacy) -> None:
    awkward = 'ß "two" (words), \\ NULL {1.0}\n'
    legacy.executions(
        1,
        params='{"n": 1.50, "s": "1.0}", "u": "\\u00e9"}',
        error=awkward,
        created_at="2024-02-29 23:59:59.999999-08",
        started_at="-infinity",
        completed_at="4713-01-01 00:00:00 BC",
        retry_of_execution_id=uuid(404),
    )
    legacy.executions(2, created_at="2024-01-01", feed_id=uuid(9), error="", parent_execution_id=uuid(1))
    legacy.executions(3, status="limbo")
    legacy.move()


def test_the_root_is_the_same_on_every_server(moved: Legacy) -> None:
    """A figure that is written down: other major versions, another encoding or locale, another day."""
    (sealed,) = issue(moved.url).migrations
    assert sealed.new.root == "c5e028521e254a2ecb6db42317761934a4024d944b37dd1a294729ec47ac07c1"


def test_a_dump_that_was_restored_is_what_was_certified(
    moved: Legacy, database: Database, server_url: str, owner: Role, tmp_path: Path
) -> None:
    certificate = issue(moved.url)
    # pg_dump must not be newer than the server that its dump is for; a real server comes with programs of its own.
    own = "SPINE_TEST_PG_URL" in os.environ
    binaries = Path() if own else bundled_binaries(int(moved.value("SHOW server_version_num")) // 10_000)
    file = tmp_path / "all.dump"
    with fresh_database(server_url, f"{database.name}_restored", owner) as restored:
        for program, *arguments in (
            ("pg_dump", "--format=custom", f"--file={file}", moved.url),
            ("pg_restore", "--exit-on-error", f"--dbname={restored.admin_url}", str(file)),
        ):
            done = subprocess.run([binaries / program, *arguments], check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        assert verify(restored.url, certificate).outcome is Outcome.HOLDS
        assert roots(issue(restored.url)) == roots(certificate)


_INVOICE = """
table = "invoice"
key = "id"
[columns]
id = { type = "uuid", not_null = true }
total = { type = "numeric" }
origin = { type = "text" }
"""
_ORDERS = """
[source]
table = "orders"
key = "id"
[source.columns]
id = { type = "uuid", not_null = true }
total = { type = "numeric" }
[target]
table = "invoice"
file = "invoice.toml"
[fields.id]
copy = "id"
[fields.total]
copy = "total"
[fields.origin]
origin = true
"""


@pytest.fixture
def legacy_of_a_file(database: Database, tmp_path: Path) -> tuple[Legacy, str]:
    """Orders with a numeric column, moved by a mapping that does not ship."""
    file = tmp_path / "shop" / "orders.toml"
    file.parent.mkdir()
    file.write_text(_ORDERS, encoding="utf-8")
    (file.parent / "invoice.toml").write_text(_INVOICE, encoding="utf-8")
    legacy = build(database)
    legacy.execute("CREATE TABLE orders (id uuid PRIMARY KEY, total numeric)")
    legacy.execute("CREATE TABLE invoice (id uuid PRIMARY KEY, total numeric, origin text)")
    legacy.execute(
        "INSERT INTO orders SELECT gen_random_uuid(), total"
        " FROM unnest('{1.50,-0.00,100,NaN,Infinity,1e3,0.010}'::numeric[]) AS total"
    )
    legacy.move(mapping=str(file))
    return legacy, str(file)


def test_numbers_of_one_value_have_one_text_unless_spelling_counts(legacy_of_a_file: tuple[Legacy, str]) -> None:
    legacy, file = legacy_of_a_file
    certificate = issue(legacy.url, file)
    legacy.execute("UPDATE invoice SET total = total * 1.000 WHERE total < 'Infinity'")
    assert legacy.value("SELECT count(*) FROM invoice WHERE scale(total) > 3") == 3
    assert roots(issue(legacy.url, file)) == roots(certificate)
    with connect(legacy.url) as connection:
        (migration,) = ledger.migrations(connection)
        with connection.transaction():
            spelled = hashed(connection, migration, load(file), exact=True)
    assert len(spelled.new.changed(spelled.old)) > 0
    legacy.execute("UPDATE invoice SET total = 1.51 WHERE total = 1.5")
    assert verify(legacy.url, certificate, file).outcome is Outcome.CHANGED


def test_only_what_is_equal_is_certified(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET lane = 'x' WHERE run_id = %s", uuid(1))
    with pytest.raises(Refused, match="the verdict of this one is: different") as refused:
        issue(moved.url)
    assert refused.value.precondition == "not-equal"
    moved.execute("UPDATE runs SET lane = 'normal'")
    moved.execute("UPDATE spine_migrate.migration SET step = 'backfill'")
    with pytest.raises(Refused, match="could not tell"):
        issue(moved.url)


def test_roots_that_contradict_the_comparison_are_a_fault(moved: Legacy) -> None:
    """Here because the rows were changed after the comparison's snapshot; else it would be a defect of either."""
    with connect(moved.url) as connection:
        report = compare(connection)
        assert report.verdict is Verdict.EQUAL
        moved.execute("UPDATE runs SET lane = 'x' WHERE run_id = %s", uuid(1))
        with connection.transaction(), pytest.raises(ServerFault, match="1 of 256 SHA-256 digests differ"):
            seal(connection, report)


def test_where_spelling_counts_another_spelling_has_another_root(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET params = jsonb_set(params, '{n}', '1.5') WHERE run_id = %s", uuid(1))
    with connect(moved.url) as connection:
        report = compare(connection)
        with connection.transaction():
            seal(connection, report)
        with connection.transaction(), pytest.raises(ServerFault):
            seal(connection, replace(report, mode=Equality.EXACT))


def test_another_mapping_cannot_be_told(moved: Legacy, tmp_path: Path) -> None:
    certificate = issue(moved.url)
    file = tmp_path / "capture-spine" / "executions.toml"
    file.parent.mkdir()
    file.write_text(find(EXECUTIONS).read_text(encoding="utf-8").replace('"pipeline"', '"task"'), encoding="utf-8")
    (found,) = verify(moved.url, certificate, str(file)).migrations
    assert (found.outcome, _code(found)) == (Outcome.UNKNOWN, "mapping-changed")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE spine_migrate.migration SET step = 'undoing'", "unfinished"),
        ("UPDATE spine_migrate.migration SET step = 'undone'", "migration-unknown"),
        ("UPDATE spine_migrate.migration SET mapping_digest = 'f00'", "migration-unknown"),
        ("ALTER TABLE executions ADD severity text", "catalog-drift"),
        ("DROP TABLE executions CASCADE", "table-missing"),
    ],
)
def test_what_is_no_longer_there_cannot_be_told(moved: Legacy, change: LiteralString, code: str) -> None:
    certificate = issue(moved.url)
    moved.execute(change)
    found = one(moved.url, certificate)
    assert (found.outcome, _code(found), found.new) == (Outcome.UNKNOWN, code, None)


def test_a_database_without_a_ledger_is_refused(moved: Legacy, server_url: str, owner: Role) -> None:
    certificate = issue(moved.url)
    with (
        fresh_database(server_url, f"{owner.name}_bare", owner) as bare,
        pytest.raises(Refused) as refused,
    ):
        verify(bare.url, certificate)
    assert refused.value.precondition == "ledger-missing"


def test_a_mapping_that_does_not_ship_is_named_by_its_file(legacy_of_a_file: tuple[Legacy, str]) -> None:
    legacy, file = legacy_of_a_file
    certificate = issue(legacy.url, file)
    assert _code(one(legacy.url, certificate)) == "mapping-unknown"
    assert verify(legacy.url, certificate, file).outcome is Outcome.HOLDS


def _code(found: Checked) -> str | None:
    return found.reason.code if found.reason else None
