"""The HTML report in a browser: what it says first is seen first, it fits, and it asks nobody for anything.

Needs Chromium on PATH, or named by SPINE_TEST_CHROMIUM, so `make test` leaves it out and .ci/run asks for it.
Screenshots lie in pytest's temporary folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from spine_migrate.parity.model import Difference, Report, Verdict
from spine_migrate.report import parity_html
from tests.command import run
from tests.database import Database
from tests.legacy import build, uuid
from tests.parity_reports import HOSTILE, RULE, whole

pytestmark = pytest.mark.browser

WIDTHS = {"phone": 390, "desk": 1280}
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A sandbox inside a container's is refused; the rest keeps Chromium itself from asking the network for anything.
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

_OVERHANGING = """() => [...document.querySelectorAll('body *')]
    .filter(each => !each.closest('.scroll, svg') && each.getBoundingClientRect().right > innerWidth + 0.5)
    .map(each => `${each.tagName}.${each.className}`)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = os.environ.get("SPINE_TEST_CHROMIUM") or next(filter(None, map(shutil.which, _CHROMIUM)), None)
    assert found, "No Chromium is on PATH; install one, or name it in SPINE_TEST_CHROMIUM."
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture(params=list(WIDTHS))
def width(request: pytest.FixtureRequest) -> int:
    return WIDTHS[request.param]


@pytest.fixture
def different(database: Database, tmp_path: Path) -> Path:
    """The page of a real comparison, by the installed command."""
    legacy = build(database)
    legacy.many_executions(300)
    legacy.execute(
        "UPDATE executions SET created_at = '2024-01-01'::timestamptz"
        " + right(execution_id::text, 12)::int * interval '1 day'"
    )
    legacy.move()
    legacy.execute("UPDATE runs SET error = %s WHERE run_id = ANY(%s::uuid[])", HOSTILE.replace("\x00", ""), [uuid(7)])
    legacy.execute("DELETE FROM runs WHERE run_id = %s", uuid(200))
    file = tmp_path / "parity.html"
    ended = run(database.url, "compare", "--format", "html", "--output", str(file))
    assert (ended.returncode, ended.stdout) == (1, "")
    return file


def crowded() -> Report:
    """Names and values without a place to break a line, and far too many of them."""
    report = whole()
    (one,) = report.comparisons
    long = Difference("field", "k" * 300, "k" * 300, "f" * 300, "text", "o" * 3000, "n" * 3000, RULE)
    wide = replace(one, mapping="m" * 120, not_compared=["x" * 500], differences=[*one.differences, *[long] * 50])
    return replace(report, comparisons=[wide, one])


def opened(browser: Browser, file: Path, *, width: int, scheme: str = "light") -> tuple[Page, list[str], list[str]]:
    """The page, what it has asked for, and what the console says."""
    page = browser.new_page(
        viewport={"width": width, "height": 844}, color_scheme="dark" if scheme == "dark" else "light"
    )
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(file.as_uri())
    page.screenshot(path=file.with_name(f"{file.stem}-{scheme}-{width}.png"), full_page=True)
    return page, asked, said


def check(page: Page, asked: list[str], said: list[str], verdict: str) -> None:
    heading = page.get_by_role("heading", level=1, name=verdict, exact=True)
    box = heading.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 300, "the verdict is not what is seen first"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.evaluate(_OVERHANGING)
    assert page.evaluate(_OVERHANGING) == []
    assert (asked, said) == ([page.url], [])


def test_a_real_comparison(browser: Browser, different: Path, width: int) -> None:
    page, asked, said = opened(browser, different, width=width)
    check(page, asked, said, "Different")
    assert page.get_by_text("Differences: 2, in 1 of 1 mappings.").is_visible()
    assert page.get_by_role("img").get_attribute("aria-label") == (
        "capture-spine/executions: legacy rows along created_at in 80 slices, 2 of them not equal"
    )
    assert page.locator("svg rect.wrong").count() == 2
    assert page.get_by_role("row", name=uuid(7)).get_by_text("<script>").is_visible()
    page.close()


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_fits(browser: Browser, tmp_path: Path, verdict: Verdict, width: int) -> None:
    file = tmp_path / f"{verdict.name.lower()}.html"
    file.write_text(parity_html.render(replace(crowded(), verdict=verdict)), encoding="utf-8")
    page, asked, said = opened(browser, file, width=width)
    check(page, asked, said, verdict.value.capitalize())
    page.close()


def test_it_is_dark_where_the_reader_wants_it_dark(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "parity.html"
    file.write_text(parity_html.render(whole()), encoding="utf-8")
    grounds = {}
    for scheme in ("light", "dark"):
        page, asked, said = opened(browser, file, width=1280, scheme=scheme)
        check(page, asked, said, "Different")
        grounds[scheme] = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        page.close()
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 27)"}


def test_it_is_printed_on_white_and_nothing_is_cut_off(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "parity.html"
    file.write_text(parity_html.render(crowded()), encoding="utf-8")
    page, _, _ = opened(browser, file, width=794, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_the_tables_are_reached_and_scrolled_with_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "parity.html"
    file.write_text(parity_html.render(crowded()), encoding="utf-8")
    page, _, _ = opened(browser, file, width=390)
    table = page.get_by_role("region", name="The differences").first
    table.focus()
    page.keyboard.press("ArrowRight")
    # The page's own policy forbids the evaluation that wait_for_function needs.
    while not page.evaluate("document.activeElement.scrollLeft > 0"):
        page.wait_for_timeout(20)
    page.close()
