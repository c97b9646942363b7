"""What the README and the pages show: their blocks, and the commands in them."""

from __future__ import annotations

import re
from pathlib import Path

_LAUNCHERS = ("wise-edge", ".venv/bin/wise-edge", "-m wise_edge")


def blocks(page: Path, languages: str) -> list[str]:
    """Return the fenced blocks of some languages, `a|b`."""
    return re.findall(rf"^```(?:{languages})\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def lines(page: Path) -> list[str]:
    """Return the lines of console and bash blocks, continued ones joined, without prompts."""
    joined = "\n".join(blocks(page, "console|bash")).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines()]


def commands(page: Path) -> list[str]:
    """Return the calls of wise-edge, launchers cut off."""
    found = (re.search(rf"(?:^|\s)(?:{'|'.join(map(re.escape, _LAUNCHERS))}) ([a-z-].*)", line) for line in lines(page))
    return [f"wise-edge {match[1]}" for match in found if match]
