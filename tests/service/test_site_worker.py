"""The script that lets the site's search run on a page from the disk, where browsers start no worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from locations import ROOT
from service_browser import complaints, needs_browser, wait_for

pytestmark = needs_browser
SCRIPT = ROOT / "docs/iframe-worker.js"


def test_the_sites_only_further_script_is_its_own() -> None:
    assert f"polyfills: [{SCRIPT.name}]" in (ROOT / "mkdocs.yml").read_text()


def test_a_worker_answers_on_a_page_from_the_disk(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "worker.js").write_text('addEventListener("message", (event) => postMessage(event.data + 1))')
    (tmp_path / "index.html").write_text(
        f'<script src="{SCRIPT.as_uri()}"></script><body><script>'
        'const worker = new Worker(new URL("worker.js", location)); var answers = [];'
        'worker.addEventListener("message", (event) => answers.push(event.data));'
        "worker.postMessage(1); worker.postMessage(2)</script>"
    )
    browser.get((tmp_path / "index.html").as_uri())
    wait_for(browser, "return answers.length === 2")
    assert browser.execute_script("return answers") == [2, 3]
    assert complaints(browser) == []
