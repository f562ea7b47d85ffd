"""The page in a browser: nothing is fetched, nothing fails, and what a pointer, a finger or a key asks for comes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from barlow.report import write_report

pytestmark = pytest.mark.nightly

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESKTOP, PHONE = (1280, 900), (400, 800)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    with playwright.sync_playwright() as started:
        try:  # that of the system, or else one that playwright has brought along
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error:
            if CHROMIUM is not None:
                raise
            pytest.skip("there is no Chromium (apt-get install chromium, or playwright install chromium)")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the run, opened as a double click opens it."""
    return write_report(home / "run", tmp_path_factory.mktemp("page") / "report.html").as_uri()


class Opened:
    """A page that is watched."""

    def __init__(self, browser: Any, address: str, size: tuple[int, int], **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=True, **options)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.wait_for_timeout(300)

    def middle_of_a_point(self) -> tuple[float, float]:
        """Where on the screen the map has an image: found by looking for a tip."""
        canvas = self.page.locator(".map canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        for step in range(1, 60):
            for other in range(1, 60):
                x, y = box["x"] + box["width"] * step / 60, box["y"] + box["height"] * other / 60
                self.page.mouse.move(x, y)
                if self.page.locator("#tip").is_visible():
                    return x, y
        raise AssertionError("no image answers the pointer")


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_opens_without_a_request_or_a_word_on_the_console_and_nothing_runs_over(
    browser: Any, address: str, theme: str, size: tuple[int, int], tmp_path: Path
) -> None:
    opened = Opened(browser, address, size, color_scheme=theme)
    if (folder := os.environ.get("BARLOW_SCREENSHOTS")) is not None:
        opened.page.screenshot(path=str(Path(folder) / f"{theme}-{size[0]}.png"), full_page=True)
    assert opened.wrong == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [address]
    wide = opened.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1], "the page itself never scrolls sideways"
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if theme == "light" else "rgb(21, 24, 28)"
    )
    opened.context.close()


def test_what_is_wider_than_a_phone_says_so_and_neighbours_are_not_cut_off(browser: Any, address: str) -> None:
    wider = """[...document.querySelectorAll(".scroll")].filter((e) => e.clientWidth)
        .map((e) => [e.scrollWidth > e.clientWidth + 1, e.classList.contains("wider")])"""
    cut = """[...document.querySelectorAll(".strips > div > div")].filter((e) => e.scrollWidth > e.clientWidth + 1)"""
    opened = Opened(browser, address, PHONE)
    found = opened.page.evaluate(wider)
    assert [True, True] in found, "the sheet of views is"
    assert all(is_ == says for is_, says in found)
    assert opened.page.evaluate(f"{cut}.length") == 0
    opened.page.set_viewport_size({"width": 4000, "height": 900})
    opened.page.wait_for_timeout(200)
    assert all(is_ == says for is_, says in opened.page.evaluate(wider))
    assert opened.wrong == []
    opened.context.close()


def test_pointing_at_an_image_shows_it_and_a_click_its_nearest(browser: Any, address: str) -> None:
    opened = Opened(browser, address, DESKTOP)
    x, y = opened.middle_of_a_point()
    assert opened.page.locator("#tip .m").is_visible()
    assert opened.page.locator("#tip").inner_text().strip().endswith(")"), "the name, and the class"
    opened.page.mouse.click(x, y)
    assert opened.page.locator(".near li").count() == 6
    assert opened.page.locator(".near li .m").first.is_visible()
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#tip").is_visible()
    assert opened.wrong == []
    opened.context.close()


def test_the_arrow_keys_walk_from_image_to_image(browser: Any, address: str) -> None:
    opened = Opened(browser, address, DESKTOP)
    opened.page.locator(".map canvas").focus()
    seen = []
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "ArrowRight"):
        opened.page.keyboard.press(key)
        seen.append(opened.page.locator(".near .own").inner_text())
    assert len(set(seen)) > 1
    opened.page.keyboard.press("+")
    opened.page.keyboard.press("-")
    assert opened.wrong == []
    opened.context.close()


