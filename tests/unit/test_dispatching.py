"""dispatch() and its backends, PipelineSpec and PIPELINES (seed 003)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from spine_migrate.errors import ConfigurationError
from spine_migrate.execution import (
    PIPELINES,
    Dispatcher,
    ExecutionResult,
    ExecutionStatus,
    HandlerRegistry,
    InvalidSpecError,
    PipelineNotFoundError,
    PipelineSpec,
    RunRecord,
    RunStatus,
    SyncDispatcher,
    TaskContext,
    dispatch,
    dispatch_sync,
    get_backend,
    get_default_registry,
    register_backend,
    register_pipeline,
    reset_default_registry,
)
from spine_migrate.execution.dispatching import VARIABLE, reset_backends
from spine_migrate.execution.executors.local import LocalExecutor
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.pipelines import Pipelines

INGEST = PipelineSpec(
    "ingest_otc",
    description="FINRA OTC transparency data",
    schedule="0 7 * * 3",
    timeout=3600,
    stages=["fetch", "parse", "store", "notify"],
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    reset_backends()
    reset_default_registry()


def doubles(params: dict[str, Any]) -> dict[str, Any]:
    return {"n": 2 * params["n"]}


async def awaits(params: dict[str, Any], context: TaskContext) -> int:
    await asyncio.sleep(0)
    await context.report_progress(100)
    return int(params["n"])


def test_simple_is_the_default_and_finished() -> None:
    register_pipeline("double")(doubles)
    run = dispatch_sync("double", {"n": 21})
    assert isinstance(run, ExecutionResult)
    assert run.status is ExecutionStatus.COMPLETED
    assert (run.result, run.spec.kind, run.executor_name) == ({"n": 42}, "pipeline", "simple")


def test_awaited_inside_a_loop_with_an_async_handler() -> None:
    register_pipeline("awaits")(awaits)

    async def many() -> list[RunRecord]:
        return await asyncio.gather(*[dispatch("awaits", {"n": n}) for n in range(20)])

    assert [run.result for run in asyncio.run(many())] == list(range(20))


def test_a_failure_with_simple_is_final_and_told_by_the_run() -> None:
    register_pipeline("double")(doubles)
    run = dispatch_sync("double", {})
    assert (run.status, run.error_type, run.attempt) == (RunStatus.DEAD_LETTERED, "KeyError", 1)


def test_the_environment_chooses_and_the_argument_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    register_pipeline("double")(doubles)
    monkeypatch.setenv(VARIABLE, " Memory ")
    waiting = dispatch_sync("double", {"n": 1}, lane="ingest", trigger_source="beat")
    assert (waiting.status, waiting.spec.lane, waiting.spec.trigger_source) == (RunStatus.QUEUED, "ingest", "beat")
    assert dispatch_sync("double", {"n": 1}, "simple").status is RunStatus.COMPLETED
    executor = get_backend().executor
    assert isinstance(executor, MemoryExecutor)
    assert [run.run_id for run in executor.run_all()] == [waiting.run_id]


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert get_backend() is get_backend("simple")


def test_local_runs_it_in_a_thread() -> None:
    register_pipeline("double")(doubles)
    run = dispatch_sync("double", {"n": 3}, "local")
    backend = get_backend("local")
    assert isinstance(backend.executor, LocalExecutor)
    backend.executor.shutdown()
    ended = backend.get_run(run.run_id)
    assert ended is not None
    assert ended.result == {"n": 6}


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_an_unknown_backend_names_the_known(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if given == "environment":
        monkeypatch.setenv(VARIABLE, "cellery")
    with pytest.raises(ConfigurationError) as caught:
        dispatch_sync("double", {}, "cellery" if given == "argument" else None)
    assert caught.value.sentence == (
        "There is no backend 'cellery'; choose one of celery, local, memory, simple, by argument or by"
        " ORCHESTRATOR_BACKEND."
    )


@pytest.mark.parametrize("name", ["dagster", "prefect", "airflow", "temporal"])
def test_what_is_not_shipped_is_said_and_can_be_registered(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"The backend {name} is not shipped; register one"):
        get_backend(name)
    register_backend(name, lambda: SyncDispatcher(MemoryExecutor(name=name)))
    assert get_backend(name).executor.name == name


def test_celery_needs_its_application() -> None:
    with pytest.raises(ConfigurationError, match="The backend celery needs the application's Celery app"):
        dispatch_sync("double", {}, "celery")


def test_a_registered_backend_is_made_once_and_takes_the_place_of_another() -> None:
    made: list[Dispatcher] = []

    def factory() -> Dispatcher:
        made.append(Dispatcher(MemoryExecutor()))
        return made[-1]

    first = get_backend("simple")
    register_backend("Simple", factory)
    assert get_backend("simple") is get_backend("simple")
    assert get_backend("simple") is made[0].sync
    assert get_backend("simple") is not first
    assert len(made) == 1


def test_a_pipeline_that_is_not_there_is_refused_before_it_is_a_run() -> None:
    with pytest.raises(PipelineNotFoundError, match="There is no pipeline named 'tipo'; none is registered"):
        dispatch_sync("tipo", {})
    assert get_backend("simple").list_runs() == []


def test_a_spec_is_in_its_handlers_metadata() -> None:
    assert INGEST.register(doubles) is doubles
    assert get_default_registry().get_metadata("pipeline", "ingest_otc") == {
        "description": "FINRA OTC transparency data",
        "schedule": "0 7 * * 3",
        "timeout": 3600,
        "stages": ("fetch", "parse", "store", "notify"),
    }


def test_the_view_is_what_is_registered_now() -> None:
    assert dict(PIPELINES) == {}
    INGEST.register(doubles)
    register_pipeline("plain", description="no spec")(doubles)
    get_default_registry().register("task", "no pipeline", doubles)
    assert list(PIPELINES) == ["ingest_otc", "plain"]
    assert len(PIPELINES) == 2
    found = PIPELINES["ingest_otc"]
    assert (found.description, found.schedule, found.timeout) == (INGEST.description, INGEST.schedule, 3600)
    assert list(found.stages) == list(INGEST.stages)
    assert PIPELINES["plain"] == PipelineSpec("plain", "no spec")
    assert "no pipeline" not in PIPELINES
    with pytest.raises(KeyError, match="'no pipeline'"):
        PIPELINES["no pipeline"]
    reset_default_registry()
    assert list(PIPELINES) == []


def test_a_view_of_a_registry_of_ones_own() -> None:
    own = HandlerRegistry()
    INGEST.register(doubles, own)
    assert list(Pipelines(own)) == ["ingest_otc"]
    assert list(PIPELINES) == []


def test_a_spec_as_a_decorator_and_as_a_request() -> None:
    @INGEST.register
    def ingest(params: dict[str, Any]) -> int:
        return len(params)

    assert get_default_registry().get("pipeline", "ingest_otc") is ingest
    work = INGEST.work({"week_start": "2026-01-15"}, lane="ingest")
    assert (work.kind, work.name, work.params, work.lane) == (
        "pipeline",
        "ingest_otc",
        {"week_start": "2026-01-15"},
        "ingest",
    )
    with pytest.raises(ValueError, match="The pipeline 'ingest_otc' is registered already"):
        INGEST.register(doubles)
    assert INGEST.register(doubles, replace=True) is doubles


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_above_zero(timeout: float) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        PipelineSpec("x", timeout=timeout)
    assert caught.value.field == "timeout"


def timed_out(params: dict[str, Any], context: TaskContext) -> bool:
    return context.cancelled.wait(60)


@pytest.mark.parametrize(
    "go",
    [
        pytest.param(lambda: dispatch_sync("slow", {}), id="dispatch"),
        pytest.param(lambda: get_backend("simple").submit_pipeline("slow", max_retries=0), id="submit"),
    ],
)
def test_the_timeout_of_a_spec_is_the_runs(go: Callable[[], object]) -> None:
    PipelineSpec("slow", timeout=0.01).register(timed_out)
    go()
    (listed,) = get_backend("simple").list_runs()
    assert (listed.status, listed.error_type) == (RunStatus.DEAD_LETTERED, "RunTimeout")


def test_a_timeout_that_is_given_comes_first() -> None:
    PipelineSpec("slow", timeout=3600).register(timed_out)
    assert dispatch_sync("slow", {}, timeout_seconds=0.01).error_type == "RunTimeout"
