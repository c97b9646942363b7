"""The service's page in a browser: a picture and a sentence in, a mask that is really there."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_service import process

from wise_edge.datasets.scenes import SceneDataset
from wise_edge.images import save_png
from wise_edge.runtimes.session import Session

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no Chromium with its driver is installed"),
]
FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars"
TINTED = """
const canvas = document.querySelectorAll("article canvas")[arguments[0]], draw = canvas.getContext("2d");
const plain = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height).data;
const seen = draw.getImageData(0, 0, canvas.width, canvas.height).data;
let count = 0;
for (let at = 0; at < seen.length; at += 4)
  count += Math.abs(seen[at + 1] - plain[at + 1]) > 3 || seen[at] !== plain[at];
return count;
"""
"""Pixels of a result that differ from the picture."""
DECODING = """
return [...arguments[0].querySelectorAll(".bar div")].find((part) => part.style.width
  && getComputedStyle(part).backgroundColor === "rgb(255, 99, 132)").offsetWidth;
"""
"""How wide the bar of decoding is."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with process() as (_, address):
        yield address


@pytest.fixture
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", *getattr(request, "param", ())]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    driver.set_window_size(1180, 1100)
    yield driver
    driver.quit()


def wait_for(driver: Any, script: str, *arguments: Any) -> Any:
    for _ in range(600):
        if found := driver.execute_script(script, *arguments):
            return found
        threading.Event().wait(0.05)
    raise AssertionError(f"{script!r} did not come true; the page says {said(driver)!r}")


def said(driver: Any) -> str:
    return str(driver.execute_script('return document.getElementById("say").textContent'))


def complaints(driver: Any) -> list[dict[str, Any]]:
    return [line for line in driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]


def open_picture(driver: Any, url: str, file: Path) -> None:
    driver.get(url)
    driver.find_element("id", "file").send_keys(str(file))
    wait_for(driver, "return picture !== null")


def test_a_picture_and_a_sentence_give_a_mask(browser: Any, url: str, tmp_path: Path) -> None:
    example = SceneDataset("test")[0]
    save_png(example.image, tmp_path / "scene.png")
    expected = Session.from_bundle().segment(example.image, example.query)
    assert expected.mask is not None

    open_picture(browser, url, tmp_path / "scene.png")
    assert browser.switch_to.active_element.get_attribute("id") == "query"
    browser.find_element("id", "query").send_keys(example.query, "\n")
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')

    card = browser.find_element("css selector", "article")
    assert card.find_element("class name", "rationale").text == expected.rationale
    assert "rationale tokens in" in card.text
    assert "mask decode" in card.text
    assert "not measured" in card.text
    tinted = browser.execute_script(TINTED, 0)
    assert expected.mask.sum() * 0.9 < tinted < expected.mask.sum() * 2 + 800  # box and points lie beside the mask
    assert complaints(browser) == []


def test_two_rationales_stand_side_by_side(browser: Any, url: str, tmp_path: Path) -> None:
    example = SceneDataset("test")[1]
    save_png(example.image, tmp_path / "scene.png")
    open_picture(browser, url, tmp_path / "scene.png")
    browser.execute_script('document.getElementById("variant").value = "verbose,wise-s"')
    browser.find_element("id", "query").send_keys(example.query, "\n")
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')
    cards = browser.find_elements("css selector", "article")
    assert [card.find_element("css selector", "h2").text.split()[0] for card in cards] == ["verbose", "wise-s"]
    long, short = (len(card.find_element("class name", "rationale").text) for card in cards)
    assert long > 3 * short > 0
    widths = [browser.execute_script(DECODING, card) for card in cards]
    assert widths[0] > widths[1] > 0  # on one scale
    assert "kept from the query before" in cards[1].text
    assert complaints(browser) == []


@pytest.mark.parametrize(
    "browser", [("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")], indirect=True
)
def test_the_camera_gives_a_picture(browser: Any, url: str) -> None:
    browser.get(url)
    browser.find_element("css selector", "body").send_keys("w")
    wait_for(browser, "return picture !== null")
    assert browser.execute_script("return picture.width * picture.height") > 10_000
    assert "camera, " in browser.find_element("id", "name").text
    browser.find_element("id", "query").send_keys("the green thing\n")
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')
    assert complaints(browser) == []


def test_keys_and_mistakes(browser: Any, url: str, tmp_path: Path) -> None:
    browser.get(url)
    browser.find_element("css selector", "body").send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "query"
    browser.find_element("id", "query").send_keys("the mug\n")
    assert said(browser) == "Open a picture first."
    (tmp_path / "no.png").write_bytes(b"no picture")
    browser.find_element("id", "file").send_keys(str(tmp_path / "no.png"))
    wait_for(browser, 'return document.getElementById("say").textContent.includes("is no picture")')
    assert complaints(browser) == []


def test_a_phone_has_nothing_to_scroll_sideways(browser: Any, url: str, tmp_path: Path) -> None:
    example = SceneDataset("test")[0]
    save_png(example.image, tmp_path / "scene.png")
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    open_picture(browser, url, tmp_path / "scene.png")
    browser.find_element("id", "query").send_keys(example.query, "\n")
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    small = (
        "return [...document.querySelectorAll('button, input:not([hidden]), select')].every(e => e.offsetHeight >= 44)"
    )
    assert browser.execute_script(small)
    assert complaints(browser) == []
