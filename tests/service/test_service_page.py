"""The service's page in a browser: an image and a sentence in, a mask that is really there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service_browser import complaints, needs_browser, open_empty, open_image, pixels_of, said, wait_for
from service_process import fakes, started
from wise_edge.datasets.base import mask_points
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.images import save_png
from wise_edge.outputs.pictures import draw_result
from wise_edge.runtimes.session import Session
from wise_edge.scenes import sample_group

pytestmark = [pytest.mark.slow, needs_browser]
TINTED = """
const canvas = document.querySelectorAll("article canvas")[arguments[0]], draw = canvas.getContext("2d");
const plain = image.getContext("2d").getImageData(0, 0, image.width, image.height).data;
const seen = draw.getImageData(0, 0, canvas.width, canvas.height).data;
let count = 0;
for (let at = 0; at < seen.length; at += 4)
  count += Math.abs(seen[at + 1] - plain[at + 1]) > 3 || seen[at] !== plain[at];
return count;
"""
"""Pixels of a result that differ from the image."""
DECODING = """
return [...arguments[0].querySelectorAll(".bar div")].find((part) => part.style.width
  && getComputedStyle(part).backgroundColor === "rgb(255, 99, 132)").offsetWidth;
"""
"""How wide the bar of decoding is."""
HOLD = """
const real = fetch, end = arguments[0];
window.held = [];
window.fetch = (path, options) => new Promise((done, fail) => {
  const go = () => real(path, options).then(done, fail);
  path.endsWith(end) ? held.push(go) : go();
});
"""
"""Holds the page's requests to paths with this ending."""
RELEASE = "held.splice(0).forEach((go) => go())"


LISTS = """
import sys
from fake_session import FakePolicy, list_boxes
from wise_edge.policy.answers.form import BOX_LABEL_LIST
from wise_edge.runtimes.session import Session
from wise_edge.scenes import sample_group
from wise_edge.service.app import make_app
from wise_edge.service.limits import Limits
from wise_edge.service.server import run_server

found = sample_group("test", int(sys.argv[1]))

def write(image, query, variant):
    boxes = [item.box for item in found.targets] if query == found.request else []
    return list_boxes(boxes, image.shape[1::-1])

session = Session(FakePolicy(write, form=BOX_LABEL_LIST), Session.from_bundle().mask, {})
say = lambda url: print("serving", url, file=sys.stderr, flush=True)
run_server(make_app(session, Limits()), "127.0.0.1", 0, Limits(), say)
"""
"""A service that names the objects which a query of a scene means, with the embedded segmenter."""
COLORS = """
const canvas = document.querySelector("article canvas"), draw = canvas.getContext("2d");
const seen = draw.getImageData(0, 0, canvas.width, canvas.height).data;
return arguments[0].map(([x, y]) => [...seen.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 3)]);
"""
"""Colors of the first result at places."""


def test_an_image_and_a_sentence_give_a_mask(browser: Any, url: str, tmp_path: Path) -> None:
    example = SceneDataset("test")[0]
    save_png(example.image, tmp_path / "scene.png")
    expected = Session.from_bundle().segment(example.image, example.query)
    assert expected.mask is not None

    open_image(browser, url, tmp_path / "scene.png")
    assert browser.switch_to.active_element.get_attribute("id") == "query"
    browser.find_element("id", "query").send_keys(example.query, "\n")
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')

    card = browser.find_element("css selector", "article")
    assert card.find_element("class name", "rationale").text == expected.rationale
    assert "rationale tokens in" in card.text
    assert "mask decode" in card.text
    assert "not measured" in card.text
    left, top, right, bottom = expected.box or ()
    canvas = card.find_element("css selector", "canvas")
    label = f"{example.query}: mask, box {left}, {top} to {right}, {bottom}"
    assert (canvas.get_attribute("role"), canvas.get_attribute("aria-label")) == ("img", label)
    assert np.array_equal(pixels_of(browser), draw_result(expected, example.image))
    browser.find_element("id", "marks").click()
    assert browser.execute_script(TINTED, 0) > np.any(draw_result(expected, example.image) != example.image, 2).sum()
    assert complaints(browser) == []


def test_several_objects_have_a_color_each_and_nothing_has_none(browser: Any, tmp_path: Path) -> None:
    index = next(index for index in range(30) if len(sample_group("test", index).targets) > 2)
    found = sample_group("test", index)
    save_png(found.scene.image, tmp_path / "scene.png")
    with started([sys.executable, "-c", LISTS, str(index)]) as (_, address):
        open_image(browser, address, tmp_path / "scene.png")
        browser.find_element("id", "query").send_keys(found.request, "\n")
        wait_for(browser, 'return document.getElementById("say").textContent === "done"')
        card = browser.find_element("css selector", "article")
        label = card.find_element("css selector", "canvas").get_attribute("aria-label")
        assert label.startswith(f"{found.request}: {len(found.targets)} objects, the first in box")
        assert "1 thing: 0." in card.text
        inside = [list(mask_points(mask)[0]) for mask in found.masks]
        colors = {tuple(color) for color in browser.execute_script(COLORS, inside)}
        assert len(colors) == len(found.targets)

        browser.find_element("id", "query").clear()
        browser.find_element("id", "query").send_keys("the unicorn\n")
        wait_for(browser, 'return document.getElementById("say").textContent.startsWith("done: nothing that matches")')
        assert browser.execute_script(TINTED, 0) == 0
    assert complaints(browser) == []


