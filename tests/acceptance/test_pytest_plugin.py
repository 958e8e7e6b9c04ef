"""The fixture ``spine_parity`` in a test suite of somebody else's, by the entry point that an installation has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.legacy import Legacy, arranged, uuid

pytest_plugins = ("pytester",)

_SUITE = """
def test_history_is_carried_over(spine_parity):
    spine_parity("capture-spine/executions")
"""


@arranged
def moved(legacy: Legacy) -> None:
    legacy.executions(1, 2, 3)
    legacy.executions(4, status="limbo")
    legacy.move("executions")


#: What else is installed here takes a second to load.
_WITHOUT_OTHERS = tuple(
    word
    for name in ("hypothesispytest", "schemathesis", "anyio", "xdist", "timeout", "celery")
    for word in ("-p", f"no:{name}")
)


def run(suite: pytest.Pytester, *arguments: str, beside: tuple[str, ...] = _WITHOUT_OTHERS) -> pytest.RunResult:
    """A process of its own in which every warning is an error."""
    return suite.runpytest_subprocess("--strict-markers", "--strict-config", "-W", "error", *beside, *arguments)


def text(result: pytest.RunResult) -> str:
    return result.stdout.str()


def test_an_equal_migration_passes(moved: Legacy, pytester: pytest.Pytester) -> None:
    """Beside whatever plugins there are."""
    pytester.makepyfile(
        """
        def test_the_report(spine_parity):
            report = spine_parity(["capture-spine/executions"], max_differences=3)
            assert report.verdict == "equal"
            assert report.comparisons[0].counts.matching == 3

        def test_all(spine_parity):
            assert spine_parity.assert_equal().comparisons == spine_parity.compare().comparisons

        def test_how(spine_parity):
            report = spine_parity(method="buckets", exact=True)
            assert (report.comparisons[0].method.name, report.mode) == ("buckets", "exact")
        """
    )
    run(pytester, "--spine-database-url", moved.url, beside=()).assert_outcomes(passed=3)


def test_a_difference_fails_with_key_field_values_and_rule(moved: Legacy, pytester: pytest.Pytester) -> None:
    moved.execute("UPDATE runs SET external_ref = '' WHERE run_id = %s", uuid(2))
    moved.execute("DELETE FROM runs WHERE run_id = %s", uuid(3))
    pytester.makepyfile(_SUITE)
    result = run(pytester, "--spine-database-url", moved.url)
    result.assert_outcomes(failed=1)
    shown = [line.removeprefix("E").strip() for line in text(result).splitlines() if line.startswith("E")]
    assert shown[0] == "spine_migrate.pytest_plugin.NotEqual: Different: 2 found."
    place = shown.index(f"{uuid(2)} external_ref")
    assert shown[place + 1 : place + 3] == ["old  NULL", "new  ''"]
    assert re.fullmatch(r"rule capture-spine/executions\.toml:\d+", shown[place + 3])
    assert f"{uuid(3)} (missing on the target)" in shown
    assert "pytest_plugin.py" not in text(result).partition("short test summary")[0].partition("NotEqual")[0]


def test_what_could_not_be_told_is_no_pass_and_no_difference(moved: Legacy, pytester: pytest.Pytester) -> None:
    moved.execute("UPDATE spine_migrate.migration SET step = 'backfill'")
    pytester.makepyfile(
        f"""
        import pytest
        from spine_migrate.pytest_plugin import CouldNotTell
        {_SUITE.strip().replace(chr(10), chr(10) + "        ")}

        @pytest.mark.xfail(raises=AssertionError, strict=True)
        def test_expects_differences(spine_parity):
            spine_parity()

        def test_the_reason_is_at_hand(spine_parity):
            with pytest.raises(CouldNotTell) as told:
                spine_parity()
            assert told.value.report.comparisons[0].reasons[0].code == "unfinished"
        """
    )
    result = run(pytester, "--spine-database-url", moved.url)
    result.assert_outcomes(failed=2, passed=1)
    assert "CouldNotTell: Could not tell." in text(result)
    assert "is unfinished (step backfill)" in text(result)


@pytest.mark.parametrize("variable", ["SPINE_DATABASE_URL", "SPINE_TARGET_URL"])
def test_the_environment_names_the_database(
    moved: Legacy, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("SPINE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv(variable, moved.url)
    pytester.makepyfile(_SUITE)
    run(pytester).assert_outcomes(passed=1)


def test_a_url_of_the_test_wins(moved: Legacy, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"def test(spine_parity):\n    spine_parity(url={moved.url!r})")
    run(pytester, "--spine-database-url", "postgresql://nobody@127.0.0.1:1/none").assert_outcomes(passed=1)


def test_an_unreachable_database_fails_the_test_with_a_sentence_and_without_the_password(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(_SUITE)
    monkeypatch.setenv("SPINE_DATABASE_URL", "postgresql://me:s3cret@127.0.0.1:1/none")
    result = run(pytester, "--showlocals")
    result.assert_outcomes(failed=1)
    assert "ServerFault: No server answers for none on 127.0.0.1:1" in text(result)
    assert "s3cret" not in text(result)


def test_a_suite_that_does_not_use_it_is_left_alone(pytester: pytest.Pytester) -> None:
    """Loaded and without a trace: nothing imported, no option of others taken, no warning."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_loaded(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("spine_migrate")
            ours = {name for name in sys.modules if name.partition(".")[0] == "spine_migrate"}
            assert ours == {"spine_migrate", "spine_migrate.pytest_plugin"}
            heavy = {"psycopg", "click", "alembic", "sqlalchemy", "rich", "celery"}
            assert not heavy & {name.partition(".")[0] for name in sys.modules}
        """
    )
    result = run(pytester, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    assert "warning" not in text(result)


def test_it_can_be_left_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_SUITE)
    result = run(pytester, "-p", "no:spine_migrate")
    result.assert_outcomes(errors=1)
    assert "fixture 'spine_parity' not found" in text(result)
    assert "--spine-database-url" not in text(run(pytester, "-p", "no:spine_migrate", "--help"))
    assert "--spine-database-url=URL" in text(run(pytester, "--help"))


def test_its_file_names_no_other_module_than_pytest_at_the_top() -> None:
    source = (Path(__file__).parents[2] / "spine_migrate" / "pytest_plugin.py").read_text(encoding="utf-8")
    top = re.findall(r"^(?:import|from) (\S+)", source, re.MULTILINE)
    assert {name.partition(".")[0] for name in top} == {
        "__future__",
        "collections",
        "dataclasses",
        "os",
        "pytest",
        "typing",
    }
