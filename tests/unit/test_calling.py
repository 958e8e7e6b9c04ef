"""What a handler is given, by the shape of its signature, and how an awaitable comes to its end."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from spine_migrate.execution import RunRecord, TaskContext, WorkSpec
from spine_migrate.execution.calling import call
from spine_migrate.execution.errors import HandlerFailed

PARAMS = {"a": 1}


def context() -> TaskContext:
    return TaskContext(RunRecord(WorkSpec("task", "work", dict(PARAMS))), 1, lambda _: None)


def one(params: dict[str, Any]) -> Any:
    return [params]


def two(params: dict[str, Any], about: Any) -> Any:
    return [params, about]


def with_default(params: dict[str, Any], dry_run: bool = False) -> Any:  # noqa: FBT001, FBT002
    return [params, dry_run]


def named_with_default(params: dict[str, Any], context: TaskContext | None = None) -> Any:
    return [params, context]


def annotated_with_default(params: dict[str, Any], about: TaskContext | None = None) -> Any:
    return [params, about]


def keyword_only(params: dict[str, Any], *, ctx: TaskContext) -> Any:
    return [params, ctx]


def placed_only(params: dict[str, Any], about: Any, /) -> Any:
    return [params, about]


def anything(*args: Any, **named: Any) -> Any:
    return [*args, *named]


def decorated(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def inner(*args: Any, **named: Any) -> Any:
        return handler(*args, **named)

    return inner


class Service:
    def method(self, params: dict[str, Any]) -> Any:
        return [params]

    def told(self, params: dict[str, Any], context: TaskContext) -> Any:
        return [params, context]

    def __call__(self, params: dict[str, Any], about: Any) -> Any:
        return [params, about]

    @classmethod
    def of_class(cls, params: dict[str, Any]) -> Any:
        return [params]


@pytest.mark.parametrize(
    "handler",
    [
        one,
        anything,
        pytest.param(decorated(one), id="decorated"),
        Service().method,
        Service.of_class,
        functools.partial(two, about=None),
        lambda params: [params],
    ],
)
def test_params_only(handler: Callable[..., Any]) -> None:
    assert call(handler, context())[0] == PARAMS
    assert not any(isinstance(given, TaskContext) for given in call(handler, context()))


@pytest.mark.parametrize("handler", [dict, sorted, len, "{a}".format_map, str])
def test_builtins_are_given_the_params(handler: Callable[..., Any]) -> None:
    assert call(handler, context()) == handler(PARAMS)


@pytest.mark.parametrize(
    "handler",
    [
        two,
        named_with_default,
        annotated_with_default,
        keyword_only,
        placed_only,
        pytest.param(decorated(two), id="decorated"),
        Service().told,
        Service(),
        functools.partial(two),
        lambda params, context: [params, context],
    ],
)
def test_params_and_context(handler: Callable[..., Any]) -> None:
    given = context()
    assert call(handler, given) == [PARAMS, given]


def test_an_option_with_a_default_is_not_taken_for_the_context() -> None:
    assert call(with_default, context()) == [PARAMS, False]


async def waits(params: dict[str, Any], context: TaskContext) -> Any:
    await asyncio.sleep(0)
    await context.report_progress(50, "half")
    return params["a"] + 1


def test_a_coroutine_function_is_run_to_its_end() -> None:
    assert call(waits, context()) == 2


def test_a_coroutine_function_is_run_inside_a_running_loop_too() -> None:
    async def inside() -> Any:
        return call(waits, context())

    assert asyncio.run(inside()) == 2


def test_a_callable_that_gives_an_awaitable() -> None:
    assert call(functools.partial(waits), context()) == 2


def test_a_task_that_cancels_itself_is_a_failure_and_not_the_end_of_the_worker() -> None:
    async def gives_up(_: dict[str, Any]) -> None:
        raise asyncio.CancelledError

    with pytest.raises(HandlerFailed) as caught:
        call(gives_up, context())
    assert caught.value.error_type == "CancelledError"
