"""What tests of the service's page do in a browser."""

from __future__ import annotations

import base64
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wise_edge.images import load_image

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no Chromium with its driver is installed"
)
FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars"
FLAGS += " --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"


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


def open_image(driver: Any, url: str, file: Path) -> None:
    driver.get(url)
    driver.find_element("id", "file").send_keys(str(file))
    wait_for(driver, f"return document.getElementById('name').textContent.startsWith('{file.name}, ')")


def open_empty(driver: Any, url: str) -> None:
    """Open the page once its example is there, and take it away."""
    driver.get(url)
    wait_for(driver, "return image !== null")
    driver.execute_script("image = null; document.getElementById('results').replaceChildren()")


def pixels_of(driver: Any) -> np.ndarray:
    """Return the first result as the page shows it, HWC uint8 RGB."""
    shown = driver.execute_script('return document.querySelector("article canvas").toDataURL("image/png")')
    return load_image(base64.b64decode(shown.partition(",")[2]))


def is_done(driver: Any) -> None:
    wait_for(driver, 'return document.getElementById("say").textContent === "done"')