def test_a_tap_shows_an_image_and_its_tip_stays_on_the_screen(browser: Any, address: str) -> None:
    opened = Opened(browser, address, PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    canvas = opened.page.locator(".map canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for step in range(1, 12):
        opened.page.touchscreen.tap(box["x"] + box["width"] * step / 12, box["y"] + box["height"] / 2)
        if opened.page.locator(".near li").count():
            break
    assert opened.page.locator(".near li").count() == 6
    tip = opened.page.locator("#tip").bounding_box()
    assert tip is not None
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= PHONE[0]
    assert opened.wrong == []
    opened.context.close()


def test_a_curve_answers_the_pointer_and_the_keys(browser: Any, address: str) -> None:
    opened = Opened(browser, address, DESKTOP)
    chart, tip = opened.page.locator("#loss .chart").first, opened.page.locator("#tip")
    chart.focus()
    opened.page.keyboard.press("ArrowLeft")
    assert tip.inner_text().startswith("step 11\n")
    box = chart.locator("svg").first.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] - 12, box["y"] + box["height"] / 2)
    assert tip.inner_text().startswith("step 12\n")
    opened.page.mouse.move(2, 2)
    assert not tip.is_visible()
    assert opened.wrong == []
    opened.context.close()


def test_the_other_map_and_a_class_can_be_chosen(browser: Any, address: str) -> None:
    opened = Opened(browser, address, DESKTOP)
    opened.page.locator("button[data-place=pca]").click()
    assert opened.page.locator("button[data-place=pca]").get_attribute("aria-pressed") == "true"
    assert opened.page.locator("button[data-place=tsne]").get_attribute("aria-pressed") == "false"
    first = opened.page.locator("button[data-label]").first
    first.click()
    assert first.get_attribute("aria-pressed") == "true"
    for act in ("in", "in", "out", "all"):
        opened.page.locator(f"button[data-act={act}]").click()
    assert opened.wrong == []
    opened.context.close()


def test_on_paper_all_is_open_dark_on_white_and_what_is_for_hands_is_gone(
    browser: Any, address: str, theme: str
) -> None:
    opened = Opened(browser, address, DESKTOP, color_scheme=theme)
    page = opened.page
    assert page.locator("details:not([open])").count() > 0
    assert page.locator("nav").is_visible()
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    for hidden in ("nav", ".tools"):
        assert not page.locator(hidden).first.is_visible(), hidden
    colours = page.evaluate("[document.body, document.documentElement].map((e) => getComputedStyle(e).backgroundColor)")
    assert set(colours) <= {"rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"}, "paper is white in a dark theme, too"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator("#loss svg").first.is_visible()
    clipped = (
        "[...document.querySelectorAll('.scroll')].filter((e) => getComputedStyle(e).overflowX !== 'visible').length"
    )
    assert page.evaluate(clipped) == 0, "paper does not scroll"
    assert page.pdf()[:5] == b"%PDF-"
    page.emulate_media(media="screen")
    assert page.locator("nav").is_visible()
    assert opened.wrong == []
    opened.context.close()


def test_it_is_whole_without_its_script(browser: Any, address: str) -> None:
    opened = Opened(browser, address, DESKTOP, java_script_enabled=False)
    assert opened.page.locator("#loss svg").first.is_visible()
    assert opened.page.locator("#neighbours .t").first.is_visible()
    assert opened.page.locator("#evaluation table").first.is_visible()
    opened.context.close()


def test_zoomed_in_a_drag_moves_the_map(browser: Any, address: str) -> None:
    opened = Opened(browser, address, DESKTOP)
    canvas = opened.page.locator(".map canvas")
    canvas.scroll_into_view_if_needed()
    for _ in range(2):
        opened.page.locator("button[data-act=in]").click()
    assert opened.page.evaluate("document.querySelector('.map canvas').style.touchAction") == "none"
    before, box = canvas.screenshot(), canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    opened.page.mouse.move(x, y)
    opened.page.mouse.down()
    opened.page.mouse.move(x + 120, y + 60, steps=4)
    opened.page.mouse.up()
    opened.page.mouse.move(2, 2)
    opened.page.wait_for_timeout(100)
    assert canvas.screenshot() != before
    opened.page.locator("button[data-act=all]").click()
    assert opened.page.evaluate("document.querySelector('.map canvas').style.touchAction") == "pan-y"
    assert opened.wrong == []
    opened.context.close()
