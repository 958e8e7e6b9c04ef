"""shims/BEHAVIOUR.md is what the tests say, and no test of a behaviour is without its row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.behaviour_table import DOCUMENT, NotDocumented, document, main, rows


def test_the_document_is_fresh() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "Run python -m tests.behaviour_table"


def test_every_test_has_its_row() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for path in (Path(__file__).parents[1] / "integration").glob("test_shims_behaviour_*.py"):
        tests = re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert [row.test for row in rows(path)] == tests
        assert tests
        for name in tests:
            assert f"[`{name}`](../tests/integration/{path.name})" in text


@pytest.mark.parametrize(
    "docstring",
    ["", '"""Behaviour: one line."""', '"""Kept by: the other.\n    Behaviour: first.\n    """'],
    ids=["none", "one line", "the wrong way round"],
)
def test_a_test_without_its_two_lines_is_named(docstring: str, tmp_path: Path) -> None:
    (tmp_path / "test_shims_behaviour_x.py").write_text(f"def test_y():\n    {docstring or 'pass'}\n", encoding="utf-8")
    with pytest.raises(NotDocumented, match=r"test_shims_behaviour_x\.py:1: the docstring of test_y begins"):
        document(tmp_path)


def test_a_document_that_is_stale_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "BEHAVIOUR.md"
    monkeypatch.setattr("tests.behaviour_table.DOCUMENT", stale)
    assert main(["--check"]) == 1
    assert not stale.exists()
    assert main([]) == 0
    assert main(["--check"]) == 0
    stale.write_text(stale.read_text(encoding="utf-8").replace("`delay`", "`delays`"), encoding="utf-8")
    assert main(["--check"]) == 1
    assert main(["--chek"]) == 2
