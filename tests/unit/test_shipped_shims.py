"""The shims that ship: their names, handlers and parameters, with the application's bodies and without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from celery import Celery, _state

from spine_migrate.errors import ConfigurationError
from spine_migrate.execution import HandlerRegistry, RunStatus, SyncDispatcher
from spine_migrate.execution.errors import InvalidSpecError
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_shims import Modes, RerouteTask, configure
from spine_shims.configuration import reset
from spine_shims.modes import LEGACY
from spine_shims.shipped import ShippedTask, shipped
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)

_CAPTURE, _MARKET = "spine_shims.capture_spine", "spine_shims.market_spine"
#: Module and name; the name it is registered under; its pipeline; a call as the seeds have it, and its params.
SHIPPED: list[tuple[str, str, str, str, dict[str, Any], dict[str, Any]]] = [
    (
        f"{_CAPTURE}.batch_ingestion", "batch_import_documents",
        "app.tasks.batch_ingestion_tasks.batch_import_documents", "batch_import",
        {"import_id": "i-1", "documents": ["d-1"]}, {"import_id": "i-1", "documents": ["d-1"]},
    ),
    (
        f"{_CAPTURE}.copilot_chat_sync", "sync_copilot_chats",
        "app.tasks.copilot_chat_sync.sync_copilot_chats", "copilot_sync",
        {"workspace": "/w", "since": "2026-01-01"}, {"workspace": "/w", "since": "2026-01-01"},
    ),
    (
        f"{_CAPTURE}.backup", "schedule_pending_backups",
        "app.tasks.backup.schedule_pending_backups", "backup",
        {}, {"pending": True},
    ),
    (
        f"{_CAPTURE}.backup", "run_backup_for_user",
        "app.tasks.backup.run_backup_for_user", "backup",
        {"user_id": 7, "backup_type": "full"}, {"user_id": 7, "backup_type": "full"},
    ),
    (f"{_CAPTURE}.sync", "sync_environments", "app.tasks.sync.sync_environments", "sync_environments", {}, {}),
    (
        f"{_CAPTURE}.recommendations", "update_recommendations",
        "app.tasks.recommendations.update_recommendations", "recommendations",
        {"model": "collaborative", "user_id": 7}, {"model": "collaborative", "user_id": 7},
    ),
    (
        f"{_MARKET}.ingest", "ingest_otc_legacy",
        "market_spine.jobs.ingest.ingest_otc_legacy", "ingest_otc",
        {"week_start": "2026-01-15"}, {"week_start": "2026-01-15"},
    ),
]  # fmt: skip
PIPELINES = {pipeline for _, _, _, pipeline, _, _ in SHIPPED}


def double(x: int) -> int:
    return x * 2


@pytest.fixture
def app() -> Iterator[Celery]:
    before = _state.get_current_app()
    with Celery("shipped", broker="memory://", set_as_current=True) as made:
        yield made
    before.set_current()
    # Those of the test, which every app that is made later would have, too.
    hooks = _state._on_app_finalizers  # noqa: SLF001 - there is no way to disconnect one
    of_tests = {hook for hook in hooks if getattr(getattr(hook, "__self__", None), "name", "").startswith("old.")}
    hooks.difference_update(of_tests)


@pytest.fixture
def seen(app: Celery) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What each pipeline was called with; calls are executed by whoever makes them."""
    calls: list[tuple[str, dict[str, Any]]] = []
    registry = HandlerRegistry()
    for name in PIPELINES:
        registry.register("pipeline", name, lambda params, name=name: calls.append((name, params)))
    ledger = MemoryLedger()
    configure(SyncDispatcher(MemoryExecutor(ledger), ledger, registry))
    yield calls
    reset()


@pytest.mark.parametrize(
    ("module", "name", "registered", "pipeline", "call", "params"), SHIPPED, ids=[row[1] for row in SHIPPED]
)
def test_each_is_called_as_before_and_runs_its_pipeline(  # noqa: PLR0917 - a row of the table
    module: str, name: str, registered: str, pipeline: str, call: dict[str, Any], params: dict[str, Any],
    app: Celery, seen: list[tuple[str, dict[str, Any]]],
) -> None:  # fmt: skip
    task = getattr(import_module(module), name)
    assert app.tasks[registered].name == task.name == registered
    assert isinstance(task, RerouteTask)
    task(**call)
    task.apply(kwargs=call)
    assert seen == [(pipeline, params)] * 2
    assert task.s(**call).task == registered


@pytest.mark.parametrize("module", sorted({row[0] for row in SHIPPED}))
def test_import_works_before_any_app_is_there(module: str) -> None:
    """As an old task module's does, wherever it stands in the order of imports."""
    script = f"""
import celery._state as state
import {module} as shims
assert state.default_app is None and not list(state._get_active_apps())
from celery import Celery
app = Celery("late")
tasks = [value for value in vars(shims).values() if type(value).__name__ == "ShippedTask"]
assert tasks and all(task.name in app.tasks and task.app is app for task in tasks)
assert {{task.name for task in tasks}} == {{name for name in app.tasks if not name.startswith("celery.")}}
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_finalized_app_gets_them_too() -> None:
    script = """
