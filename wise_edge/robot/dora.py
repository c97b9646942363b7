"""The node in a dora dataflow (https://dora-rs.ai): named inputs and outputs, images as flat Arrow arrays.

Inputs: `image` (uint8, with the metadata width, height and encoding, as dora's own camera nodes send it, and optionally
stamp_ns and frame_id), `query` (text: the standing query; empty ends it), `ask` (text: a one-shot query), `enable`
(boolean), `tick` (anything: sends diagnostics). Outputs: `mask` (uint8, 0 and 255), `result` and `diagnostics` (JSON).
All outputs for a frame carry its stamp_ns and frame_id.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wise_edge.errors import DeviceError, UsageError
from wise_edge.extras import require
from wise_edge.images import load_image
from wise_edge.robot.frames import Frame
from wise_edge.robot.node import Node, explain
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session

_POLL_S = 0.005
"""Longest time that a result waits for the thread that talks to dora."""
_TIMED_OUT = "Receiver timed out"
"""How dora 1 says in an ERROR event that nothing arrived in time."""
_LOST = 200
"""Polls in a row that returned nothing at once, which is how `next` behaves once dora is gone."""
_ORDERS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0)}
_COMPRESSED = ("jpeg", "jpg", "png", "webp")


class Dataflow(Protocol):
    """The part of dora's `Node` that is used here."""

    def next(self, timeout: float) -> Mapping[str, Any] | None:
        """Return the next event, an ERROR event after a timeout, or None once dora is gone."""
        ...

    def send_output(self, output_id: str, data: Any, metadata: dict[str, Any]) -> None:
        """Send an Arrow array."""
        ...


def open_dataflow() -> Dataflow:
    """Return the dataflow that started this process; raises `MissingExtraError` if dora-rs is not installed."""
    dataflow: Dataflow = require("dora", "dora").Node()
    return dataflow


def serve_dataflow(
    dataflow: Dataflow,
    session: Session,
    query: str | None,
    *,
    variant: str | None = None,
    deadline_ms: float | None = None,
    observe: Callable[[Frame, NodeResult], None] | None = None,
) -> None:
    """Answer a dataflow's events until it stops.

    One thread talks to dora. Another answers one-shot queries, because they may wait for frames that the first thread
    delivers.

    Args:
        dataflow: the dataflow that this node belongs to.
        session: answers queries.
        query: initial standing query; None waits for one.
        variant: prompt variant; None takes the bundle's default.
        deadline_ms: choose the variant by this deadline instead.
        observe: called with each frame that got a result, and with that result.

    Raises:
        DeviceError: dora is gone.
    """
    outputs: SimpleQueue[NodeResult | str] = SimpleQueue()
    empty = 0
    with Node(session, outputs.put, observe=observe, variant=variant, deadline_ms=deadline_ms) as node, _Asker() as ask:
        if query is not None:
            node.follow(query)
        while empty < _LOST:
            began_s = time.monotonic()
            event = _next(dataflow)
            empty = empty + 1 if event is None and time.monotonic() - began_s < _POLL_S / 2 else 0
            kind = "" if event is None else event["type"]
            if kind == "STOP":
                return
            if kind == "ERROR":
                outputs.put(f"dora: {event.get('error') if event else ''}")
            if event is not None and kind == "INPUT":
                _take(event, node, outputs, ask)
            while (output := _pending(outputs)) is not None:
                _send(output, node, dataflow)
    raise DeviceError("dora is gone: it ended the connection without a STOP event; see dora's log")


def _next(dataflow: Dataflow) -> Mapping[str, Any] | None:
    """Return the next event; None if none arrived in time."""
    event = dataflow.next(timeout=_POLL_S)
    timed_out = event is not None and event["type"] == "ERROR" and _TIMED_OUT in str(event.get("error"))
    return None if timed_out else event


class _Asker(ThreadPoolExecutor):
    """A thread for one-shot queries; queries that still wait when the dataflow ends are not answered."""

    def __init__(self) -> None:
        super().__init__(1, "ask")

    def __exit__(self, *error: object) -> None:
        self.shutdown(cancel_futures=True)


def to_frame(event: Mapping[str, Any]) -> Frame:
    """Return the frame of an `image` event.

    Raises:
        UsageError: its encoding is not supported, or the length of its data does not match its size.
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
        raise UsageError(f"the image's encoding is {encoding}; supported are {', '.join((*_ORDERS, *_COMPRESSED))}")
    width, height = (int(metadata.get(name, 0)) for name in ("width", "height"))
    if width <= 0 or height <= 0 or data.size != width * height * 3:
        raise UsageError(f"an image of {width} x {height} ({encoding}) has {data.size} bytes")
    return np.ascontiguousarray(data.reshape(height, width, 3)[..., list(_ORDERS[encoding])])


def _take(event: Mapping[str, Any], node: Node, outputs: SimpleQueue[NodeResult | str], asker: _Asker) -> None:
    """Handle an input; an invalid one is reported in the diagnostics, and the dataflow continues."""

    def ask(query: str) -> None:
        try:
            outputs.put(node.ask(query))
        except Exception as error:
            outputs.put(explain(error))

    try:
        name = event["id"]
        if name == "image":
            node.put(to_frame(event))
        elif name == "query":
            node.follow(_text(event) or None)
        elif name == "ask":
            asker.submit(ask, _text(event))
        elif name == "enable":
            node.enable(bool(event["value"][0].as_py()))
        elif name == "tick":
            outputs.put("")
    except Exception as error:
        outputs.put(explain(error))


def _text(event: Mapping[str, Any]) -> str:
    value = event["value"]
    return str(value[0].as_py()).strip() if len(value) else ""


def _pending(outputs: SimpleQueue[NodeResult | str]) -> NodeResult | str | None:
    try:
        return outputs.get_nowait()
    except Empty:
        return None


def _send(output: NodeResult | str, node: Node, dataflow: Dataflow) -> None:
    """Send a result, or the diagnostics with an error message if `output` is one."""
    if isinstance(output, str):
        wrong = {"level": "error", "message": output} if output else {}
        _send_json("diagnostics", asdict(node.diagnostics()) | wrong, {}, dataflow)
        return
    arrow = require("pyarrow", "dora")
    stamp = {"stamp_ns": output.stamp_ns, "frame_id": output.frame_id}
    width, height = output.image_size
    size = {"width": width, "height": height, "encoding": "mono8", "stale": output.stale}
    dataflow.send_output("mask", arrow.array(output.mask_image().ravel()), stamp | size)
    _send_json("result", output.to_facts(), stamp, dataflow)


def _send_json(output: str, data: Mapping[str, Any], metadata: dict[str, Any], dataflow: Dataflow) -> None:
    arrow = require("pyarrow", "dora")
    dataflow.send_output(output, arrow.array([json.dumps(data)]), metadata)
