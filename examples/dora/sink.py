"""Writes a line for each result; the file's name may be given in the environment as SINK."""

import json
import os

from dora import Node


def main() -> None:
    """Take what comes until the dataflow stops."""
    masks: dict[int, int] = {}
    with open(os.environ.get("SINK", "results.jsonl"), "w", encoding="utf-8") as lines:
        for event in Node():
            if event["type"] != "INPUT":
                continue
            if event["id"] == "mask":
                pixels = event["value"].to_numpy(zero_copy_only=False)
                masks = {event["metadata"]["stamp_ns"]: int((pixels > 0).sum())}
                continue
            told = json.loads(event["value"][0].as_py())
            if event["id"] == "result":
                told["mask_px"] = masks.get(event["metadata"]["stamp_ns"])
            lines.write(json.dumps({event["id"]: told}) + "\n")
            lines.flush()


if __name__ == "__main__":
    main()
