"""Findings keep their rules: each can be run, is listed once, pins what it installs and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


def test_the_page_lists_each_finding_once_and_by_name() -> None:
    listed = re.findall(r"^\| \[(.+)\]\((.+)\) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert listed == [(script.name, script.name) for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_keeps_the_rules(script: Path) -> None:
    text = script.read_text()
    header = text.partition("\nset -euo pipefail\n")[0]
    assert os.access(script, os.X_OK)
    assert re.search(r"^# Seen", header, re.MULTILINE)
    assert re.search(r"https?://|Sources?:", header)
    (folder,) = re.findall(r"^(\w+)=\$\(mktemp -d\)$", text, re.MULTILINE)
    assert f"trap 'rm -rf \"${folder}\"' EXIT" in text
    assert re.search(r"[\w.-]+==\d", text)
    assert "changed: " in text
    assert not re.search(r"wise[-_]edge", text)
    subprocess.run(["bash", "-n", script], check=True)
