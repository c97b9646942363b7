"""Writes a line for each result; the file's name may be given in the environment as SINK."""

import json
import os
from collections import defaultdict

from dora import Node


def main() -> None:
    """Take what comes until the dataflow stops."""
    halves: dict[int, dict] = defaultdict(dict)  # a frame's mask and result come as two inputs, in either order
    with open(os.environ.get("SINK", "results.jsonl"), "w", encoding="utf-8") as lines:

        def write(name: str, told: dict) -> None:
            lines.write(json.dumps({name: told}) + "\n")
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
                halves[stamp_ns]["mask_px"] = int((pixels > 0).sum())
            else:
                halves[stamp_ns] |= json.loads(event["value"][0].as_py())
            if {"mask_px", "query"} <= halves[stamp_ns].keys():
                write("result", halves.pop(stamp_ns))


if __name__ == "__main__":
    main()