def test_joules_are_shown_if_a_sensor_measures_them(browser: Any, tmp_path: Path) -> None:
    save_png(SceneDataset("test")[0].image, tmp_path / "scene.png")
    with fakes() as (host, port):
        open_image(browser, f"http://{host}:{port}", tmp_path / "scene.png")
        browser.find_element("id", "query").send_keys("take a second\n")
        wait_for(browser, 'return document.getElementById("say").textContent === "done"')
        card = browser.find_element("css selector", "article").text
    (in_heading,) = re.findall(r"rationale tokens in .*, ([\d.]+) J", card)
    assert f"{in_heading} J (rails: VDD_IN)" in card
    assert float(in_heading) >= 10  # a second at 10 W


def test_two_rationales_stand_side_by_side(browser: Any, url: str, tmp_path: Path) -> None:
    example = SceneDataset("test")[1]
    save_png(example.image, tmp_path / "scene.png")
    open_image(browser, url, tmp_path / "scene.png")
    browser.execute_script('document.getElementById("variant").value = "verbose,wise-s"')
    browser.find_element("id", "query").send_keys(example.query, "\n")
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')
    cards = browser.find_elements("css selector", "article")
    assert [card.find_element("css selector", "h2").text.split()[0] for card in cards] == ["verbose", "wise-s"]
    long, short = (len(card.find_element("class name", "rationale").text) for card in cards)
    assert long > 3 * short > 0
    widths = [browser.execute_script(DECODING, card) for card in cards]
    spent_ms = [float(re.findall(r"decode ([\d.]+) ms", card.text)[0]) for card in cards]
    assert widths[0] / spent_ms[0] == pytest.approx(widths[1] / spent_ms[1], rel=0.1)  # on one scale
    assert "reused from the previous query" in cards[1].text
    assert complaints(browser) == []


def test_the_camera_gives_an_image(browser: Any, url: str) -> None:
    open_empty(browser, url)
    browser.find_element("css selector", "body").send_keys("w")
    wait_for(browser, "return image !== null")
    assert browser.execute_script("return image.width * image.height") > 10_000
    assert "camera, " in browser.find_element("id", "name").text
    browser.find_element("id", "query").send_keys("the green thing\n")
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')
    assert complaints(browser) == []


def test_keys_and_mistakes(browser: Any, url: str, tmp_path: Path) -> None:
    open_empty(browser, url)
    browser.find_element("css selector", "body").click()
    browser.find_element("css selector", "body").send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "query"
    browser.find_element("id", "query").send_keys("the mug\n")
    assert said(browser) == "Open a picture first."
    (tmp_path / "no.png").write_bytes(b"no image")
    browser.find_element("id", "file").send_keys(str(tmp_path / "no.png"))
    wait_for(browser, 'return document.getElementById("say").textContent.includes("is not an image")')
    assert complaints(browser) == []


def test_a_phone_has_nothing_to_scroll_sideways(browser: Any, url: str, tmp_path: Path) -> None:
    example = SceneDataset("test")[0]
    save_png(example.image, tmp_path / "scene.png")
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    open_image(browser, url, tmp_path / "scene.png")
    browser.find_element("id", "query").send_keys(example.query, "\n")
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    small = (
        "return [...document.querySelectorAll('form > :not([hidden]), #pick > button')].every(e => e.offsetHeight > 43)"
    )
    assert browser.execute_script(small)
    assert complaints(browser) == []


def ask_of(driver: Any, query: str) -> None:
    field = driver.find_element("id", "query")
    field.clear()
    field.send_keys(query, "\n")


