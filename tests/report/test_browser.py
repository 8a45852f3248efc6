"""The page in a real browser: it is quiet, fits a phone and paper, and can be read and used by everyone.

Runs where Chromium is installed (Debian's package `chromium`) or named by STILLROOM_CHROMIUM. Screenshots are left in
pytest's folder of the test, as evidence.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from stillroom import layout
from stillroom.data.splits import read_snapshot
from stillroom.report.page import tell_change
from stillroom.stages import report
from tests.report.workspaces import write_large_workspace

CHROMIUM = os.environ.get("STILLROOM_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
PHONE, DESK = 390, 1100
PAPER = 718
"""Width of A4 less margins of a centimetre, in CSS pixels."""
PATIENCE_MS = 120_000
"""A machine may be busy with other tests."""
SETTINGS = [(scheme, width) for scheme in ("light", "dark") for width in (PHONE, DESK)]

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install it, or name it in STILLROOM_CHROMIUM"),
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
]

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run with many classes that was recorded beside a champion, as a file."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report.run(write_large_workspace())
        package = {"student": "static", "package_digest": "e" * 64}
        classes = {name: {"gained": 2, "lost": 30} for name in read_snapshot(layout.SPLIT).labels}
        change = {"model": "big", "champion": package | {"version": 7}, "candidate": package, "classes": classes}
        page = (layout.REPORT / layout.PAGE).read_text(encoding="utf-8")
        told = tell_change(page, change | {"same_data": False}, "6.67% of 480 test answers change")
        layout.CHANGE_PAGE.write_text(told, encoding="utf-8")
    return (folder / layout.CHANGE_PAGE).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, timeout=PATIENCE_MS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Open]:
    """`open_page(scheme, width)`: the page, watched; the test fails if it fetched anything or complained."""
    opened: list[Any] = []
    heard: list[str] = []

    def open_it(scheme: str = "light", width: int = DESK, **options: Any) -> Page:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(PATIENCE_MS)
        opened.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("requestfailed", lambda request: heard.append(f"failed: {request.url[:99]}"))
        page.on("request", lambda request: heard.append(request.url) if not _own(request.url, address) else None)
        page.goto(address)
        return page

    yield open_it
    for context in opened:
        context.close()
    assert heard == []


def _own(url: str, address: str) -> bool:
    return url == address or url.startswith("data:")


def _unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")


@pytest.mark.parametrize(("scheme", "width"), SETTINGS)
def test_the_page_is_quiet_and_never_wider_than_the_screen(
    open_page: Open, scheme: str, width: int, tmp_path: Path
) -> None:
    page = open_page(scheme, width)
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    _unfold(page)
    page.screenshot(path=tmp_path / f"{scheme}-{width}-unfolded.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    hidden = page.evaluate(
        """[...document.querySelectorAll("table")].filter((table) => {
          const box = table.parentElement;
          return table.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "auto";
        }).length"""
    )
    assert hidden == 0, "tables scroll in boxes of their own"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_are_those_of_the_theme(open_page: Open, scheme: str) -> None:
    page = open_page(scheme)
    shown = page.locator("img").evaluate_all(
        "all => all.filter(one => one.checkVisibility()).map(one => one.className)"
    )
    assert len(shown) == page.locator("figure").count() > 5
    assert all(scheme in told.split() for told in shown)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Open, scheme: str) -> None:
    page = open_page(scheme, 2 * DESK)
    page.add_style_tag(content="body { max-width: none }")  # what a box cuts off cannot be judged
    _unfold(page)
    found = Axe().run(page, options={}).response
    told = [
        (rule["id"], rule["impact"], rule["nodes"][0]["html"][:300])
        for kind in ("violations", "incomplete")
        for rule in found[kind]
    ]
    assert told == []
    checked = {rule["id"]: len(rule["nodes"]) for rule in found["passes"]}
    assert checked["color-contrast"] > 500


def test_everything_is_reached_by_tab_and_shows_where_the_focus_is(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    wanted = page.evaluate(
        """[...document.querySelectorAll("a[href], button, summary, [tabindex='0']")]
          .filter((one) => one.checkVisibility({ contentVisibilityAuto: true }))
          .map((one, place) => { one.dataset.place = place; return String(place) })"""
    )
    met = []
    for _ in range(len(wanted)):
        page.keyboard.press("Tab")
        met.append(
            page.evaluate(
                """(() => {
                  const one = document.activeElement, look = getComputedStyle(one);
                  return [one.dataset.place, look.outlineStyle, parseFloat(look.outlineWidth)];
                })()"""
            )
        )
    page.screenshot(path=tmp_path / "focus.png")
    assert [place for place, _, _ in met] == wanted
    assert len(wanted) > 20
    assert all(style != "none" and width >= 2 for _, style, width in met)


def test_a_heading_sorts_its_table_by_keyboard_and_says_so(open_page: Open) -> None:
    page = open_page()
    table = page.locator("#classes ~ details[open] table").first
    heading = table.locator("th", has_text="F1, student")
    place = heading.evaluate("one => one.cellIndex")

    def told() -> list[float | None]:
        values = table.locator("tbody tr").evaluate_all(
            "(rows, place) => rows.map(row => row.cells[place]?.dataset.sort ?? null)", place
        )
        return [None if value is None else float(value) for value in values]

    before = told()
    assert before[-1] is None, "a class without test rows"
    for key, order, sign in (("Enter", "ascending", 1), ("Space", "descending", -1), ("Enter", "ascending", 1)):
        heading.locator("button").press(key)
        assert heading.get_attribute("aria-sort") == order
        values = told()
        known = [sign * value for value in values if value is not None]
        assert all(a <= b for a, b in pairwise(known))
        assert values[-1] is None, "what is not known stays at the end"
        assert len(values) == len(before)
    other = table.locator("th", has_text="test rows")
    other.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") is None
    assert other.get_attribute("aria-sort") == "ascending"


def test_words_are_sorted_as_words(open_page: Open) -> None:
    page = open_page()
    table = page.locator("section[aria-labelledby=front] table")
    heading = table.locator("th", has_text="model")
    heading.locator("button").press("Enter")
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)


def test_without_its_script_the_page_is_whole(open_page: Open, tmp_path: Path) -> None:
    page = open_page(java_script_enabled=False)
    page.screenshot(path=tmp_path / "plain.png", full_page=True)
    assert page.locator("button").count() == 0
    assert page.locator("#classes ~ details[open] table").first.is_visible()


def test_print_is_light_and_shows_everything(open_page: Open, tmp_path: Path) -> None:
    page = open_page("dark", PAPER)
    page.emulate_media(media="print")
    cut = page.locator("h2, h3, table, dl, .prose").evaluate_all(
        """all => all.filter((one) => !one.checkVisibility({ contentVisibilityAuto: true })
          || one.getBoundingClientRect().height < 5 || one.scrollWidth > document.body.clientWidth)
          .map((one) => one.outerHTML.slice(0, 99))"""
    )
    assert cut == []
    assert page.locator("img.dark").evaluate_all("all => all.some(one => one.checkVisibility())") is False
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = page.pdf(path=tmp_path / "page.pdf", format="A4", margin=dict.fromkeys(("left", "right"), "1cm"))
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 3


def test_a_label_that_looks_like_a_tag_is_shown_as_it_is(open_page: Open) -> None:
    page = open_page()
    _unfold(page)
    assert page.locator("script").count() == 1
    told = page.locator("th[scope=row]", has_text="<script>alert(1)</script> | ![picture]")
    assert told.count() > 2
    assert page.locator(".prose td", has_text="<script>alert(1)</script> | ![picture]").count() == 2
    assert page.locator(".prose img").count() == 0
