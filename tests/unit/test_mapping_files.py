"""Mapping files: what ships is complete, and each mistake is refused with file, line, key path and the nearest name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from spine_migrate.errors import MappingError
from spine_migrate.mapping.emit.docs import field_rows, readme, readme_file, section
from spine_migrate.mapping.load import find, load, load_file, shipped
from spine_migrate.resources import mappings_dir
from tests.unit.mapping_mistakes import MISTAKES
from tests.unit.mapping_mistakes.mistake import GOOD, Mistake


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads((mappings_dir() / "mapping.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _file(folder: Path, text: str) -> Path:
    file = folder / "shop" / "orders.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", shipped())
def test_what_ships_is_complete(name: str, validator: Draft202012Validator) -> None:
    assert load(name).name == name
    validator.validate(tomllib.loads(find(name).read_text(encoding="utf-8")))


def test_the_files_of_target_tables_fit_the_schema(validator: Draft202012Validator) -> None:
    files = sorted((mappings_dir() / "targets").glob("*.toml"))
    assert isinstance(validator.schema, dict)
    schema = {"$defs": validator.schema["$defs"], "$ref": "#/$defs/target_table"}
    assert [file.stem for file in files] == ["run_events", "runs"]
    for file in files:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        Draft202012Validator(schema).validate(document)


def test_the_good_file(tmp_path: Path, validator: Draft202012Validator) -> None:
    """What the mistakes below are made in."""
    assert load_file(_file(tmp_path, GOOD)).name == "shop/orders"
    validator.validate(tomllib.loads(GOOD))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake(mistake: Mistake, tmp_path: Path, validator: Draft202012Validator) -> None:
    assert mistake.old in GOOD
    text = GOOD.replace(mistake.old, mistake.new)
    file = _file(tmp_path, text)
    with pytest.raises(MappingError) as caught:
        load_file(file)
    error = caught.value
    assert mistake.words in str(error)
    assert mistake.path in error.path
    assert "\n" not in str(error)
    assert error.exit_code == 2
    if mistake.line is None:
        assert error.line is None
    else:
        assert error.line is not None
        assert text.splitlines()[error.line - 1].startswith(mistake.line)
        assert str(error).startswith(f"{file}:{error.line}: ")
    assert validator.is_valid(tomllib.loads(text)) != mistake.in_schema


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[source", "is not TOML"),
        (b"\xff", "cannot be read"),
        (None, "there is no such mapping file"),
        (b"", "missing"),
    ],
)
def test_a_file_that_is_none(content: bytes | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(MappingError, match=words):
        load(str(file))


def test_an_unknown_name() -> None:
    with pytest.raises(MappingError, match="did you mean 'capture-spine/executions'"):
        load("capture-spine/execution")


def test_the_digest_is_of_the_meaning(tmp_path: Path) -> None:
    """Comments, titles and notes do not count; a column that is called title does, and so does the order of values."""
    digest = load_file(_file(tmp_path, GOOD)).digest
    same = GOOD.replace("orders become runs", "x").replace('copy = "label"', '# so\ncopy = "label"\nnote = "y"')
    assert load_file(_file(tmp_path, same)).digest == digest
    for old, new in {
        'open = "running"\nshut = "completed"': 'shut = "completed"\nopen = "running"',
        "nobody reads it": "nobody read it",
        "plus = 1": "plus = 2",
        "Berlin": "Paris",
    }.items():
        assert load_file(_file(tmp_path, GOOD.replace(old, new))).digest != digest
    titled = GOOD.replace("label", "title")
    renamed = titled.replace('title = { type = "text" }', 'title = { type = "text", not_null = true }')
    assert load_file(_file(tmp_path, titled)).digest != load_file(_file(tmp_path, renamed)).digest


def test_hostile_names_are_read_as_they_are(tmp_path: Path) -> None:
    """Parts of a path in quotes, a dot inside them; a name that looks like SQL is a name."""
    text = GOOD.replace('[fields."metadata.owner"]', '[fields.\'metadata."a.b"."\\"; --"\']')
    mapping = load_file(_file(tmp_path, text))
    (field,) = (one for one in mapping.fields if one.path[:1] == ("a.b",))
    assert field.path == ("a.b", '"; --')
    assert field.name == 'metadata."a.b"."\\"; --"'


def test_the_documentation_is_fresh() -> None:
    assert readme_file().read_text(encoding="utf-8") == readme(), "run spine-migrate mapping docs"


def test_the_documentation_of_a_mapping(tmp_path: Path) -> None:
    mapping = load_file(_file(tmp_path, GOOD))
    rows = {row.target: row for row in field_rows(mapping)}
    assert rows["status"].refused == ("null_value", "unknown_value")
    assert rows["name"].back == "kept in `metadata.legacy.label` where it would not come back"
    assert rows["attempt"].back == "lossy: nobody counts"
    assert rows["metadata.entity_type"].how == '`"owner"` where `owner` is not NULL'
    text = section(mapping)
    assert "- `old`: nobody reads it" in text
    assert all(line.count(" | ") == 5 for line in text.splitlines() if line.startswith("| "))
