"""Whatever happens to a file of an archive is found, and said of that file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spine_migrate.cutover.archive.against import State, against
from spine_migrate.cutover.archive.manifest import digest
from spine_migrate.cutover.archive.verify import verify
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import connect
from spine_migrate.errors import ConfigurationError
from tests.archives import make
from tests.database import Database

ONE, TWO = "0001.one.0001.copy.gz", "0002.two.0001.copy.gz"
TABLES = [Name("public", "one"), Name("public", "two")]


@pytest.fixture
def archive(database: Database, tmp_path: Path) -> Path:
    with database.connect() as connection:
        connection.execute("CREATE TABLE one AS SELECT n, md5(n::text) AS note FROM generate_series(1, 300) AS n")
        connection.execute("CREATE TABLE two AS SELECT n, md5(n::text) AS note FROM generate_series(301, 600) AS n")
    make(database.url, tmp_path / "archive", TABLES)
    return tmp_path / "archive"


def _found(archive: Path) -> list[str]:
    return [str(one) for one in verify(archive).damage]


def _blamed(archive: Path) -> set[str]:
    """Where the manifest's kind or format is not ours, it is told as no archive of ours."""
    try:
        return {one.file for one in verify(archive).damage}
    except ConfigurationError as error:
        return {"manifest.json"} if "kind" in error.sentence or "format" in error.sentence else set()


def _rewrite(archive: Path, change: Callable[[dict[str, object]], None], *, seal: bool) -> None:
    file = archive / "manifest.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    if seal:
        content["digest"] = digest(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_an_archive_that_nobody_touched(archive: Path) -> None:
    assert verify(archive).sound


def test_every_byte_counts(archive: Path) -> None:
    """Any byte of any file, changed in any of its bits, is found and said of that file."""
    files = sorted(archive.iterdir())
    assert [file.name for file in files] == [ONE, TWO, "manifest.json", "schema.sql"]

    @settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(files))
        whole = file.read_bytes()
        place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
        try:
            file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            assert _blamed(archive) == {file.name}
        finally:
            file.write_bytes(whole)

    check()
    assert verify(archive).sound


def test_a_file_cut_short_or_longer(archive: Path) -> None:
    whole = (archive / ONE).read_bytes()
    (archive / ONE).write_bytes(whole[:-1])
    assert _found(archive) == [f"{ONE} has {len(whole) - 1} bytes, the manifest says {len(whole)}"]
    (archive / ONE).write_bytes(whole + b"\0")
    assert _found(archive) == [f"{ONE} has {len(whole) + 1} bytes, the manifest says {len(whole)}"]


def test_swapped_files(archive: Path) -> None:
    one, two = (archive / ONE).read_bytes(), (archive / TWO).read_bytes()
    (archive / ONE).write_bytes(two)
    (archive / TWO).write_bytes(one)
    assert [one.file for one in verify(archive).damage] == [ONE, TWO]


def test_a_missing_and_an_unknown_file(archive: Path) -> None:
    (archive / ONE).rename(archive / "0001.one.0002.copy.gz")
    assert _found(archive) == ["0001.one.0002.copy.gz is not in the manifest", f"{ONE} is missing"]
    (archive / ONE).mkdir()
    assert f"{ONE} is a directory" in _found(archive)


def test_an_edited_manifest(archive: Path) -> None:
    _rewrite(archive, lambda content: content.update(database="another"), seal=False)
    assert _found(archive) == ["manifest.json was changed after it was written: its digest is not that of what it says"]
    (archive / "manifest.json").write_bytes(b"{")
    assert _found(archive) == ["manifest.json is not JSON"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rows", 299, f"{ONE} holds 300 rows, the manifest says 299"),
        ("stream_sha256", "0" * 64, f"{ONE} does not hold the rows that were written: their SHA-256 is another"),
        ("name", "../archive/0001.one.0001.copy.gz", "manifest.json lacks a part, or has one that is not what it"),
        ("bytes", None, "manifest.json lacks"),
    ],
)  # fmt: skip
def test_a_manifest_that_was_sealed_anew(archive: Path, key: str, value: object, words: str) -> None:
    """Its own digest is right; what it says of a file is not."""

    def change(content: dict[str, object]) -> None:
        tables = content["tables"]
        assert isinstance(tables, list)
        if value is None:
            del tables[0]["files"][0][key]
        else:
            tables[0]["files"][0][key] = value

    _rewrite(archive, change, seal=True)
    (found,) = _found(archive)
    assert found.startswith(words)


def test_rows_that_the_table_should_have(archive: Path) -> None:
    def change(content: dict[str, object]) -> None:
        tables = content["tables"]
        assert isinstance(tables, list)
        tables[0]["rows_digest"] = tables[1]["rows_digest"]

    _rewrite(archive, change, seal=True)
    assert _found(archive) == [
        'manifest.json says 300 rows of "public"."one", or their digest, and the files say others'
    ]


def test_what_is_no_archive(archive: Path, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", archive / ONE):
        with pytest.raises(ConfigurationError, match=r"is no archive: it has no manifest\.json"):
            verify(place)
    _rewrite(archive, lambda content: content.update(format=2), seal=True)
    with pytest.raises(ConfigurationError, match="has format 2; this version of spine-migrate reads format 1"):
        verify(archive)
    _rewrite(archive, lambda content: content.update(kind="other"), seal=True)
    with pytest.raises(ConfigurationError, match="lacks the kind"):
        verify(archive)


def test_live_tables_are_told_apart_from_the_archive(database: Database, archive: Path) -> None:
    """The order of rows and of columns does not matter; one value, one row more or twice, a column and a table do."""
    manifest = verify(archive).manifest
    assert manifest is not None

    def states() -> list[State]:
        with connect(database.url) as connection:
            return [one.state for one in against(connection, manifest)]

    def change(statement: bytes) -> list[State]:
        with database.connect() as connection:
            connection.execute(statement)
        return states()

    assert states() == [State.EQUAL, State.EQUAL]
    assert change(
        b"CREATE TABLE o AS SELECT note, n FROM one ORDER BY note; DROP TABLE one; ALTER TABLE o RENAME TO one"
    ) == [State.EQUAL, State.EQUAL]
    assert change(b"UPDATE one SET note = note || ' ' WHERE n = 7") == [State.ROWS, State.EQUAL]
    assert change(b"UPDATE one SET note = trim(note) WHERE n = 7") == [State.EQUAL, State.EQUAL]
    assert change(b"UPDATE two SET n = 302, note = md5('302') WHERE n = 301") == [State.EQUAL, State.ROWS]
    assert change(b"ALTER TABLE two ADD COLUMN more text") == [State.EQUAL, State.COLUMNS]
    assert change(b"DROP TABLE two") == [State.EQUAL, State.MISSING]


def test_the_files_are_the_same_each_time(database: Database, archive: Path, tmp_path: Path) -> None:
    """The same rows give the same bytes, so that copies of archives can be told by their hashes."""
    make(database.url, tmp_path / "again", TABLES)
    assert [(archive / name).read_bytes() for name in (ONE, TWO)] == [
        (tmp_path / "again" / name).read_bytes() for name in (ONE, TWO)
    ]
    assert gzip.decompress((archive / ONE).read_bytes()).startswith(b"1\tc4ca4238a0b923820dcc509a6f75849b\n")
