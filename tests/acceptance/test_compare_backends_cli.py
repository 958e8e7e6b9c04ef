"""``spine-migrate compare-backends`` as it is installed: verdicts, refusals, and what is left when it gives up."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spine_migrate.db import schema
from tests.celery_worker import REPOSITORY, CeleryWorker, Place, prepared, until
from tests.command import PROGRAM, environment, run
from tests.database import Database
from tests.grants import give

_SHOP = """
import os, sys, threading, time
from celery import Celery
from spine_migrate.execution import HandlerRegistry, SyncDispatcher, get_default_registry, register_backend
from spine_migrate.execution import register_pipeline, register_task
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.executors.simple import SimpleExecutor
from spine_shims import reroute

app = Celery("shop", broker={broker!r})
nothing = HandlerRegistry()


@register_pipeline("double", pure=True)
def double(params):
    print("said by the handler")
    return params["n"] * 2


@register_pipeline("where", pure=True)
def where(params):
    return {{"rows": [1, {{"thread": threading.current_thread().name}}]}}


@register_pipeline("writes")
def writes(params):
    with open("written", "a") as file:
        file.write("x")


@register_pipeline("careful", dry_run=lambda params: {{**params, "dry": True}})
def careful(params):
    if not params.get("dry"):
        raise AssertionError("for real")
    return params


@register_pipeline("deaf", pure=True)
def deaf(params):
    time.sleep(600)


@register_pipeline("twice")
@register_task("twice")
def twice(params):
    return 1


@register_pipeline("fails", pure=True)
def fails(params):
    raise ValueError("no")


def old_double(n, factor=2):
    return n * factor


async def old_async(n):
    return n * 2


def old_stuck(n):
    time.sleep(600)


def old_exits(n):
    sys.exit(3)


@app.task(bind=True)
def old_task(self, n):
    return self.name and n * 3


@reroute("double", app=app)
def old_shim(n):
    return n * 2


@reroute("charge", app=app, dry_run=lambda params: {{**params, "dry": True}})
def old_charge(n):
    with open("charged", "a") as file:
        file.write("x")
    return n


@register_pipeline("charge")
def charge(params):
    if not params.get("dry"):
        raise AssertionError("charged twice")
    return params["n"]


