"""The page in a real browser: each tab from upload to result, cancel, wrong files, paint, history, narrow and dark.

Debian's chromium, driven by Playwright. `python -m pytest -m browser`; without one of both these are skipped. One
window serves all tests but those of narrow windows: a page takes seconds to be laid out.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from referencenet.ui.models import TASKS, TabName
from ui.conftest import PATIENCE, Page

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium; install it by `apt-get install chromium`")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=1000 * PATIENCE)
        yield browser
        browser.close()


class Visitor:
    """Somebody at the page.

    Args:
        browser: Theirs.
        page: The page.
        options: Of the browser's window.
    """

    def __init__(self, browser: Any, page: Page, **options: Any) -> None:
        self.served = page
        self.window = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.window.set_default_timeout(1000 * PATIENCE)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.window.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.window.on("request", lambda request: self.asked.append(request.url))
        self.open()

    def open(self) -> None:
        self.window.goto(self.served.address)
        self.window.locator("#refer-draw").wait_for()
        self.window.get_by_role("tab").first.wait_for()  # a narrow window shows a few of them, a wide one all
        self.window.wait_for_timeout(500)  # until they are laid out

    def go_to(self, tab: str) -> None:
        name = self.window.get_by_role("tab", name=tab.capitalize(), exact=True).first
        if not name.is_visible():  # a narrow window keeps further tabs in a menu
            self.window.get_by_role("button", name="More tabs").first.click()
            name = self.window.locator(".overflow-dropdown button", has_text=tab.capitalize()).first
        name.click()

    def fill_example(self, tab: str) -> None:
        self.go_to(tab)
        self.forget(tab)
        self.window.locator(f"#{tab}-example").click()
        self.hears(tab, "the example is filled in")
        self.window.wait_for_timeout(500)  # pictures are laid on their canvases

    def ask_for_steps(self, number: str) -> None:
        """In the first tab."""
        steps = self.window.get_by_label("Steps").first
        if not steps.is_visible():
            self.window.locator("button", has_text="More").first.click()
        steps.fill(number)

    def forget(self, tab: str) -> None:
        """Take away what an earlier test heard."""
        self.window.evaluate(f"document.querySelectorAll('#{tab}-status .status').forEach(said => said.remove())")

    def draw(self, tab: str) -> None:
        self.forget(tab)
        self.window.locator(f"#{tab}-draw").click()

    def hears(self, tab: str, text: str) -> None:
        self.window.locator(f"#{tab}-status .status", has_text=text).wait_for()

    def drop(self, label: str, name: str, content: bytes) -> None:
        """Drop a file on the input of a label."""
        block = self.window.locator(".block", has=self.window.get_by_text(label, exact=True)).last
        block.locator("input[type=file]").first.set_input_files(
            {"name": name, "mimeType": "image/png", "buffer": content}
        )


@pytest.fixture(scope="module")
def window(browser: Any, page: Page) -> Iterator[Visitor]:
    visitor = Visitor(browser, page)
    yield visitor
    visitor.window.close()


@pytest.fixture
def visitor(window: Visitor, page: Page) -> Iterator[Visitor]:
    yield window
    assert not window.wrong
    strange = [url for url in window.asked if not url.startswith((page.address, "data:", "blob:"))]
    assert not strange, f"the page asks other hosts: {strange[:3]}"


def newest(page: Page, tab: str) -> tuple[Path, dict[str, Any]]:
    """The folder and settings of the last result of a tab."""
    folder = page.out / [name for name in page.results if f"-{tab}-" in name][-1]
    return folder, json.loads((folder / "settings.json").read_text())


def png(size: tuple[int, int], colour: str = "orange") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def test_an_uploaded_picture_that_is_painted_on_gives_a_mask_of_its_size_and_place(visitor: Visitor) -> None:
    visitor.go_to("refer")
    visitor.drop("Reference", "wide.png", png((300, 200)))
    canvas = visitor.window.locator(".block canvas").first
    canvas.wait_for()
    visitor.window.wait_for_timeout(1500)  # the picture is laid on the canvas
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visitor.window.get_by_role("button", name="Brush").first.click()
    visitor.window.mouse.move(*middle)
    visitor.window.mouse.down()
    visitor.window.mouse.move(middle[0] + 30, middle[1], steps=5)
    visitor.window.mouse.up()
    visitor.window.get_by_label("Prompt").first.fill("full body, waving")
    visitor.ask_for_steps("2")
    visitor.draw("refer")
    visitor.hears("refer", "done")
    folder, settings = newest(visitor.served, "refer")
    with Image.open(folder / settings["given"]["reference"]) as given:
        assert given.size == (300, 200)
        assert np.asarray(given.convert("RGB"))[100, 150].tolist() == [255, 165, 0]
    with Image.open(folder / settings["given"]["reference_mask"]) as mask:
        assert mask.size == (300, 200)
        assert mask.getpixel((150, 100)) == 255
        assert mask.getpixel((5, 5)) == 0


@pytest.mark.parametrize("tab", list(TASKS))
def test_a_tab_goes_from_its_example_to_a_result_that_is_shown(visitor: Visitor, tab: TabName) -> None:
    visitor.fill_example(tab)
    visitor.draw(tab)
    visitor.hears(tab, "done")
    shown = visitor.window.locator(f"#{tab}-result {'video' if tab in ('animate', 'talk', 'turn') else 'img'}").first
    shown.wait_for()
    size = "videoWidth" if tab in ("animate", "talk", "turn") else "naturalWidth"
    visitor.window.wait_for_function(f"element => element.{size} > 0", arg=shown.element_handle())
    folder, settings = newest(visitor.served, tab)
    assert settings["task"] == tab
    assert all((folder / name).is_file() for name in [*settings["files"], *settings["given"].values()])


def test_a_photograph_that_was_given_is_shown_whole(visitor: Visitor) -> None:
    visitor.fill_example("face")
    shown, place = (
        visitor.window.locator(f"{each} >> visible=true").first.bounding_box() for each in (".given img", ".given")
    )
    assert shown["y"] + shown["height"] <= place["y"] + place["height"]


def test_cancel_ends_a_job_and_the_next_one_is_drawn(visitor: Visitor) -> None:
    before = visitor.served.results
    visitor.fill_example("refer")
    visitor.ask_for_steps("900")
    visitor.draw("refer")
    visitor.hears("refer", "of 900")
    visitor.window.locator("#refer-cancel").click()
    visitor.hears("refer", "cancelled")
    visitor.window.get_by_label("Steps").first.fill("1")
    visitor.draw("refer")
    visitor.hears("refer", "done")
    assert len(visitor.served.results) == len(before) + 1


def test_what_a_link_needs_is_shown_with_it(visitor: Visitor) -> None:
    visitor.go_to("refer")
    words = visitor.window.get_by_label("What the picture of the style shows")
    skeleton = visitor.window.get_by_text("Skeleton to follow", exact=True).first
    for link, shown, hidden in (("its style alone", words, skeleton), ("in a pose", skeleton, words)):
        visitor.window.get_by_label(link, exact=True).check()
        shown.wait_for(state="visible")
        hidden.wait_for(state="hidden")
    visitor.window.get_by_label("attention", exact=True).check()


def test_what_moves_a_person_is_shown_for_the_systems_that_take_it(visitor: Visitor) -> None:
    visitor.go_to("animate")
    folded = visitor.window.get_by_role("button", name="Moved by something else")
    for system, shown in (("aniportrait", True), ("animate_anyone.reenact", False), ("magic_animate", True)):
        model = visitor.window.get_by_label("Model", exact=True).locator("visible=true").first
        model.click()
        visitor.window.get_by_role("option", name=f"{system} (tiny, random)", exact=True).click()
        folded.wait_for(state="visible" if shown else "hidden")
    folded.click()
    visitor.window.get_by_text("An ordinary film; poses, faces or DensePose are found in it").first.wait_for()
    for numbers in ("Key points of the film", "Landmarks of the film"):  # it is moved by DensePose alone
        assert not visitor.window.get_by_text(numbers).first.is_visible()


def test_a_wrong_file_is_told_in_one_sentence(visitor: Visitor) -> None:
    for content, says in (
        (b"no picture at all", "face.png is not a picture that Pillow can read"),
        (png((1100, 1000)), "1100 x 1000 pixels; this page takes up to 1 million"),
    ):
        visitor.open()  # with empty places
        visitor.go_to("turn")
        visitor.drop("Portrait", "face.png", content)
        visitor.window.wait_for_timeout(1500)  # it is uploaded
        visitor.draw("turn")
        visitor.hears("turn", says)


def test_the_history_outlives_a_reload_and_shows_settings(visitor: Visitor) -> None:
    visitor.fill_example("refer")
    visitor.draw("refer")
    visitor.hears("refer", "done")
    visitor.window.wait_for_function("localStorage.getItem('referencenet-history') !== null")
    visitor.open()
    visitor.go_to("history")
    visitor.window.locator("#history-results button img").first.click()
    visitor.window.locator("#history-pictures img").first.wait_for()
    assert "plain blue background" in visitor.window.locator("#history-settings").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_follows_its_scheme(browser: Any, page: Page, scheme: str) -> None:
    visitor = Visitor(browser, page, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    for tab in [*TASKS, "history"] if scheme == "light" else ["refer"]:  # as wide in both
        visitor.go_to(tab)
        visitor.window.wait_for_timeout(300)
        assert visitor.window.evaluate("document.documentElement.scrollWidth") <= 390, tab
    assert visitor.window.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    left, right = (visitor.window.locator(each).bounding_box() for each in (".head small", ".dark-button"))
    assert left["x"] + left["width"] <= right["x"], "the version runs into the button"
    visitor.window.get_by_role("button", name="Light or dark").click()
    assert visitor.window.evaluate("document.body.classList.contains('dark')") == (scheme == "light")
    visitor.window.close()
