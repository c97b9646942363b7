"""What a user may have meant by a command or an option that there is not, by the names that other tools use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any

_NEAR = 0.75
"""Least likeness of names; at difflib's own 0.6, --prompt is like --out."""
_COMMANDS = {
    **dict.fromkeys(("predict", "infer", "inference", "segment", "detect", "ask"), "run"),
    **dict.fromkeys(("video", "webcam", "camera", "stream"), "track"),
    **dict.fromkeys(("val", "validate", "test"), "evaluate"),
    **dict.fromkeys(("bench", "benchmark"), "profile"),
    **dict.fromkeys(("convert", "quantize"), "export"),
    **dict.fromkeys(("server", "api"), "serve"),
    "install": "setup",
    "finetune": "train",
    "version": "--version",
}
_BACKENDS = "pass --policy-backend and --mask-backend"
_OPTIONS = {
    **dict.fromkeys(("--prompt", "--text", "--query", "--phrase"), ("QUERY", "the query is the last argument")),
    **dict.fromkeys(("--image", "--images", "--input"), ("IMAGE...", "pictures are arguments before the query")),
    **dict.fromkeys(("--source", "--video", "--camera"), ("VIDEO", "the video is the argument before the query")),
    **dict.fromkeys(("--show", "--visualize", "--plot"), ("--overlay", "did you mean --overlay FILE?")),
    **dict.fromkeys(("--device", "--gpu", "--cuda"), ("--policy-backend", _BACKENDS)),
    **dict.fromkeys(("--model", "--weights"), ("--bundle", "did you mean --bundle DIR?")),
    **dict.fromkeys(("--output", "--save-dir"), ("--out", "did you mean --out?")),
}
"""Option of another tool -> what a command must have for the advice to fit, and the advice."""
_DATA = (".csv", ".tsv", ".jsonl", ".json")


def suggest_option(command: Any, option: str) -> str:
    """Return advice on an option that a command has not; empty if nothing is near."""
    names = [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]
    places = " ".join(
        parameter.metavar or "" for parameter in command.params if parameter.param_type_name == "argument"
    )
    needed, advice = _OPTIONS.get(option, ("", ""))
    if needed and (needed in names or needed in places):
        return advice
    near = get_close_matches(option, names, 2, _NEAR)
    return f"did you mean {' or '.join(near)}?" if near else ""


def suggest_command(group: Any, path: str, words: Sequence[str]) -> str:
    """Return advice on words of which the first is no command of a group.

    Args:
        group: the group, which has other commands.
        path: the words that call it, with the program's.
        words: what follows them.
    """
    word = words[0]
    if word == "help":
        of = f" {words[1]}" if words[1:] and words[1] in group.commands else ""
        return f"for help type {path}{of} -h"
    like_data = PurePath(word).suffix.lower() in _DATA or os.path.exists(word)
    if like_data and any("--data" in parameter.opts for parameter in group.params):
        return f"did you mean --data {word}?"
    meant = _COMMANDS.get(word)
    known = meant in group.commands or any(meant in parameter.opts for parameter in group.params)
    return f"did you mean {path} {meant}?" if known else ""