from celery import Celery
app = Celery("early")
app.finalize()
from spine_shims.capture_spine.sync import sync_environments
assert sync_environments.name in app.tasks
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_a_body_other_arguments_go_by_name(app: Celery, seen: list[Any]) -> None:
    task = shipped("old.without_body", "backup", "user_id")
    assert task.run.__signature__.parameters.keys() == {"spine_task", "user_id", "args", "kwargs"}
    assert task.route is not None
    assert task.route.params(7, backup_type="full") == {"user_id": 7, "backup_type": "full"}
    with pytest.raises(InvalidSpecError, match="called with 2 arguments by place, and only 1 are documented"):
        task.route.params(7, "full")
    with pytest.raises(TypeError):
        task.delay()


def test_what_a_seed_documents_in_full_is_all_there_is(app: Celery, seen: list[Any]) -> None:
    from spine_shims.market_spine.ingest import ingest_otc_legacy

    with pytest.raises(TypeError):
        ingest_otc_legacy.delay("2026-01-15", "more")


def test_the_body_s_signature_and_options_count(app: Celery, seen: list[tuple[str, dict[str, Any]]]) -> None:
    backup = shipped("old.with_body", "backup", "user_id")
    app.finalize()

    @backup.legacy_body(bind=True, max_retries=7, lane="night")  # type: ignore[untyped-decorator]  # as Celery's
    def given(self: Any, user_id: int, kind: str = "full") -> tuple[str, int, str]:
        return self.name, user_id, kind

    assert given is backup
    assert isinstance(given, ShippedTask)
    assert (backup.max_retries, backup.route.lane) == (7, "night")
    given(3, "part")
    assert seen == [("backup", {"user_id": 3, "kind": "part"})]
    with pytest.raises(TypeError):
        backup.delay(3, other=1)


def test_in_legacy_mode_the_body_is_called(app: Celery) -> None:
    old = shipped("old.legacy_mode", "old")
    ledger = MemoryLedger()
    configure(SyncDispatcher(MemoryExecutor(ledger), ledger), modes=Modes(default=LEGACY))
    try:
        with pytest.raises(
            ConfigurationError, match=r"old\.legacy_mode has no legacy body .* @legacy_mode\.legacy_body"
        ):
            old(1)
        old.legacy_body(double)
        assert old(21) == 42
        assert ledger.list_runs() == []
    finally:
        reset()


def test_without_a_handler_the_body_is_a_run(app: Celery) -> None:
    old = shipped("old.no_handler", "old")
    ledger = MemoryLedger()
    configure(SyncDispatcher(MemoryExecutor(ledger), ledger, HandlerRegistry()))
    try:
        failed = old.apply((), {"x": 1})
        assert "no handler is registered as the pipeline 'old'" in str(failed.result)
        old.legacy_body(double)
        done = old.apply((21,))
        assert done.result == 42
        for result, status, params in ((failed, RunStatus.FAILED, {"x": 1}), (done, RunStatus.COMPLETED, {"x": 21})):
            run = ledger.get(result.id)
            assert run is not None
            assert (run.status, run.spec.name, run.spec.params) == (status, "old", params)
    finally:
        reset()


def test_the_body_s_app_is_the_task_s(app: Celery) -> None:
    """Whatever app is current, as with @app.task."""
    old = shipped("old.of_an_app", "old")
    with Celery("other", set_as_current=False) as other:
        old.legacy_body(double, app=other)
        assert old.app is other
        assert app.tasks["old.of_an_app"].app is app


def test_another_name(app: Celery) -> None:
    app.finalize()
    old = shipped("old.named", "old")
    old.registered_as("jobs.named")
    assert (old.name, "old.named" in app.tasks) == ("jobs.named", False)
    old.legacy_body(double, name="work.named")
    assert (old.name, "jobs.named" in app.tasks) == ("work.named", False)


def test_what_is_a_task_already_is_no_body(app: Celery) -> None:
    old = shipped("old.decorated", "old")

    @app.task(name="old.other", shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def other() -> None: ...

    with pytest.raises(ConfigurationError, match=r"@decorated\.legacy_body takes the place of @app\.task"):
        old.legacy_body(other)


def test_a_task_that_is_there_already_is_not_taken_away(app: Celery) -> None:
    app.finalize()

    @app.task(name="old.taken", shared=False)  # type: ignore[untyped-decorator]  # as above
    def taken() -> None: ...

    with pytest.raises(ConfigurationError, match=r"has a task old\.taken of its own: put @taken\.legacy_body"):
        shipped("old.taken", "old")
