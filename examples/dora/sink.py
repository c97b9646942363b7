"""Writes a line for each result to out/results.jsonl, in the folder that dora makes for its logs."""

import json
from collections import defaultdict
from pathlib import Path

from dora import Node


def main() -> None:
    """Write results and diagnostics until the dataflow stops."""
    partial: dict[int, dict] = defaultdict(dict)  # a frame's mask and result arrive in either order
    file = Path("out/results.jsonl")
    file.parent.mkdir(exist_ok=True)
    with file.open("w", encoding="utf-8") as lines:

        def write(name: str, data: dict) -> None:
            lines.write(json.dumps({name: data}) + "\n")
            lines.flush()

        for event in Node():
            if event["type"] != "INPUT":
                continue
            if event["id"] == "diagnostics":
                write("diagnostics", json.loads(event["value"][0].as_py()))
                continue
            stamp_ns = event["metadata"]["stamp_ns"]
            if event["id"] == "mask":
                pixels = event["value"].to_numpy(zero_copy_only=False)
                partial[stamp_ns]["mask_px"] = int((pixels > 0).sum())
            else:
                partial[stamp_ns] |= json.loads(event["value"][0].as_py())
            if {"mask_px", "query"} <= partial[stamp_ns].keys():
                write("result", partial.pop(stamp_ns))


if __name__ == "__main__":
    main()
