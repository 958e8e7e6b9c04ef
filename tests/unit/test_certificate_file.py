"""A certificate as a file: it comes back as it was, what was done to it is noticed, and it is whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.errors import ConfigurationError
from spine_migrate.parity.certificate import Certificate, Sealed
from spine_migrate.parity.certificate_file import SCHEMA, check_place, digest, document, read, write
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.model import Counts, Links, Quarantined, Snapshot
from spine_migrate.parity.roots import PINNED, Side
from spine_migrate.report.certificate import as_text

_BUCKETS = tuple(sha256(bytes([number])).hexdigest() for number in range(256))
_SIDE = Side(3, sha256(b"".join(map(bytes.fromhex, _BUCKETS))).hexdigest(), _BUCKETS)
CERTIFICATE = Certificate(
    tool_version="1.2.3",
    snapshot=Snapshot("10:20:", "0/16B3748", False, "dä\u0007ta", "18.4", datetime(2026, 11, 21, 12, tzinfo=UTC)),  # noqa: FBT003 - in the order of the query
    mode=Equality.VALUE,
    equality="by value",
    not_checked=["this", "that"],
    settings=PINNED,
    migrations=[
        Sealed(
            mapping="shop/orders",
            file="shop/orders.toml",
            digest="a" * 64,
            migration_id=7,
            source_table='"public"."orders"',
            target_table='"public"."runs"',
            counts=Counts(5, 3, 0, 3, 0, 0, 0, 0, 0, 2, 0),
            quarantine=[Quarantined("too_long", 1, 1)],
            links=[Links("parent_run_id", 1, 0, 1, 0)],
            method="join",
            self_test=30,
            old=_SIDE,
            new=_SIDE,
            statements=("SELECT 1", "SELECT 2"),
            not_compared=["orders.note (dropped: no use)"],
        )
    ],
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "certificate.json"
    write(CERTIFICATE, file)
    return file


def content(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def test_what_is_written_is_read(file: Path) -> None:
    assert read(file) == CERTIFICATE
    assert document(read(file)) == content(file)


def test_it_has_the_schema_that_is_committed(file: Path) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(content(file))
    assert set(schema["properties"]) == set(schema["required"]) == set(content(file))


def test_the_digest_is_computed_as_the_schema_says(file: Path) -> None:
    """By other means: what jq --sort-keys --compact-output --ascii-output gives."""
    body = content(file)
    stated = body.pop("digest")
    assert stated == sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _places(part: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something in a document can be changed."""
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [path] * bool(path) + [place for key, value in inner for place in _places(value, (*path, key))]


@given(st.data())
def test_whatever_is_edited_is_noticed(data: st.DataObject) -> None:
    made = document(CERTIFICATE)
    edited = json.loads(json.dumps(made))
    *way, last = data.draw(st.sampled_from(_places(made)))
    part = edited
    for key in way:
        part = part[key]
    value: object = data.draw(st.none() | st.booleans() | st.integers() | st.text() | st.just([]) | st.just({}))
    if part[last] == value and type(part[last]) is type(value):
        assert digest(edited) == made["digest"]
        return
    part[last] = value
    assert digest(edited) != edited["digest"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is not JSON"),
        ("\udcff", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it lacks the kind"),
        ('{"kind": "another"}', "it lacks the kind"),
        ('{"kind": "spine-migrate parity certificate", "format": 2}', "has format 2; this version"),
        ('{"kind": "spine-migrate parity certificate", "format": 1}', "was changed after it was written"),
    ],
)
def test_what_is_no_certificate_is_refused_with_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "certificate.json"
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ConfigurationError, match=words):
        read(file)


def _lose_a_bucket(body: dict[str, Any]) -> None:
    body["migrations"][0]["buckets"].pop()


def _swap_buckets(body: dict[str, Any]) -> None:
    buckets = body["migrations"][0]["buckets"]
    buckets[0], buckets[1] = buckets[1], buckets[0]


def _lose_counts(body: dict[str, Any]) -> None:
    del body["migrations"][0]["counts"]


def _another_mode(body: dict[str, Any]) -> None:
    body["mode"] = "roughly"


def _no_list(body: dict[str, Any]) -> None:
    body["migrations"] = 7


@pytest.mark.parametrize("edit", [_lose_a_bucket, _swap_buckets, _lose_counts, _another_mode, _no_list])
def test_an_edit_with_a_digest_of_its_own_must_still_make_sense(
    file: Path, edit: Callable[[dict[str, Any]], None]
) -> None:
    body = content(file)
    edit(body)
    file.write_text(json.dumps({**body, "digest": digest(body)}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="a part is missing, or is not what it should be"):
        read(file)


def test_a_file_is_replaced_whole_or_stays(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write(CERTIFICATE, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, Path(os.devnull)):
        with pytest.raises(ConfigurationError, match="no ordinary file"):
            write(CERTIFICATE, place)
    assert pipe.is_fifo()


def test_a_folder_that_is_not_there_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not there or cannot be written"):
        check_place(tmp_path / "none" / "certificate.json")


def test_people_see_what_was_certified_and_nothing_that_moves_their_terminal() -> None:
    text = as_text(CERTIFICATE, "f" * 64)
    assert "\u0007" not in text
    for words in (
        'shop/orders  "public"."orders" -> "public"."runs"  equal',
        f"root             {_SIDE.root} (both sides)",
        "rows             3 of 5 legacy rows",
        "in quarantine    2 too_long",
        "self-test        30 kinds of difference, all found",
        "orders.note (dropped: no use)",
        "PostgreSQL 18.4, spine-migrate 1.2.3",
        "TimeZone = UTC",
    ):
        assert words in text
