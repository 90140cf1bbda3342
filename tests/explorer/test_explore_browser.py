"""The explorer in a real browser, as a person uses it, at the width of a desk and of a phone."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision_mtl.explorer.server import Server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (requirements-dev.txt)")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")]
Page = Any
OpenPage = Callable[..., Page]
DESK, PHONE = (1200, 900), (390, 844)


@pytest.fixture(scope="module")
def server(explorable: Path, open_page: Callable[..., Server]) -> Server:
    return open_page(explorable)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root has no sandbox
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[OpenPage]:
    """Opens the page; in the end nothing may have been complained of, or asked of another machine."""
    pages: list[tuple[Page, str, list[str], list[str]]] = []

    def open_at(server: Server, size: tuple[int, int] = DESK, scheme: str = "light") -> Page:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        complaints: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        page.wait_for_selector("body[data-ready]")
        settle(page)
        pages.append((page, server.url, complaints, asked))
        return page

    yield open_at
    for page, url, complaints, asked in pages:
        page.close()
        assert not complaints
        assert len(asked) > 4 and all(one.startswith(url) for one in asked)


def settle(page: Page) -> None:
    page.wait_for_selector("body[aria-busy=false]")


def pixels(page: Page, selector: str) -> np.ndarray:
    """(H, W, 3) of a canvas, as the browser shows it."""
    script = """(canvas) => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        return [canvas.height, canvas.width, [...copy.getImageData(0, 0, canvas.width, canvas.height).data]];
    }"""
    height, width, values = page.locator(selector).first.evaluate(script)
    return np.array(values).reshape(height, width, 4)[..., :3]


def said(page: Page) -> dict[str, str]:
    heads = page.locator(".head")
    return {heads.nth(k).get_attribute("data-task"): heads.nth(k).inner_text() for k in range(heads.count())}


def image_file(seed: int) -> bytes:
    file = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((48, 48)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_an_image_is_chosen_a_cell_clicked_and_everything_answers(
    server: Server, visit: OpenPage, size: tuple[int, int], scheme: str
) -> None:
    page = visit(server, size, scheme)
    page.locator("#examples button").nth(2).click()
    settle(page)
    assert page.locator("#examples button").nth(2).get_attribute("aria-pressed") == "true"
    repaired, before = pixels(page, "[data-picture=repaired] canvas"), said(page)
    assert list(before) == ["letter", "shade", "size", "seen"]
    page.locator("#cells button").nth(10).click()
    settle(page)
    changed = (pixels(page, "[data-picture=repaired] canvas") != repaired).any(2)
    cell = np.zeros((32, 32), bool)
    cell[16:24, 16:24] = True
    assert changed.any() and not changed[~cell & ~cell_of(5)].any(), "only hidden cells are repaired"
    after = said(page)
    assert all(re.search(r"repaired\s+\S+\s+[\d.-]+", text) for text in after.values())
    assert after != before, "at least one head notices"
    assert page.locator("#skill-value").inner_text()[0] in "+\N{MINUS SIGN}"
    assert page.locator(".near-row").count() == 3 and page.locator(".near-row img").count() == 12
    loaded = "(images) => images.every((image) => image.complete && image.naturalWidth > 0)"
    assert page.locator(".near-row img").evaluate_all(loaded)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0], "nothing is cut off at the side"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 20, 23)") == (scheme == "dark")


def cell_of(number: int) -> np.ndarray:
    """The pixels of a cell of 4 x 4."""
    cell = np.zeros((32, 32), bool)
    cell[number // 4 * 8 :, number % 4 * 8 :][:8, :8] = True
    return cell


def test_the_keyboard_is_enough(server: Server, visit: OpenPage) -> None:
    page = visit(server)
    before = pixels(page, "#editor")
    page.locator("#cells button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # the border: it stays
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "row 2, column 1"
    page.keyboard.press("Space")
    settle(page)
    assert page.locator("#cells button").nth(4).get_attribute("aria-pressed") == "true"
    changed = (pixels(page, "#editor") != before).any(2)
    assert changed[cell_of(4)].all() and not changed[~cell_of(4)].any()
    page.locator("[value=brush]").focus()
    page.keyboard.press("Space")
    settle(page)
    page.locator("#brush").focus()
    page.keyboard.press("Space")
    settle(page)
    assert "the hidden" in page.locator("#skill-numbers").inner_text()
    assert page.locator("#cells").is_hidden()


def test_a_mask_is_painted_and_wiped(server: Server, visit: OpenPage) -> None:
    page = visit(server)
    page.locator("[value=brush]").check()
    settle(page)
    clean = pixels(page, "#editor")
    box = page.locator("#brush").bounding_box()
    middle = box["y"] + box["height"] / 2

    def stroke(left: float, right: float) -> None:
        page.mouse.move(box["x"] + left * box["width"], middle)
        page.mouse.down()
        page.mouse.move(box["x"] + right * box["width"], middle, steps=6)
        page.mouse.up()
        settle(page)

    stroke(0.2, 0.8)
    painted = (pixels(page, "#editor") != clean).any(2)
    assert painted[16, 8:24].all() and not painted[:10].any() and not painted[22:].any()
    page.locator("#wipe").check()
    stroke(0.4, 0.9)
    wiped = (pixels(page, "#editor") != clean).any(2)
    assert wiped[16, 7:10].all() and not wiped[16, 14:].any()
    page.get_by_role("button", name="Show all").click()
    settle(page)
    assert np.array_equal(pixels(page, "#editor"), clean)


def test_colours_resolution_grid_and_another_pretext(server: Server, visit: OpenPage) -> None:
    page = visit(server)
    page.get_by_role("button", name="Show all").click()
    page.locator("#grey").check()
    settle(page)
    assert np.ptp(pixels(page, "#editor"), axis=2).max() == 0
    page.locator("[name=factor][value='4']").check()
    settle(page)
    assert "one after the other" in page.locator("#how").inner_text()
    page.locator("#grey").uncheck()
    settle(page)
    assert "lost resolution" in page.locator("#how").inner_text()
    page.locator("[data-grid='2x2']").click()
    page.locator("#rows").fill("3")
    page.locator("#rows").press("Tab")
    settle(page)
    assert page.locator("#cells button").count() == 6
    page.locator("#other").select_option("rotation")
    page.locator("#number").select_option(label="turn180")
    settle(page)
    assert "the truth, 180°, is bold" in page.locator(".question").inner_text()
    assert page.locator("#grey").is_disabled() and page.locator(".near-row").count() == 2
    original = pixels(page, "[data-picture=original] canvas")
    assert np.array_equal(pixels(page, "#editor"), original[::-1, ::-1])


def test_a_file_is_chosen_or_dropped_and_a_bad_one_refused_in_words(server: Server, visit: OpenPage) -> None:
    page = visit(server)
    first = pixels(page, "[data-picture=original] canvas")

    def choose(name: str, data: bytes) -> None:
        page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": data})

    choose("my photo.png", image_file(1))
    page.wait_for_selector("#drop strong:has-text('my photo.png')")
    settle(page)
    chosen = pixels(page, "[data-picture=original] canvas")
    assert not np.array_equal(chosen, first)
    assert page.locator("#examples [aria-pressed=true]").count() == 0
    choose("empty.png", b"")
    page.wait_for_selector("#error:has-text('empty.png is empty')")
    choose("large.png", b"0" * 20_000_001)
    page.wait_for_selector("#error:has-text('at most 20 MB are taken')")
    choose("letter.png", image_file(1))
    page.wait_for_selector("#error", state="hidden")
    settle(page)
    drop = """(name, values) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(values)], name, { type: "image/png" }));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(f"([name, values]) => ({drop})(name, values)", ["dropped.png", list(image_file(2))])
    page.wait_for_selector("#drop strong:has-text('dropped.png')")
    settle(page)
    assert not np.array_equal(pixels(page, "[data-picture=original] canvas"), chosen)


