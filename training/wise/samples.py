"""Tables of sample completions with their rewards: printed on stderr and saved as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PRINTED = 4
_LOG_WIDTH = 180


def save_samples(
    path: Path, samples: Sequence[str], texts: Sequence[str], rewards: Mapping[str, Sequence[float]], more: bool = False
) -> None:
    """Write completions and print the first of them.

    Args:
        path: JSON-lines file; replaced when it exists.
        samples: id of each completion's sample.
        texts: completions.
        rewards: term to one reward a completion.
        more: add to the file instead; nothing is printed.
    """
    rows = [
        {"sample": sample, "rewards": {name: values[i] for name, values in rewards.items()}, "completion": text}
        for i, (sample, text) in enumerate(zip(samples, texts, strict=True))
    ]
    path.parent.mkdir(exist_ok=True)
    with path.open("a" if more else "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    if more:
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=_LOG_WIDTH)
    table = Table(*rewards, "completion", title=path.stem, box=box.SIMPLE)
    for i, text in enumerate(texts[:_PRINTED]):
        table.add_row(*(f"{values[i]:.2f}" for values in rewards.values()), escape(text))
    console.print(table)