register_backend("own", lambda: SyncDispatcher(SimpleExecutor()))
"""


class Desk:
    """A folder with an application."""

    def __init__(self, folder: Path, broker: str = "memory://") -> None:
        self.folder = folder
        (folder / "shop.py").write_text(_SHOP.format(broker=broker), encoding="utf-8")

    def compares(self, *words: str, url: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        ended = run(url, "compare-backends", *words, cwd=self.folder)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended

    def here(self, name: str, *words: str, params: str = '{"n": 3}', code: int = 0) -> Any:
        """As JSON, in this process."""
        ended = self.compares(name, "--params", params, "--import", "shop", "--json", *words, code=code)
        return json.loads(ended.stdout)


_BOTH = ("--backend", "memory", "--backend", "local")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_three_backends_in_this_process(desk: Desk) -> None:
    """Without a database; what the handler prints is no part of the report."""
    told = desk.here("double", *_BOTH, "--backend", "simple", "--repeat", "2")
    assert (told["verdict"], told["kind"], told["noise"]) == ("equal", "pipeline", [])
    assert [(one["name"], len(one["runs"]), one["events_compared"]) for one in told["backends"]] == [
        ("memory", 2, True),
        ("local", 2, True),
        ("simple", 2, True),
    ]


def test_a_difference_is_exit_1_with_its_path(desk: Desk) -> None:
    ended = desk.compares("where", "--import", "shop", *_BOTH, code=1)
    assert "result differs at $.rows[1].thread; events equal" in ended.stdout
    assert re.search(r'local +\$\.rows\[1\]\.thread +"spine-compare" +"spine-local_0" +1 of 1', ended.stdout)
    assert ended.stdout.endswith("Different: local from memory.\n")


def test_a_backend_of_the_application(desk: Desk) -> None:
    assert desk.here("double", "--backend", "memory", "--backend", "own")["verdict"] == "equal"


def test_side_effects_are_asked_for(desk: Desk) -> None:
    """Nobody is there to be asked, so that nothing is executed."""
    refused = desk.compares("writes", "--import", "shop", *_BOTH, "--repeat", "3", code=2)
    assert "This executes the pipeline writes 6 times" in refused.stderr
    assert not (desk.folder / "written").exists()
    desk.here("writes", *_BOTH, "--yes")
    assert (desk.folder / "written").read_text() == "xx"


def test_a_dry_run_is_used_and_told(desk: Desk) -> None:
    told = desk.here("careful", *_BOTH)
    assert (told["verdict"], told["dry_run"]) == ("equal", True)


@pytest.mark.parametrize(
    ("body", "more", "code", "paths"),
    [
        ("shop:old_double", (), 0, []),
        ("shop:old_double", ("--legacy-params", '{"n": 2, "factor": 3}'), 0, []),
        ("shop:old_double", ("--legacy-params", '{"n": 3, "factor": 3}'), 1, ["$"]),
        ("shop:old_async", (), 0, []),
        ("shop:old_task", (), 1, ["$"]),
        ("shop:old_shim", (), 0, []),
        ("shop:old_exits", ("--accept-failure",), 1, ["$", "status", "error_type", "error"]),
    ],
)
def test_an_old_body_is_the_baseline(body: str, more: tuple[str, ...], code: int, paths: list[str], desk: Desk) -> None:
    told = desk.here("double", "--legacy", body, "--backend", "memory", "--yes", *more, code=code)
    legacy, memory = told["backends"]
    assert (legacy["name"], legacy["runs"][0]["run_id"], memory["events_compared"]) == ("legacy", None, False)
    assert [found["path"] for found in memory["differences"]] == paths


def test_a_shim_says_how_its_handler_changes_nothing(desk: Desk) -> None:
    """As in the mode shadow: the old body does the work, the handler does it dry."""
    told = desk.here("charge", "--legacy", "shop:old_charge", "--backend", "memory", "--yes")
    assert (told["verdict"], told["dry_run"]) == ("equal", True)
    assert (desk.folder / "charged").read_text() == "x"


def test_an_old_body_has_another_place_where_it_is_given_one(desk: Desk) -> None:
    words = ("--backend", "memory", "--backend", "legacy", "--legacy", "shop:old_double", "--yes")
    assert [one["name"] for one in desk.here("double", *words)["backends"]] == ["memory", "legacy"]
    assert (
        "say --yes" in desk.compares("double", "--import", "shop", "--params", '{"n": 1}', *words[:-1], code=2).stderr
    )


@pytest.mark.parametrize("backends", [("local", "memory"), ("legacy", "memory"), ("simple", "local")])
def test_what_does_not_stop_is_not_waited_for(backends: tuple[str, str], desk: Desk) -> None:
    words = [word for name in backends for word in ("--backend", name)]
    old = ("--legacy", "shop:old_stuck") if "legacy" in backends else ()
    told = desk.here("deaf", *words, *old, "--timeout", "0.2", "--yes", code=4)
    first, second = told["backends"]
    assert (told["verdict"], first["runs"][0]["status"], second["runs"]) == ("could not tell", "timed out", [])
    assert [reason["code"] for reason in told["reasons"]] == ["timeout", "not-executed"]


def test_a_baseline_that_fails(desk: Desk) -> None:
    assert desk.here("fails", *_BOTH, code=4)["reasons"][0]["code"] == "baseline-failed"
    assert desk.here("fails", *_BOTH, "--accept-failure")["verdict"] == "equal"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("double", "--backend", "memory"), "name two backends"),
        (("double", "--backend", "memory", "--backend", "Memory"), "A backend is named twice"),
        (("double", "--backend", "memory", "--backend", "legacy"), "name it with --legacy MODULE:NAME"),
        (("double", "--backend", "memory", "--backend", "dagster"), "The backend dagster is not shipped"),
        (("double", "--backend", "memory", "--backend", "celery"), "Or name the application with --app."),
        (("treble", *_BOTH, "--yes"), "There is no pipeline named 'treble'; registered are"),
        (("double", *_BOTH, "--registry", "shop:nothing", "--yes"), "with --import"),
        (("double", *_BOTH, "--registry", "shop:app"), "no HandlerRegistry"),
        (("double", *_BOTH, "--import", "shoe"), "The module shoe cannot be imported"),
        (("twice", *_BOTH), "is registered as pipeline and as task; say which one with --kind"),
        (("double", *_BOTH, "--params", "[1]"), "a list; it must be a JSON object"),
        (("double", *_BOTH, "--params", "{"), "is no JSON"),
        (("double", *_BOTH, "--params", "@none.json"), "cannot be read"),
        (("double", *_BOTH, "--rules", "none.toml"), "none.toml: there is no such rules file"),
        (("double", *_BOTH, "--json", "--format", "junit"), "two different reports"),
        (("double", "--backend", "memory", "--legacy", "shop:nothing"), "no function and no task"),
        (("double", "--backend", "memory", "--legacy", "shop:old_double", "--yes"), "missing a required argument: 'n'"),
    ],
)
def test_mistakes_end_with_2(words: tuple[str, ...], sentence: str, desk: Desk) -> None:
    assert sentence in desk.compares(*words, "--import", "shop", code=2).stderr


def test_the_params_may_be_in_a_file(desk: Desk) -> None:
    (desk.folder / "params.json").write_text('{"n": 21}', encoding="utf-8")
    assert desk.here("double", *_BOTH, params="@params.json")["verdict"] == "equal"


_CELERY = ("double", "--params", '{"n": 3}', "--app", "shop:app", "--backend", "memory", "--backend", "celery")


def _runs(database: Database) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute("SELECT name, status, started_at FROM runs").fetchall()


def test_without_a_worker_the_run_is_cancelled(tmp_path: Path, database: Database, redis_url: str) -> None:
    """By a role that has what ``grants compare-backends`` prints."""
    schema.upgrade(database.url)
    with database.connect(autocommit=True) as owner:
        owner.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    role = database.add_role("comparer")
    give(database, role, "compare-backends")
    ended = Desk(tmp_path, redis_url).compares(*_CELERY, "--timeout", "0.5", url=database.url_as(role), code=4)
    assert re.search(
        r"No worker has taken the run [0-9a-f-]{36} of celery within 0.5 seconds; it was cancelled\. Start a worker"
        r" that listens to the queue 'default', or give a longer --timeout\.",
        ended.stdout,
    )
    assert _runs(database) == [("double", "cancelled", None)]


def test_without_a_broker_it_is_exit_5_and_the_run_is_cancelled(tmp_path: Path, database: Database) -> None:
    schema.upgrade(database.url)
    ended = Desk(tmp_path, "redis://127.0.0.1:1/0").compares(*_CELERY, url=database.url, code=5)
    assert "The broker cannot be reached" in ended.stderr
    assert _runs(database) == [("double", "cancelled", None)]


def test_without_the_tables_it_is_refused(tmp_path: Path, database: Database) -> None:
    ended = Desk(tmp_path).compares(*_CELERY, url=database.url, code=3)
    assert "spine-migrate db upgrade" in ended.stderr


@contextmanager
def started(folder: Path, database: Database) -> Iterator[subprocess.Popen[str]]:
    """Waiting for a worker that is not there."""
    tool = subprocess.Popen(
        [PROGRAM, "compare-backends", *_CELERY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(database.url),
    )
    try:
        until(lambda: any(status == "queued" for _, status, _ in _runs(database)), "Nothing is queued")
        yield tool
    finally:
        tool.kill()
        tool.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_calls_the_run_off(number: signal.Signals, tmp_path: Path, database: Database, redis_url: str) -> None:
    schema.upgrade(database.url)
    Desk(tmp_path, redis_url)
    with started(tmp_path, database) as tool:
        tool.send_signal(number)
        told, said = tool.communicate(timeout=60)
    assert (tool.returncode, told) == (4, ""), said
    assert "Traceback" not in said
    assert _runs(database) == [("double", "cancelled", None)]


def test_what_a_killed_tool_leaves_behind_expires(tmp_path: Path, database: Database, redis_url: str) -> None:
    """Nobody is there to cancel it; a worker that comes a minute and the timeout later finds it expired."""
    schema.upgrade(database.url)
    Desk(tmp_path, redis_url)
    with started(tmp_path, database) as tool:
        tool.kill()
    with database.connect() as connection:
        soon = "SELECT r.status, h.expires_at < now() + interval '2 min' FROM run_handoff h JOIN runs r USING (run_id)"
        assert connection.execute(soon).fetchall() == [("queued", True)]


class Workplace:
    """Real workers of tests/celery_app.py, whose handlers note each execution."""

    def __init__(self, place: Place, worker: CeleryWorker) -> None:
        self.place = place
        self.worker = worker

    def compares(self, name: str, params: dict[str, Any], *words: str, code: int = 0) -> Any:
        app = ("--app", "tests.celery_app:executor", "--registry", "tests.celery_app:registry")
        ended = run(
            None, "compare-backends", name, "--params", json.dumps(params), *app, "--json", "--yes", *words,
            env=self.place.environment(), cwd=REPOSITORY,
        )  # fmt: skip
        assert ended.returncode == code, ended.stdout + ended.stderr + self.worker.log()
        return json.loads(ended.stdout)


@pytest.fixture
def workplace(database: Database, redis_url: str) -> Iterator[Workplace]:
    place = prepared(database.url, redis_url)
    with place.worker() as worker:
        yield Workplace(place, worker)
        place.discard()


_WITH_CELERY = (*_BOTH, "--backend", "celery")


def test_attempts_are_the_same_without_a_relay(workplace: Workplace) -> None:
    """The handler fails once, on each of the three, and is tried again at once."""
    told = workplace.compares("fails", {"times": 1}, *_WITH_CELERY, "--max-retries", "1")
    assert told["verdict"] == "equal"
    assert [one["runs"][0]["status"] for one in told["backends"]] == ["completed"] * 3
    attempts = workplace.place.rows("SELECT count(DISTINCT run_id), array_agg(attempt ORDER BY attempt) FROM executed")
    assert attempts == [(3, [1, 1, 1, 2, 2, 2])]


def test_a_run_that_takes_too_long_on_a_worker_is_asked_to_stop(workplace: Workplace) -> None:
    words = ("--backend", "celery", "--backend", "memory", "--timeout", "2")
    told = workplace.compares("slow", {"seconds": 600}, *words, code=4)
    assert told["reasons"][0]["code"] == "timeout"
    until(
        lambda: workplace.place.rows("SELECT status FROM runs") == [("cancelled",)],
        "The worker does not stop",
        workplace.worker,
    )


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