def test_a_run_without_images_or_repairs_says_so(
    many_headed: Callable[..., Path], open_page: Callable[..., Server], visit: OpenPage, tmp_path: Path
) -> None:
    page = visit(open_page(many_headed(tmp_path / "run")), PHONE)
    assert "The run's own images are not here" in page.locator("#note").inner_text()
    assert "--explore.repair_with RUN" in page.locator("#trained").inner_text()
    assert page.locator("#near").is_hidden()
    page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": image_file(1)})
    page.wait_for_selector(".head")
    settle(page)
    assert list(said(page)) == ["shape", "tags", "age", "layout"]
    assert page.locator("[data-picture=repaired]").count() == 0
    assert page.locator("[data-picture=classic]").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_a_refusal_and_an_ended_program_are_told_in_words(
    explorable: Path, open_page: Callable[..., Server], browser: Any
) -> None:
    server = open_page(explorable)
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]")
    settle(page)
    told = page.locator("#error")
    assert told.is_hidden()
    page.locator("#file").set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"hello"})
    told.wait_for(state="visible")
    assert told.inner_text().startswith("The file cannot be read: not an image")
    page.route("**/api/answer", lambda route: route.abort())
    page.locator("#cells button").first.click()
    page.wait_for_selector("#error:has-text('The program does not answer')")
    ended = "The program does not answer: was it ended on its terminal? Start it again, then reload this page."
    assert told.inner_text() == ended
    page.unroute("**/api/answer")
    page.locator("#cells button").last.click()
    told.wait_for(state="hidden")  # or it would stay on the page for ever
    assert told.text_content() == ""
    page.close()
