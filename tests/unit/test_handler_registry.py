"""Handlers by kind and name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from spine_migrate.execution import (
    HandlerRegistry,
    PipelineNotFoundError,
    get_default_registry,
    register_pipeline,
    register_step,
    register_task,
    register_workflow,
    reset_default_registry,
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    reset_default_registry()


def first(params: dict[str, Any]) -> None: ...


def second(params: dict[str, Any]) -> None: ...


def test_register_get_has() -> None:
    registry = HandlerRegistry()
    registry.register("task", "a", first, owner="x")
    assert registry.get("task", "a") is first
    assert registry.has("task", "a")
    assert not registry.has("pipeline", "a")
    assert not registry.has("task", "b")


def test_what_is_not_there_names_what_is() -> None:
    registry = HandlerRegistry()
    with pytest.raises(PipelineNotFoundError, match=r"There is no task named 'x'; none is registered."):
        registry.get("task", "x")
    registry.register("task", "b", first)
    registry.register("task", "a", first)
    registry.register("step", "c", first)
    for ask in (registry.get, registry.get_metadata):
        with pytest.raises(PipelineNotFoundError) as caught:
            ask("task", "x")
        assert str(caught.value) == "There is no task named 'x'; registered are a, b."
        assert (caught.value.kind, caught.value.name) == ("task", "x")


def test_a_name_belongs_to_one_handler() -> None:
    registry = HandlerRegistry()
    registry.register("task", "a", first, version=1)
    registry.register("task", "a", first, version=2)
    assert registry.get_metadata("task", "a") == {"version": 2}
    with pytest.raises(ValueError, match=r"The task 'a' is registered already; give replace=True to replace it."):
        registry.register("task", "a", second)
    registry.register("task", "a", second, replace=True)
    assert registry.get("task", "a") is second
    assert registry.get_metadata("task", "a") == {}


def test_metadata_is_a_copy() -> None:
    registry = HandlerRegistry()
    registry.register("task", "a", first, owner="x")
    registry.get_metadata("task", "a")["owner"] = "y"
    assert registry.get_metadata("task", "a") == {"owner": "x"}


def test_lists_are_sorted_and_by_kind() -> None:
    registry = HandlerRegistry()
    for kind, name in (("task", "b"), ("pipeline", "z"), ("task", "a")):
        registry.register(kind, name, first, at=name)
    assert registry.list_handlers() == [("pipeline", "z"), ("task", "a"), ("task", "b")]
    assert registry.list_handlers("task") == [("task", "a"), ("task", "b")]
    assert registry.list_handlers("step") == []
    assert registry.list_with_metadata("task") == [("task", "a", {"at": "a"}), ("task", "b", {"at": "b"})]


def test_unregister() -> None:
    registry = HandlerRegistry()
    registry.register("task", "a", first)
    assert registry.unregister("task", "a")
    assert not registry.unregister("task", "a")
    assert not registry.has("task", "a")


@pytest.mark.parametrize(
    ("decorator", "kind"),
    [
        (register_task, "task"),
        (register_pipeline, "pipeline"),
        (register_workflow, "workflow"),
        (register_step, "step"),
    ],
)
def test_decorators_use_the_default_registry(decorator: Callable[..., Any], kind: str) -> None:
    assert decorator("a", owner="x")(first) is first
    assert get_default_registry().list_with_metadata() == [(kind, "a", {"owner": "x"})]
    before = get_default_registry()
    reset_default_registry()
    assert get_default_registry() is not before
    assert get_default_registry().list_handlers() == []


def test_registered_and_listed_from_many_threads() -> None:
    registry, together = HandlerRegistry(), threading.Barrier(8)

    def work(number: int) -> None:
        together.wait()
        for n in range(50):
            registry.register("task", f"{number}-{n}", first)
            assert ("task", f"{number}-{n}", {}) in registry.list_with_metadata("task")
            if n % 2:
                registry.unregister("task", f"{number}-{n}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(registry.list_handlers()) == 8 * 25
