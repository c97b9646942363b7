"""The node in a dora dataflow (https://dora-rs.ai): inputs and outputs by name, pictures as flat Arrow arrays.

Inputs: `image` (uint8, with the metadata width, height and encoding, as dora's own camera nodes give it, and optionally
stamp_ns and frame_id), `query` (text: the standing query; empty ends it), `ask` (text: a one-shot query), `enable`
(boolean), `tick` (anything: tells diagnostics). Outputs: `mask` (uint8, 0 and 255), `result` and `diagnostics` (JSON).
All of a frame's outputs carry its stamp_ns and frame_id.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.images import load_image
from wise_edge.robot.frames import Frame
from wise_edge.robot.node import Node
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session

_POLL_S = 0.005
"""How long a result waits at most for the thread that speaks with dora."""
_ORDERS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0)}
_COMPRESSED = ("jpeg", "jpg", "png", "webp")


class Dataflow(Protocol):
    """What is used of dora's `Node`."""

    def next(self, timeout: float) -> Mapping[str, Any] | None:
        """Return the next event; None where none came."""
        ...

    def send_output(self, output_id: str, data: Any, metadata: dict[str, Any]) -> None:
        """Send an Arrow array."""
        ...


def run_dora(session: Session, query: str | None, *, variant: str | None, deadline_ms: float | None) -> None:
    """Be a node of the dataflow that started this process, until it stops.

    Args:
        session: answers.
        query: the standing query to begin with; None waits for one.
        variant: prompt variant; None takes the bundle's default.
        deadline_ms: choose the variant by this instead.

    Raises:
        MissingExtraError: dora-rs is not installed.
    """
    dora = require("dora", "dora")
    serve_dataflow(dora.Node(), session, query, variant=variant, deadline_ms=deadline_ms)


def serve_dataflow(
    dataflow: Dataflow, session: Session, query: str | None, *, variant: str | None, deadline_ms: float | None
) -> None:
    """Answer a dataflow's events until it stops; arguments as for `run_dora`."""
    results: SimpleQueue[NodeResult] = SimpleQueue()
    with Node(session, results.put, variant=variant, deadline_ms=deadline_ms) as node:
        if query is not None:
            node.follow(query)
        while True:
            event = dataflow.next(timeout=_POLL_S)
            if event is not None and event["type"] == "STOP":
                return
            if event is not None and event["type"] == "INPUT":
                _take(event, node, dataflow)
            while (result := _pending(results)) is not None:
                _send(result, dataflow)


def to_frame(event: Mapping[str, Any]) -> Frame:
    """Return the frame of an `image` event.

    Raises:
        UsageError: its encoding is none that is read, or its data are not as long as it says.
    """
    metadata = event.get("metadata") or {}
    data = np.asarray(event["value"].to_numpy(zero_copy_only=False), np.uint8)
    image = _decode(data, metadata)
    return Frame.of(image, int(metadata.get("stamp_ns", time.time_ns())), str(metadata.get("frame_id", "")))


def _decode(data: npt.NDArray[np.uint8], metadata: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    encoding = str(metadata.get("encoding", "rgb8")).lower()
    if encoding in _COMPRESSED:
        return load_image(data.tobytes())
    if encoding not in _ORDERS:
        raise UsageError(f"the image's encoding is {encoding}; wise-edge reads {', '.join((*_ORDERS, *_COMPRESSED))}")
    width, height = (int(metadata.get(name, 0)) for name in ("width", "height"))
    if width <= 0 or height <= 0 or data.size != width * height * 3:
        raise UsageError(f"an image of {width} x {height} ({encoding}) has {data.size} bytes")
    return np.ascontiguousarray(data.reshape(height, width, 3)[..., list(_ORDERS[encoding])])


def _take(event: Mapping[str, Any], node: Node, dataflow: Dataflow) -> None:
    """Act on an input; what cannot be used is told as an output, and the dataflow goes on."""
    try:
        name = event["id"]
        if name == "image":
            node.put(to_frame(event))
        elif name == "query":
            node.follow(_text(event) or None)
        elif name == "ask":
            _send(node.ask(_text(event)), dataflow)
        elif name == "enable":
            node.enable(bool(event["value"][0].as_py()))
        elif name == "tick":
            _send_json("diagnostics", asdict(node.diagnostics()), {}, dataflow)
    except WiseEdgeError as error:
        _send_json("diagnostics", asdict(node.diagnostics()) | {"level": "error", "message": str(error)}, {}, dataflow)


def _text(event: Mapping[str, Any]) -> str:
    value = event["value"]
    return str(value[0].as_py()).strip() if len(value) else ""


def _pending(results: SimpleQueue[NodeResult]) -> NodeResult | None:
    try:
        return results.get_nowait()
    except Empty:
        return None


def _send(result: NodeResult, dataflow: Dataflow) -> None:
    arrow = require("pyarrow", "dora")
    stamp = {"stamp_ns": result.stamp_ns, "frame_id": result.frame_id}
    mask = np.zeros((0, 0), np.uint8) if result.mask is None else result.mask.astype(np.uint8) * np.uint8(255)
    height, width = mask.shape
    picture = {"width": width, "height": height, "encoding": "mono8", "stale": result.stale}
    dataflow.send_output("mask", arrow.array(mask.ravel()), stamp | picture)
    told = {name: value for name, value in result.to_dict().items() if name != "mask"}
    _send_json("result", told, stamp, dataflow)


def _send_json(output: str, data: Mapping[str, Any], metadata: dict[str, Any], dataflow: Dataflow) -> None:
    arrow = require("pyarrow", "dora")
    dataflow.send_output(output, arrow.array([json.dumps(data)]), metadata)
