"""Whose line it is, through every way in which Celery is called."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.signals import before_task_publish

from spine_shims.caller import MACHINERY, PROGRAMS, CallSite, call_site, shown


def _here() -> CallSite | None:
    return call_site()


def _in(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """The function as if a module of another name had it."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__, {**globals(), "__name__": module}, closure=function.__closure__)


def _through(call: Callable[[], object]) -> object:
    return call()


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        yield app


@pytest.fixture
def sites(app: Celery) -> Iterator[list[CallSite | None]]:
    """Where each message was sent from, as a shim sees it: from within what Celery calls."""
    found: list[CallSite | None] = []

    def published(**_: object) -> None:
        found.append(call_site())

    handler = _in(published, "spine_shims.producing")
    before_task_publish.connect(handler, weak=False)
    yield found
    before_task_publish.disconnect(handler)


WAYS: dict[str, Callable[[Any], object]] = {
    "delay": lambda task: task.delay(1),
    "apply_async": lambda task: task.apply_async((1,), countdown=5),
    "signature": lambda task: task.s(1).delay(),
    "signature apply_async": lambda task: task.si(1).apply_async(queue="other"),
    "signature called with options": lambda task: task.s(1).set(priority=3)(),
    "chain": lambda task: chain(task.s(1), task.s())(),
    "pipe": lambda task: (task.s(1) | task.s()).delay(),
    "group": lambda task: group(task.s(1), task.s(2))(),
    "chord": lambda task: chord([task.s(1), task.s(2)], task.s())(),
    "chunks": lambda task: task.chunks([(1,), (2,)], 1).apply_async(),
    "starmap": lambda task: task.starmap([(1,), (2,)]).delay(),
    "map": lambda task: task.map([1, 2]).delay(),
    "send_task": lambda task: task.app.send_task("shop.bill", (1,)),
    "partial": lambda task: functools.partial(task.delay, 1)(),
    "exit stack": lambda task: _leave(task.delay),
}


def _leave(call: Callable[[int], object]) -> None:
    """Called as the stack is left, at the line that begins it."""
    with contextlib.ExitStack() as stack:
        stack.callback(call, 1)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_leads_to_the_line_that_calls(way: str, app: Celery, sites: list[CallSite | None]) -> None:
    @app.task(name="shop.bill", shared=False)  # type: ignore[untyped-decorator] # Celery has no types
    def bill(number: int) -> int:
        return number

    call = WAYS[way]
    if way == "signature called with options":
        call = lambda task: task.s(1).set(priority=3).apply_async()  # noqa: E731 - as those above
        expected = call.__code__
    else:
        expected = _leave.__code__ if way == "exit stack" else call.__code__
    call(bill)
    assert sites
    for site in sites:
        assert site is not None
        assert site.file == "tests/unit/test_shim_caller.py"
        assert site.function == expected.co_qualname
        assert site.path == __file__
        assert site.module == __name__
        lines = {line for _, _, line in expected.co_lines() if line is not None}
        assert site.line in lines


def test_what_instruments_celery_is_not_the_caller() -> None:
    for package in sorted(MACHINERY):
        wrapped = _in(_through, f"{package}.integrations.celery")
        site = wrapped(_in(_here, "spine_shims.task"))
        assert site is not None
        assert site.function == "test_what_instruments_celery_is_not_the_caller", package


def test_a_package_that_only_begins_alike_is_an_application() -> None:
    site = _in(_through, "celery_shop.tasks")(_in(_here, "spine_shims.task"))
    assert site.module == "celery_shop.tasks"


def test_a_thread_of_its_own_has_no_caller() -> None:
    found: list[object] = []
    thread = threading.Thread(target=_in(lambda: found.append(call_site()), "spine_shims.task"))
    thread.start()
    thread.join(60)
    assert found == [None]


_SHOP = """
from celery import Celery
from celery.signals import before_task_publish
from spine_shims.caller import call_site

app = Celery("shop", broker="memory://")

def told(**_):
    print("from", call_site())

inside = {"__name__": "spine_shims.told", "call_site": call_site}
before_task_publish.connect(type(told)(told.__code__, inside), weak=False)
"""


@pytest.mark.parametrize("program", [(sys.executable, "-m", "celery"), (str(Path(sys.executable).parent / "celery"),)])
def test_a_program_of_celery_is_no_caller(program: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(_SHOP, encoding="utf-8")
    asked = subprocess.run(
        [*program, "--app", "shop", "call", "shop.bill"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert asked.stdout.splitlines()[0] == "from None"


def test_what_a_worker_or_beat_sends_by_itself_has_no_caller() -> None:
    """Wherever the worker was started from: an application's program may do that."""
    for program in PROGRAMS:
        for module in (program, f"{program}.x"):
            assert _in(_through, module)(_in(_here, "spine_shims.task")) is None


@pytest.mark.parametrize(
    ("path", "module", "short"),
    [
        ("/srv/src/shop/tasks.py", "shop.tasks", "shop/tasks.py"),
        ("/srv/src/shop/__init__.py", "shop", "shop/__init__.py"),
        ("/srv/src/shop.py", "shop", "shop.py"),
        (r"C:\srv\shop\tasks.py", "shop.tasks", "shop/tasks.py"),
        ("<stdin>", "__main__", "<stdin>"),
        ("/nowhere/else/run.py", "__main__", "/nowhere/else/run.py"),
        (str(Path.cwd() / "bin" / "run.py"), "__main__", "bin/run.py"),
    ],
)
def test_a_file_is_shown_from_the_application_on(path: str, module: str, short: str) -> None:
    assert shown(path, module) == short
    assert str(CallSite(short, 3, "pay")) == f"{short}:3 pay"
