"""One run after the other on backends of this process: what of it is compared, and what is the backend's own affair."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from spine_migrate.execution import HandlerRegistry, SyncDispatcher, TaskContext, WorkSpec
from spine_migrate.execution.errors import RunCancelled
from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.executors.local import LocalExecutor
from spine_migrate.execution.runs import RunRecord
from spine_migrate.parity.model import Verdict
from spine_migrate.parity.outputs import driving, in_process
from spine_migrate.parity.outputs.compare import Options, compare
from spine_migrate.parity.outputs.driving import Dispatched
from spine_migrate.parity.outputs.model import Outputs
from spine_migrate.parity.outputs.rules import NO_RULES
from tests.waiting import until

_NAMES = ("memory", "local", "simple")
Handler = Callable[[dict[str, Any], TaskContext], Any]


class Backends:
    """One handler on each; ``of`` tells it where it is."""

    def __init__(self, handler: Handler) -> None:
        registry = HandlerRegistry()
        registry.register("pipeline", "work", handler)
        registry.register("task", "child", lambda _: None)
        self.dispatchers = {name: in_process.dispatcher(name, registry) for name in _NAMES}

    def compare(self, *, repeat: int = 1, max_retries: int = 0, params: dict[str, Any] | None = None) -> Outputs:
        spec = WorkSpec("pipeline", "work", params or {}, max_retries=max_retries, retry_delay_seconds=0)
        backends = [Dispatched(name, dispatcher, spec, 30.0) for name, dispatcher in self.dispatchers.items()]
        try:
            return compare(backends, Options("pipeline", "work", NO_RULES, repeat=repeat))
        finally:
            for dispatcher in self.dispatchers.values():
                if isinstance(dispatcher.executor, LocalExecutor):
                    dispatcher.executor.shutdown()

    def of(self, context: TaskContext) -> tuple[str, SyncDispatcher]:
        return next(
            (name, dispatcher)
            for name, dispatcher in self.dispatchers.items()
            if dispatcher.get_run(context.run_id) is not None
        )


def found(outputs: Outputs) -> dict[str, list[tuple[str, Any, Any]]]:
    return {
        one.name: [(each.path, each.old, each.new) for each in one.differences]
        for one in outputs.backends
        if one.differences
    }


def test_how_a_run_comes_to_a_worker_is_not_compared() -> None:
    outputs = Backends(lambda params, _: params["n"]).compare(repeat=5, params={"n": 7})
    assert (outputs.verdict, outputs.noise) == (Verdict.EQUAL, ())
    documents = [run.documents for one in outputs.backends for run in one.observations]
    assert all(each == documents[0] for each in documents)
    assert documents[0] == {
        "$": 7,
        "status": "completed",
        "error_type": None,
        "error": None,
        "attempts": 1,
        "events": [{"type": "created"}, {"type": "started"}, {"type": "completed"}],
        "children": [],
    }


def test_a_handler_is_given_params_of_its_own() -> None:
    def spoil(params: dict[str, Any], _: TaskContext) -> list[int]:
        params["items"].append(len(params["items"]))
        return list(params["items"])

    assert Backends(spoil).compare(repeat=2, params={"items": [1]}).verdict is Verdict.EQUAL


def test_what_a_handler_records_is_compared_with_its_data() -> None:
    def tell(_: dict[str, Any], context: TaskContext) -> None:
        name, _dispatcher = backends.of(context)
        context.report_progress(50, "half")
        context.note(RunEvent(context.run_id, "rows_read", {"rows": 3 if name == "local" else 2}, source="handler"))

    backends = Backends(tell)
    assert found(backends.compare()) == {"local": [("events[3].data.rows", 2, 3)]}


def test_children_are_compared_by_kind_and_name() -> None:
    def submit(_: dict[str, Any], context: TaskContext) -> None:
        name, dispatcher = backends.of(context)
        for _number in range(1 if name == "simple" else 2):
            dispatcher.submit_task("child", parent_run_id=context.run_id)

    backends = Backends(submit)
    assert found(backends.compare()) == {"simple": [("children[1]", "task child", None)]}


def test_an_attempt_more_is_a_difference() -> None:
    def fail_once(_: dict[str, Any], context: TaskContext) -> str:
        name, _dispatcher = backends.of(context)
        if context.attempt == 1 and name != "memory":
            raise ValueError("once")
        return "done"

    backends = Backends(fail_once)
    differences = found(backends.compare(max_retries=1))
    assert set(differences) == {"local", "simple"}
    assert differences["local"] == differences["simple"]
    assert differences["local"][0] == ("attempts", 1, 2)
    assert ("events[2].type", "completed", "retry_scheduled") in differences["local"]


def test_how_it_fails_is_compared() -> None:
    def fail(_: dict[str, Any], context: TaskContext) -> None:
        name, _dispatcher = backends.of(context)
        raise KeyError("x") if name == "simple" else ValueError("y")

    backends = Backends(fail)
    outputs = backends.compare()
    assert outputs.verdict is Verdict.DIFFERENT
    assert found(outputs) == {"simple": [("error_type", "ValueError", "KeyError"), ("error", "y", "'x'")]}


class _Broken:
    """An executor whose broker is away once it was asked to carry a run."""

    name = "broken"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def submit(self, run: RunRecord) -> str:
        del run
        raise self._error

    def cancel(self, external_ref: str) -> bool:
        return external_ref == ""

    def get_status(self, external_ref: str) -> None:
        del external_ref


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), KeyboardInterrupt()], ids=["defect", "interrupt"])
def test_what_goes_wrong_calls_the_run_off(error: BaseException) -> None:
    dispatcher = SyncDispatcher(_Broken(error))
    with pytest.raises(type(error)):
        Dispatched("broken", dispatcher, WorkSpec("task", "work"), 30.0).observe()
    assert [run.status for run in dispatcher.list_runs()] == ["cancelled"]


class _Unheard:
    """An executor that carries runs nowhere; while it is asked to, somebody else does something."""

    name = "unheard"

    def __init__(self) -> None:
        self.meanwhile: Callable[[str], object] = str

    def submit(self, run: RunRecord) -> str:
        self.meanwhile(run.run_id)
        return run.run_id

    def cancel(self, external_ref: str) -> bool:
        return external_ref == ""

    def get_status(self, external_ref: str) -> None:
        del external_ref


def test_a_run_that_somebody_else_cancels_tells_nothing() -> None:
    executor = _Unheard()
    dispatcher = SyncDispatcher(executor)
    executor.meanwhile = dispatcher.cancel
    observed = Dispatched("unheard", dispatcher, WorkSpec("task", "work"), 30.0).observe()
    assert (observed.status, observed.documents) == ("cancelled", {})
    assert observed.gave_up is not None
    assert "was cancelled before a worker began: by somebody else" in observed.gave_up


def test_a_run_that_nobody_takes_is_cancelled() -> None:
    seen: list[Any] = []
    executor = _Unheard()
    dispatcher = SyncDispatcher(executor)
    executor.meanwhile = seen.append
    observed = Dispatched("unheard", dispatcher, WorkSpec("task", "work"), 0.05, "Start one.").observe()
    until(lambda: seen, "It is not handed over.")
    (run,) = dispatcher.list_runs()
    assert (run.status, seen) == ("cancelled", [run.run_id])
    assert observed.gave_up == (
        f"No worker has taken the run {run.run_id} of unheard within 0.05 seconds; it was cancelled. Start one."
    )


@pytest.mark.parametrize(("heeds", "became"), [(False, "it ended after that"), (True, "it was cancelled")])
def test_what_a_handler_does_that_is_asked_to_stop(
    monkeypatch: pytest.MonkeyPatch,
    heeds: bool,  # noqa: FBT001 - a parameter
    became: str,
) -> None:
    began, looks = threading.Event(), [0.0]

    def clock() -> float:
        """The time is over once the handler has begun, and then stands still: neither is a matter of seconds."""
        looks[0] = min(looks[0] + began.is_set(), 2.0)
        return looks[0]

    monkeypatch.setattr(driving, "time", SimpleNamespace(monotonic=clock, sleep=lambda _: time.sleep(0.005)))

    def wait(_: dict[str, Any], context: TaskContext) -> None:
        began.set()
        if context.cancelled.wait(60) and heeds:
            raise RunCancelled("asked to")

    registry = HandlerRegistry()
    registry.register("task", "work", wait)
    observed = Dispatched("memory", in_process.dispatcher("memory", registry), WorkSpec("task", "work"), 0.5).observe()
    assert observed.gave_up == f"The run {observed.run_id} of memory did not end within 0.5 seconds; {became}."