@pytest.mark.parametrize("path", ["frames", "segment"])
def test_another_image_ends_the_query_on_the_one_before(browser: Any, url: str, tmp_path: Path, path: str) -> None:
    first, second = SceneDataset("test")[0], SceneDataset("test")[3]
    save_png(first.image, tmp_path / "first.png")
    save_png(second.image, tmp_path / "second.png")
    expected = Session.from_bundle().segment(second.image, second.query)
    assert expected.box is not None

    open_image(browser, url, tmp_path / "first.png")
    browser.execute_script(HOLD, path)
    ask_of(browser, first.query)
    wait_for(browser, "return held.length === 1")
    browser.find_element("id", "file").send_keys(str(tmp_path / "second.png"))
    wait_for(browser, 'return document.getElementById("name").textContent.startsWith("second.png")')
    browser.execute_async_script(f"{RELEASE}; setTimeout(arguments[0], 1500)")  # the first query would be done
    assert said(browser) == "Enter what to find."
    assert len(browser.find_elements("css selector", "article")) == 1
    assert browser.execute_script(TINTED, 0) == 0

    ask_of(browser, second.query)
    wait_for(browser, "return held.length === 1")
    browser.execute_script(RELEASE)
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')
    label = browser.find_element("css selector", "article canvas").get_attribute("aria-label")
    assert label.endswith("box {}, {} to {}, {}".format(*expected.box))
    assert complaints(browser) == []


def test_the_rationale_is_busy_while_it_is_written(browser: Any, url: str, tmp_path: Path) -> None:
    example = SceneDataset("test")[0]
    save_png(example.image, tmp_path / "scene.png")
    open_image(browser, url, tmp_path / "scene.png")
    browser.execute_script(HOLD, "segment")
    ask_of(browser, example.query)
    wait_for(browser, "return held.length === 1")
    rationale = browser.find_element("class name", "rationale")
    canvas = browser.find_element("css selector", "article canvas")
    assert rationale.get_attribute("aria-busy") == "true"
    assert canvas.get_attribute("aria-label") == f"{example.query}: no answer yet"
    browser.execute_script(RELEASE)
    wait_for(browser, 'return document.getElementById("say").textContent === "done"')
    assert rationale.get_attribute("aria-busy") == "false"


def test_what_the_service_refuses_is_shown(browser: Any, url: str, tmp_path: Path) -> None:
    example = SceneDataset("test")[0]
    save_png(example.image, tmp_path / "scene.png")
    open_image(browser, url, tmp_path / "scene.png")
    browser.execute_script('document.getElementById("variant").options[0].value = "loud"')
    ask_of(browser, example.query)
    wait_for(browser, 'return document.getElementById("say").classList.contains("problem")')
    assert said(browser).startswith("variant: Input should be 'verbose', ")
    assert browser.find_element("class name", "rationale").get_attribute("aria-busy") == "false"
    assert browser.find_element("id", "ask").is_enabled()


def test_the_same_file_may_be_chosen_again(browser: Any, url: str, tmp_path: Path) -> None:
    save_png(SceneDataset("test")[0].image, tmp_path / "scene.png")
    open_image(browser, url, tmp_path / "scene.png")
    browser.execute_script("window.before = image")
    assert browser.find_element("id", "file").get_attribute("value") == ""
    browser.find_element("id", "file").send_keys(str(tmp_path / "scene.png"))
    wait_for(browser, "return image !== before")


def test_what_is_transparent_is_white(browser: Any, url: str, tmp_path: Path) -> None:
    Image.new("RGBA", (1200, 1100), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    open_image(browser, url, tmp_path / "clear.png")
    script = "return [...image.getContext('2d').getImageData(600, 500, 1, 1).data]"
    assert browser.execute_script(script) == [255, 255, 255, 255]


def test_without_https_the_camera_says_what_it_needs(browser: Any, url: str) -> None:
    open_empty(browser, url)
    browser.execute_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    for button in ("camera", "live"):
        browser.execute_script("say('')")
        browser.find_element("id", button).click()
        assert said(browser) == "The camera is not available: the page needs https or localhost to use it."


def test_the_camera_is_opened_once_at_a_time(browser: Any, url: str) -> None:
    open_empty(browser, url)
    browser.execute_script(
        "window.opened = 0; navigator.mediaDevices.getUserMedia = () => new Promise((_, fail) => {"
        " opened += 1; window.refuse = () => fail(new Error('no camera is there')); });"
        "for (const repeat of [true, false, true])"
        " document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'w', bubbles: true, repeat}));"
    )
    browser.find_element("id", "camera").click()
    assert browser.execute_script("return opened") == 1
    browser.execute_script("refuse()")
    wait_for(browser, 'return document.getElementById("say").textContent.endsWith("no camera is there.")')
    key = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'w', bubbles: true, repeat: true}))"
    browser.execute_script(key)
    assert browser.execute_script("return opened") == 1
    browser.find_element("id", "camera").click()
    assert browser.execute_script("return opened") == 2


def test_a_form_on_another_page_is_refused(browser: Any, url: str) -> None:
    form = f"<form method=post enctype=multipart/form-data action={url}/v1/frames></form>"
    browser.get(f"data:text/html,{form}<script>document.forms[0].submit()</script>")
    wait_for(browser, "return location.pathname === '/v1/frames' && document.readyState === 'complete'")
    text = browser.find_element("css selector", "body").text
    assert "this service answers only its own page, not pages of other sites" in text
