"""A camera: a synthetic scene that pans by a pixel a frame, and what to find in it."""

import time

import numpy as np
import pyarrow as pa
from dora import Node

from wise_edge.datasets.scenes import SceneDataset


def main() -> None:
    """Show a frame at every tick."""
    scene = SceneDataset("test")[0]
    node, shown = Node(), 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        if shown == 0:
            node.send_output("query", pa.array([scene.query]), {})
        image = np.roll(scene.image, shown % 20, axis=1)
        height, width, _ = image.shape
        metadata = {"width": width, "height": height, "encoding": "rgb8"}
        metadata |= {"stamp_ns": time.time_ns(), "frame_id": "camera"}
        node.send_output("image", pa.array(image.ravel()), metadata)
        shown += 1


if __name__ == "__main__":
    main()
