"""What a checkpoint's chat template adds to a prompt by itself."""

from __future__ import annotations

import re
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.documents import MOST_BYTES, read_json, read_text

_SYSTEM = re.compile(r"<\|im_start\|>system(?:\n|\\n)((?:(?!['\"]\s*[+~])[^<{}])+)<\|im_end\|>")
"""The message as a text of the template; where a quote and an operator follow, something else is written."""


def default_system(folder: Path) -> str | None:
    """Return the system message that a chat template writes where a prompt has none.

    The templates of Qwen2-VL and Qwen2.5-VL have one, that of Qwen3-VL has none.

    Args:
        folder: a checkpoint; of its files chat_template.jinja, chat_template.json and tokenizer_config.json, the first
            with a template counts.

    Returns:
        Its text, empty if the template writes none; None without a template.

    Raises:
        UsageError: a file cannot be read.
    """
    template = _find_template(folder)
    if template is None:
        return None
    found = _SYSTEM.search(template)
    return found.group(1) if found else ""


def _find_template(folder: Path) -> str | None:
    if (file := folder / "chat_template.jinja").is_file():
        return read_text(file, MOST_BYTES)
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (file := folder / name).is_file():
            found = read_json(file).get("chat_template")
            if isinstance(found, list):  # several by name, as older versions of transformers write
                named = {str(each.get("name")): each.get("template") for each in found if isinstance(each, dict)}
                found = named.get("default", next(iter(named.values()), None))
            if isinstance(found, str):
                return found
            if found is not None:
                raise UsageError(f"{file}: chat_template is not text; copy the file again")
    return None
