"""The page with the example, files of answers, a live camera and a video."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service_browser import complaints, is_done, needs_browser, open_empty, open_image, pixels_of, said, wait_for
from service_client import pixels_of as decode
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.images import save_png
from wise_edge.outputs.pictures import draw_result
from wise_edge.outputs.saving import encode_result
from wise_edge.runtimes.session import Session
from wise_edge.scenes.recognition import OTHER_PICTURE
from wise_edge.service import example

pytestmark = [pytest.mark.slow, needs_browser]
RECORD = """
const [done] = [arguments[0]], canvas = document.createElement("canvas");
canvas.width = canvas.height = 160;
const draw = canvas.getContext("2d"), recorder = new MediaRecorder(canvas.captureStream(20)), parts = [];
let step = 0;
const timer = setInterval(() => {
  draw.fillStyle = "#777";
  draw.fillRect(0, 0, 160, 160);
  draw.fillStyle = "#d22";
  draw.fillRect(20 + 2 * step++, 60, 40, 40);
}, 50);
recorder.ondataavailable = (event) => parts.push(event.data);
recorder.onstop = () => {
  clearInterval(timer);
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.readAsDataURL(new Blob(parts));
};
recorder.start();
setTimeout(() => recorder.stop(), 1500);
"""
"""Records a video of a red square that moves."""
RATE = 'return /^[0-9.]+ frames.s, [0-9.]+ m?s a frame$/.test(document.querySelector("article small")?.textContent)'


def test_the_page_opens_with_an_example_whose_queries_work(browser: Any, url: str) -> None:
    browser.get(url)
    wait_for(browser, "return image !== null")
    assert browser.find_element("id", "name").text == "example.png, 224 × 224"
    image, _ = example.example_scene()
    session = Session.from_bundle()
    buttons = browser.find_elements("css selector", "#examples button")
    assert [button.text for button in buttons] == list(example.QUERIES)
    for button in buttons:
        browser.execute_script("say('')")
        button.click()
        is_done(browser)
        expected = session.segment(image, button.text)
        assert np.array_equal(pixels_of(browser), draw_result(expected, image)), button.text
    assert not browser.find_elements("class name", "note")
    assert complaints(browser) == []


def test_the_example_does_not_replace_a_picture_that_was_opened_meanwhile(
    browser: Any, url: str, tmp_path: Path
) -> None:
    save_png(SceneDataset("test")[0].image, tmp_path / "scene.png")
    browser.get(url)
    wait_for(browser, "return image !== null")
    browser.execute_script(
        "const real = fetch; window.fetch = (path, options) => new Promise((done) => {"
        " window.release = () => real(path, options).then(done); })"
    )
    browser.find_element("id", "example").click()
    browser.find_element("id", "file").send_keys(str(tmp_path / "scene.png"))
    wait_for(browser, "return document.getElementById('name').textContent.startsWith('scene.png, ')")
    browser.execute_async_script("release(); setTimeout(arguments[0], 300)")
    assert browser.find_element("id", "name").text.startswith("scene.png, ")


def test_answers_are_saved_as_the_command_writes_them(browser: Any, url: str, tmp_path: Path) -> None:
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    scene = SceneDataset("test")[0]
    (tmp_path / "in").mkdir()
    save_png(scene.image, tmp_path / "in" / "my scene.png")
    open_image(browser, url, tmp_path / "in" / "my scene.png")
    browser.find_element("id", "query").send_keys(scene.query, "\n")
    is_done(browser)
    expected = Session.from_bundle().segment(scene.image, scene.query)
    for button in browser.find_elements("css selector", ".words .chips button"):
        button.click()
    endings = {"mask": "png", "cutout": "png", "outlines": "svg", "overlay": "png", "coco": "json", "json": "json"}
    for kind, ending in endings.items():
        file = tmp_path / f"my-scene-{kind}.{ending}"
        for _ in range(200):
            if file.exists() and file.stat().st_size:
                break
            threading.Event().wait(0.05)
        if kind == "json":
            saved = json.loads(file.read_text())
            assert np.array_equal(decode(saved["mask"]), expected.mask)
            assert saved["query"] == scene.query
        else:
            assert file.read_bytes() == encode_result(expected, scene.image, kind, ".png", "image"), kind
    assert complaints(browser) == []


def test_a_picture_of_another_kind_has_a_note(browser: Any, url: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    save_png(noise, tmp_path / "noise.png")
    open_image(browser, url, tmp_path / "noise.png")
    browser.find_element("id", "query").send_keys("the ring\n")
    wait_for(browser, 'return document.querySelector(".note") !== null')
    assert browser.find_element("class name", "note").text == OTHER_PICTURE


def test_the_live_camera_answers_frame_after_frame_until_it_is_stopped(browser: Any, url: str) -> None:
    open_empty(browser, url)
    browser.find_element("id", "live").click()
    wait_for(browser, 'return document.getElementById("say").textContent === "Enter what to find."')
    browser.find_element("id", "query").send_keys("the green object\n")
    wait_for(browser, RATE)
    first = pixels_of(browser)
    browser.execute_script("window.before = image")
    wait_for(browser, "return image !== before")
    assert not np.array_equal(pixels_of(browser), first)
    assert said(browser).startswith("“the green object”: ")

    browser.find_element("id", "query").clear()
    browser.find_element("id", "query").send_keys("the largest object\n")
    wait_for(browser, 'return document.getElementById("say").textContent.startsWith("“the largest object”: ")')

    browser.execute_script("window.tracks = live.camera.getTracks()")
    browser.find_element("id", "stop").click()
    assert said(browser) == "Stopped."
    assert browser.execute_script("return tracks.every((track) => track.readyState === 'ended')")
    assert not browser.find_element("id", "stop").is_displayed()
    browser.find_element("id", "query").send_keys("\n")  # on the last frame
    is_done(browser)
    assert complaints(browser) == []


def test_a_video_is_answered_while_it_plays(browser: Any, url: str, tmp_path: Path) -> None:
    open_empty(browser, url)
    recorded = browser.execute_async_script(RECORD)
    (tmp_path / "square.webm").write_bytes(base64.b64decode(recorded.partition(",")[2]))
    browser.find_element("id", "query").send_keys("the red square")
    browser.find_element("id", "file").send_keys(str(tmp_path / "square.webm"))
    wait_for(browser, RATE)
    assert browser.find_element("id", "name").text == "square.webm, 160 × 160"
    assert browser.find_element("id", "video").is_displayed()
    assert browser.execute_script("return document.getElementById('video').controls")
    wait_for(browser, 'return document.getElementById("say").textContent === "square.webm has ended."')
    assert pixels_of(browser).shape == (160, 160, 3)
    assert not browser.find_element("id", "video").is_displayed()
    assert complaints(browser) == []

    (tmp_path / "no.webm").write_bytes(b"no video")
    browser.find_element("id", "file").send_keys(str(tmp_path / "no.webm"))
    wait_for(
        browser, "return document.getElementById('say').textContent.includes('no.webm is not a video that this b')"
    )


def test_a_paused_video_asks_nothing(browser: Any, url: str, tmp_path: Path) -> None:
    open_empty(browser, url)
    recorded = browser.execute_async_script(RECORD)
    (tmp_path / "square.webm").write_bytes(base64.b64decode(recorded.partition(",")[2]))
    browser.execute_script("document.getElementById('video').addEventListener('playing', (e) => e.target.pause())")
    browser.find_element("id", "query").send_keys("the red square")
    browser.find_element("id", "file").send_keys(str(tmp_path / "square.webm"))
    wait_for(browser, 'return document.querySelector("article") !== null && !!shown.length')
    counted = (
        "const done = arguments[0], real = fetch; let count = 0; window.fetch = (...all) => (count++, real(...all));"
    )
    assert browser.execute_async_script(f"{counted} setTimeout(() => done(count), 600)") <= 1
    browser.find_element("id", "stop").click()
    assert said(browser) == "Stopped."
