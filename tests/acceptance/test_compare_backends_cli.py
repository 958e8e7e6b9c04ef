"""``spine-migrate compare-backends`` as it is installed, on backends of its own process: verdicts and refusals."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.comparing_backends import BOTH, Desk

_SHOP, _TASKS = "tests.compared_shop", "tests.compared_tasks"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_three_backends_in_this_process(desk: Desk) -> None:
    """Without a database; what the handler prints is no part of the report."""
    told = desk.here("double", *BOTH, "--backend", "simple", "--repeat", "2")
    assert (told["verdict"], told["kind"], told["noise"]) == ("equal", "pipeline", [])
    assert [(one["name"], len(one["runs"]), one["events_compared"]) for one in told["backends"]] == [
        ("memory", 2, True),
        ("local", 2, True),
        ("simple", 2, True),
    ]


def test_a_difference_is_exit_1_with_its_path(desk: Desk) -> None:
    ended = desk.compares("where", "--import", _SHOP, *BOTH, code=1)
    assert "result differs at $.rows[1].thread; events equal" in ended.stdout
    assert re.search(r'local +\$\.rows\[1\]\.thread +"spine-compare" +"spine-local_0" +1 of 1', ended.stdout)
    assert ended.stdout.endswith("Different: local from memory.\n")


def test_a_backend_of_the_application(desk: Desk) -> None:
    assert desk.here("double", "--backend", "memory", "--backend", "own")["verdict"] == "equal"


def test_side_effects_are_asked_for(desk: Desk) -> None:
    """Nobody is there to be asked, so that nothing is executed."""
    refused = desk.compares("writes", "--import", _SHOP, *BOTH, "--repeat", "3", code=2)
    assert "This executes the pipeline writes 6 times" in refused.stderr
    assert not (desk.folder / "written").exists()
    desk.here("writes", *BOTH, "--yes")
    assert (desk.folder / "written").read_text() == "xx"


def test_a_dry_run_is_used_and_told(desk: Desk) -> None:
    told = desk.here("careful", *BOTH)
    assert (told["verdict"], told["dry_run"]) == ("equal", True)


@pytest.mark.parametrize(
    ("body", "more", "code", "paths"),
    [
        (f"{_SHOP}:old_double", (), 0, []),
        (f"{_SHOP}:old_double", ("--legacy-params", '{"n": 2, "factor": 3}'), 0, []),
        (f"{_SHOP}:old_double", ("--legacy-params", '{"n": 3, "factor": 3}'), 1, ["$"]),
        (f"{_SHOP}:old_async", (), 0, []),
        (f"{_TASKS}:old_task", (), 1, ["$"]),
        (f"{_TASKS}:old_shim", (), 0, []),
        (f"{_SHOP}:old_exits", ("--accept-failure",), 1, ["$", "status", "error_type", "error"]),
    ],
)
def test_an_old_body_is_the_baseline(body: str, more: tuple[str, ...], code: int, paths: list[str], desk: Desk) -> None:
    told = desk.here("double", "--legacy", body, "--backend", "memory", "--yes", *more, code=code)
    legacy, memory = told["backends"]
    assert (legacy["name"], legacy["runs"][0]["run_id"], memory["events_compared"]) == ("legacy", None, False)
    assert [found["path"] for found in memory["differences"]] == paths


def test_a_shim_says_how_its_handler_changes_nothing(desk: Desk) -> None:
    """As in the mode shadow: the old body does the work, the handler does it dry."""
    told = desk.here("charge", "--legacy", f"{_TASKS}:old_charge", "--backend", "memory", "--yes")
    assert (told["verdict"], told["dry_run"]) == ("equal", True)
    assert (desk.folder / "charged").read_text() == "x"


def test_an_old_body_has_another_place_where_it_is_given_one(desk: Desk) -> None:
    words = ("--backend", "memory", "--backend", "legacy", "--legacy", f"{_SHOP}:old_double")
    assert [one["name"] for one in desk.here("double", *words, "--yes")["backends"]] == ["memory", "legacy"]
    refused = desk.compares("double", "--import", _SHOP, "--params", '{"n": 1}', *words, code=2)
    assert refused.stderr.endswith("with all that it changes; say --yes.\n")


@pytest.mark.parametrize("backends", [("local", "memory"), ("legacy", "memory"), ("simple", "local")])
def test_what_does_not_stop_is_not_waited_for(backends: tuple[str, str], desk: Desk) -> None:
    words = [word for name in backends for word in ("--backend", name)]
    old = ("--legacy", f"{_SHOP}:old_stuck") if "legacy" in backends else ()
    told = desk.here("deaf", *words, *old, "--timeout", "0.2", "--yes", code=4)
    first, second = told["backends"]
    assert (told["verdict"], first["runs"][0]["status"], second["runs"]) == ("could not tell", "timed out", [])
    assert [reason["code"] for reason in told["reasons"]] == ["timeout", "not-executed"]


def test_a_baseline_that_fails(desk: Desk) -> None:
    assert desk.here("fails", *BOTH, code=4)["reasons"][0]["code"] == "baseline-failed"
    assert desk.here("fails", *BOTH, "--accept-failure")["verdict"] == "equal"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("double", "--backend", "memory"), "name two backends"),
        (("double", "--backend", "memory", "--backend", "Memory"), "A backend is named twice"),
        (("double", "--backend", "memory", "--backend", "legacy"), "name it with --legacy MODULE:NAME"),
        (("double", "--backend", "memory", "--backend", "dagster"), "The backend dagster is not shipped"),
        (("double", "--backend", "memory", "--backend", "celery"), "Or name the application with --app."),
        (("treble", *BOTH, "--yes"), "There is no pipeline named 'treble'; registered are"),
        (("double", *BOTH, "--registry", f"{_SHOP}:nothing", "--yes"), "with --import"),
        (("double", *BOTH, "--registry", f"{_SHOP}:sys"), "no HandlerRegistry"),
        (("double", *BOTH, "--import", "shoe"), "The module shoe cannot be imported"),
        (("twice", *BOTH), "is registered as pipeline and as task; say which one with --kind"),
        (("double", *BOTH, "--params", "[1]"), "a list; it must be a JSON object"),
        (("double", *BOTH, "--params", "{"), "is no JSON"),
        (("double", *BOTH, "--params", "@none.json"), "cannot be read"),
        (("double", *BOTH, "--rules", "none.toml"), "none.toml: there is no such rules file"),
        (("double", *BOTH, "--json", "--format", "junit"), "two different reports"),
        (("double", "--backend", "memory", "--legacy", f"{_SHOP}:nothing"), "no function and no task"),
        (
            ("double", "--backend", "memory", "--legacy", f"{_SHOP}:old_double", "--yes"),
            "missing a required argument: 'n'",
        ),
    ],
)
def test_mistakes_end_with_2(words: tuple[str, ...], sentence: str, desk: Desk) -> None:
    assert sentence in desk.compares(*words, "--import", _SHOP, code=2).stderr


def test_the_params_may_be_in_a_file(desk: Desk) -> None:
    (desk.folder / "params.json").write_text('{"n": 21}', encoding="utf-8")
    assert desk.here("double", *BOTH, params="@params.json")["verdict"] == "equal"


def test_the_help_is_fast_and_has_examples() -> None:
    script = """
import contextlib, io, sys
from spine_migrate.cli import main
with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
    main(["compare-backends", "--help"], prog_name="spine-migrate")
assert "  spine-migrate compare-backends ingest_otc" in shown.getvalue().partition("Examples:")[2]
print(*sorted({module.partition(".")[0] for module in sys.modules}))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert {"psycopg", "sqlalchemy", "alembic", "rich", "celery"}.isdisjoint(ended.stdout.split())
