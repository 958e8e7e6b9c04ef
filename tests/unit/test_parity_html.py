"""The HTML page: whatever a value holds stays text, nothing is loaded or executed, and everything is on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise

import pytest

from spine_migrate.parity.evidence import Picture, Slice
from spine_migrate.parity.model import Report
from spine_migrate.report import parity_evidence, parity_html, parity_svg
from tests.parity_reports import HOSTILE, for_any_report, whole

_VOID = {"meta", "link", "rect"}
_TAGS = {
    "html", "head", "meta", "link", "title", "style", "body", "header", "main", "section", "p", "time", "h1",
    "h2", "h3", "ul", "li", "dl", "dt", "dd", "code", "a", "b", "i", "mark", "span", "div", "table", "caption",
    "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg", "g", "rect",
}  # fmt: skip
_ATTRIBUTES = {
    "lang", "charset", "name", "content", "http-equiv", "rel", "href", "class", "id", "datetime", "scope",
    "colspan", "role", "tabindex", "aria-label", "aria-labelledby", "style", "x", "y", "width", "height",
    "viewbox", "preserveaspectratio",
}  # fmt: skip


@dataclass
class Page(HTMLParser):
    """What a page consists of; fails where tags do not nest."""

    tags: list[str] = field(default_factory=list)
    attributes: set[tuple[str, str]] = field(default_factory=set)
    open: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in _VOID or self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text += " " + data


def parsed(report: Report) -> Page:
    page = Page()
    page.feed(parity_html.render(report))
    page.close()
    assert page.open == []
    return page


@for_any_report
def test_whatever_the_report_its_values_stay_text(report: Report) -> None:
    page = parsed(report)
    assert set(page.tags) <= _TAGS
    assert {name for name, _ in page.attributes} <= _ATTRIBUTES
    for name, value in page.attributes:
        if name == "href":
            assert re.fullmatch(r"#mapping-\d+|data:,", value), value
        if name == "style":
            assert re.fullmatch(r"width:\d+\.\d\d%", value), value
    assert all(letter.isprintable() or letter == "\n" for letter in page.text)


@for_any_report
def test_whatever_the_report_no_heading_is_skipped(report: Report) -> None:
    levels = [int(tag[1]) for tag in parsed(report).tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_nothing_is_loaded_and_nothing_executed() -> None:
    text = parity_html.render(whole())
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert not re.search(r"<script|@import|url\(|https?:|\bon[a-z]+\s*=\s*[\"']", text)


def test_the_page_holds_all_of_the_report() -> None:
    report = whole()
    text = " ".join(parsed(report).text.split())
    (one,) = report.comparisons
    for words in (
        "Different Differences: 9, in 1 of 1 mappings. Laws that histories break: 2.",
        "app/runs: self-test failed, 1 of 2 kinds of difference found",
        "10 source rows = 6 matching + 2 differing + 1 missing + 1 held",
        "8 moved ≠ 9 target rows does not add up: 8 against 9",
        "error 2 app/runs.toml:12",
        "metadata.* 1 no rule writes this",
        "k3 error NULL 'x' app/runs.toml:12 explains it (refused by the rule)",
        "k2 missing on the target",
        "Listed differences: 4 of 9; --max-differences lists more.",
        "unknown_value 1 2",
        "parent_run_id 1 2 3 0",
        "5 longer than 100 characters, shortened error (app/runs.toml:12)",
        "missing 1 0 0 NOT found",
        one.not_compared[0],
        "method join: both tables are on one server and fit in its memory.",
        "2 1 order: Events under one timestamp keep their order.",
        "k1 order l1 completed before it was started started, completed completed, started",
        "Without a time: 1 rows, 1 in quarantine.",
        "from 2026-11-01 00:00:00+00: 4 rows, 2 differing",
        one.digest,
        *report.not_checked,
        *parity_evidence.basis(report).values(),
    ):
        assert words is not None
        assert words in text, words


def test_a_value_is_shown_in_full_and_marked_where_it_differs() -> None:
    text = parity_html.render(whole())
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39;&gt;\\u202e\\x00\\ufffe" in text
    assert HOSTILE not in text
    assert "<mark>NULL</mark>" in text


def test_the_drawing_keeps_to_its_frame_and_hides_no_row() -> None:
    slices = [Slice("a", 1_000_000, quarantined=1), Slice("b"), Slice("c", 1, differing=1), Slice("d", 9, missing=5000)]
    columns = list(parity_svg.columns(Picture("key", "k", slices, Slice(None), 0)))
    bars = [bar for column in columns for bar in column.bars]
    assert [[bar.kind for bar in column.bars] for column in columns] == [
        ["rows", "quarantined"], [], ["rows", "wrong"], ["rows", "wrong"],
    ]  # fmt: skip
    assert all(bar.x >= 0 and bar.x + bar.width <= parity_svg.WIDTH and bar.width > 0 for bar in bars)
    assert all(bar.y >= 0 and bar.y + bar.height <= parity_svg.HEIGHT + 0.01 and bar.height >= 3 for bar in bars)
    assert max(bar.height for bar in bars) == parity_svg.BASE


def _luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    css = (resources.files("spine_migrate.report") / "templates" / "parity.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", css.split(":root")[scheme + 1].partition("}")[0]))
    pairs = [(ink, "paper") for ink in ("ink", "quiet", "wrong", "held-ink", "link", "equal", "different", "unknown")]
    pairs += [(name, f"{name}-wash") for name in ("equal", "different", "unknown")]
    pairs += [("ink", f"{name}-wash") for name in ("equal", "different", "unknown")]
    for ink, behind in pairs:
        dark, bright = sorted((_luminance(colours[ink]), _luminance(colours[behind])))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, behind)
