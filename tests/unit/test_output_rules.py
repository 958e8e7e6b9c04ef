"""Rules for outputs: what each forgives, and how a file that makes no sense is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spine_migrate.errors import ConfigurationError
from spine_migrate.parity.outputs.json_diff import compared
from spine_migrate.parity.outputs.rules import load


def _file(folder: Path, text: str) -> Path:
    file = folder / "rules.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("rule", "old", "new", "forgiven"),
    [
        ("tolerance = { absolute = 0.1 }", 1.0, 1.1, True),
        ("tolerance = { absolute = 0.1 }", 1.0, 1.11, False),
        ("tolerance = { absolute = 1 }", 10**400, 10**400 + 1, True),
        ("tolerance = { absolute = 0.5 }", 10**40, 10**40 + 1, False),
        ("tolerance = { relative = 0.01 }", 100, 101, True),
        ("tolerance = { relative = 0.01 }", 100, 102, False),
        ("tolerance = { absolute = 2, relative = 0.01 }", 100, 102, True),
        ("tolerance = { absolute = 1 }", 1, True, False),
        ("tolerance = { absolute = 1 }", 1, "1", False),
        ('time_tolerance = "2s"', "2026-01-16T00:00:00Z", "2026-01-16T01:00:02+01:00", True),
        ('time_tolerance = "2s"', "2026-01-16T00:00:00Z", "2026-01-16T00:00:02.000001Z", False),
        ('time_tolerance = "2s"', "2026-01-16T00:00:00", "2026-01-16T00:00:00Z", False),
        ('time_tolerance = "2s"', "later", "sooner", False),
        ('time_tolerance = "1.5d"', "2026-01-16", "2026-01-17", True),
        ("ignore = true", 1, "anything", True),
        ("unordered = true", [1, 2], [2, 1], True),
        ("unordered = true", [1, 2], [2, 2], False),
        ('by = "n"', [{"n": 1, "x": 1}, {"n": 2, "x": 2}], [{"n": 2, "x": 2}, {"n": 1, "x": 1}], True),
        ('by = "n"', [{"n": 1, "x": 1}, {"n": 2, "x": 2}], [{"n": 2, "x": 2}, {"n": 1, "x": 3}], False),
    ],
)
def test_what_a_rule_forgives(rule: str, old: Any, new: Any, *, forgiven: bool, tmp_path: Path) -> None:
    rules = load(_file(tmp_path, f'["$.x"]\n{rule}\n'))
    found = compared({"x": old}, {"x": new}, rules)
    assert (found.differences == []) is forgiven
    # Of an array whose order does not count one of two differences may be forgiven.
    assert (rules.rules[0] in found.forgiven) is forgiven or rules.rules[0].unordered


def test_a_tolerance_counts_for_all_that_is_in_it(tmp_path: Path) -> None:
    rules = load(_file(tmp_path, '["$.prices"]\ntolerance = { absolute = 0.1 }\n'))
    old, new = {"prices": {"a": [1.0, 2.0]}, "n": 1.0}, {"prices": {"a": [1.1, 2.2]}, "n": 1.1}
    assert [found.path for found in compared(old, new, rules).differences] == [("$", "n"), ("$", "prices", "a", 1)]


def test_of_two_rules_the_first_counts(tmp_path: Path) -> None:
    text = '["$..n"]\ntolerance = { absolute = 1 }\n\n["$.n"]\ntolerance = { absolute = 2 }\n'
    rules = load(_file(tmp_path, text))
    first, second = rules.rules
    assert compared({"n": 1}, {"n": 2}, rules).forgiven == {first: 1}
    assert compared({"n": 1}, {"n": 3}, rules).forgiven == {second: 1}


def test_events_have_paths_of_their_own(tmp_path: Path) -> None:
    rules = load(_file(tmp_path, '["events[*].data.percent"]\nignore = true\n'))
    old, new = [{"type": "progress", "data": {"percent": 1}}], [{"type": "progress", "data": {"percent": 2}}]
    assert compared(old, new, rules, root="events").differences == []
    assert len(compared(old, new, rules).differences) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '["$.x"]\nignore = true\n\n["$.y"]\nignored = true\n',
            ":5: \"$.y\".ignored: unknown key 'ignored'; did you mean 'ignore'?",
        ),
        ('\n["$.x"]\n', ':2: "$.x": forgives nothing; give ignore, tolerance'),
        ('["$.x"]\ntolerance = { absolut = 1 }\n', "unknown key 'absolut'; did you mean 'absolute'?"),
        (
            '["$.x"]\ntolerance = { absolute = -1 }\n',
            ':2: "$.x".tolerance.absolute: must be a number from 0 on, not -1',
        ),
        ('["$.x"]\ntolerance = { relative = true }\n', "must be a number from 0 on, not True"),
        ('["$.x"]\ntolerance = { relative = nan }\n', "must be a number from 0 on, not nan"),
        ('["$.x"]\ntolerance = 1\n', ':2: "$.x".tolerance: must be a table, not 1'),
        ('["$.x"]\ntime_tolerance = "soon"\n', "must be a duration such as 500ms, 2s, 1m, not 'soon'"),
        ('["$.x"]\nignore = "yes"\n', "must be true or false, not 'yes'"),
        ('["$.x[one]"]\nignore = true\n', "'$.x[one]' makes no sense from '[one]' on"),
        ('["$x"]\nignore = true\n', "'$x' makes no sense from 'x' on"),
        ('["$.."]\nignore = true\n', "makes no sense from '..' on"),
        ('["Rows"]\nignore = true\n', "begins neither with $ nor with the name"),
        ('["event[0]"]\nignore = true\n', "nothing is compared that is called 'event'; did you mean 'events'?"),
        ('["status"]\nignore = true\n', "how a run ends is not forgiven"),
        ("x = 1\n", ":1: x: must be a table, not 1"),
        ("[", "is not TOML"),
    ],
)
def test_a_file_that_makes_no_sense(text: str, sentence: str, tmp_path: Path) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(ConfigurationError) as refused:
        load(file)
    assert refused.value.sentence.startswith(str(file))
    assert sentence in refused.value.sentence
    assert refused.value.sentence.endswith(".")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such rules file"):
        load(tmp_path / "none.toml")
