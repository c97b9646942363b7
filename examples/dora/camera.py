"""A camera that shows a synthetic scene, panned by one pixel per frame, and sends a query for it."""

import time

import numpy as np
import pyarrow as pa
from dora import Node

from wise_edge.datasets.scenes import SceneDataset


def main() -> None:
    """Send a frame at every tick."""
    scene = SceneDataset("test")[0]
    node, sent = Node(), 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        if sent == 0:
            node.send_output("query", pa.array([scene.query]), {})
        image = np.roll(scene.image, sent % 20, axis=1)
        height, width, _ = image.shape
        metadata = {"width": width, "height": height, "encoding": "rgb8"}
        metadata |= {"stamp_ns": time.time_ns(), "frame_id": "camera"}
        node.send_output("image", pa.array(image.ravel()), metadata)
        sent += 1


if __name__ == "__main__":
    main()
