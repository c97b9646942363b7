"""The node in a dora dataflow (https://dora-rs.ai): named inputs and outputs, images as flat Arrow arrays.

Inputs: `image` (uint8, with the metadata width, height and encoding, as dora's own camera nodes send it, and optionally
stamp_ns and frame_id), `query` (text: the standing query; empty ends it), `ask` (text: a one-shot query), `enable`
(boolean), `tick` (anything: sends diagnostics). Outputs: `mask` (uint8, 0 and 255), `result` and `diagnostics` (JSON).
All outputs for a frame carry its stamp_ns and frame_id.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_size
from wise_edge.errors import DeviceError, UsageError
from wise_edge.extras import require
from wise_edge.files.documents import to_json
from wise_edge.images import load_image
from wise_edge.images.depth import StreamDepth
from wise_edge.robot.frames import Frame
from wise_edge.robot.node import Node, explain
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session

_POLL_S = 0.1
"""Longest time until a signal is noticed."""
_TIMED_OUT = "Receiver timed out"
"""How dora 1 says in an ERROR event that nothing arrived in time."""
_FINISH_S = {"MANUAL": 6.0, "ALL_INPUTS_CLOSED": 100.0}
"""Time to answer what waits at a STOP, by its cause. After a manual one dora sends SIGTERM at 10 s and SIGKILL at 15 s;
after the other, the end of a recording, at 132 s and 137 s (ran, dora 1.1)."""
_CONFIG = "DORA_NODE_CONFIG"
"""The variable by which dora tells a node what it belongs to."""
_ASKS = 16
"""One-shot queries that may wait here; dora itself keeps 10 of an input unless the dataflow says otherwise."""
_ORDERS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0)}
_COMPRESSED = ("jpeg", "jpg", "png", "webp")
_LOG = logging.getLogger(__name__)
Value = TypeVar("Value", bool, str)


class Dataflow(Protocol):
    """The part of dora's `Node` that is used here.

    `send_output` may be called from other threads while `next` waits (ran, dora 1.0 and 1.1).
    """

    def next(self, timeout: float) -> Mapping[str, Any] | None:
        """Return the next event, an ERROR event after a timeout, or None once the events are over or dora is gone.

        STOP overtakes inputs that still wait; they come after it.
        """
        ...

    def send_output(self, output_id: str, data: Any, metadata: dict[str, Any]) -> None:
        """Send an Arrow array."""
        ...


def check_dataflow() -> None:
    """Check that dora started this process, before models are loaded.

    Raises:
        MissingExtraError: dora-rs is not installed.
        UsageError: dora did not start this process.
    """
    require("dora", "dora")
    if _CONFIG not in os.environ:
        raise UsageError("this is a node of a dataflow, which dora starts: dora run DATAFLOW.yml")


def open_dataflow() -> Dataflow:
    """Return the dataflow that started this process; dora then considers the node ready.

    Raises:
        DeviceError: another node ended before it was ready, or dora is gone.
    """
    try:
        dataflow: Dataflow = require("dora", "dora").Node()
    except RuntimeError as error:
        causes = [line.strip() for line in str(error).split("Location:")[0].splitlines() if line.strip()]
        raise DeviceError(f"dora did not start the dataflow: {causes[-1]}") from error
    return dataflow


def serve_dataflow(
    dataflow: Dataflow,
    session: Session,
    query: str | None,
    *,
    variant: str | None = None,
    deadline_ms: float | None = None,
    memory: bool = False,
    observe: Callable[[Frame, NodeResult], None] | None = None,
) -> None:
    """Answer a dataflow's events until it stops, then what still waits: every one-shot query, and the newest frame.

    This thread reads the events. Another answers one-shot queries, because they may wait for a first frame.

    Args:
        dataflow: the dataflow that this node belongs to.
        session: answers queries.
        query: initial standing query; None waits for one.
        variant: prompt variant; None takes the bundle's default.
        deadline_ms: choose the variant by this deadline instead, and the pixels, as `Session.segment` does.
        memory: follow the standing query with the segmenter's memory.
        observe: called with each frame that got a result, and with that result.

    Raises:
        DeviceError: dora is gone.
    """
    outputs = _Outputs(dataflow)
    with (
        _Asker() as asker,
        Node(
            session,
            outputs.send_result,
            observe=observe,
            variant=variant,
            deadline_ms=deadline_ms,
            memory=memory,
        ) as node,
    ):
        if query is not None:
            node.follow(query)
        end_s = _take_events(dataflow, node, outputs, asker)
        answered = node.finish(end_s - time.monotonic())
        if not (asker.finish(end_s - time.monotonic()) and answered):
            outputs.send_diagnostics(node, "dora stopped before every query was answered")
        elif node.diagnostics().level == "error":  # no tick will tell
            outputs.send_diagnostics(node)


def _take_events(dataflow: Dataflow, node: Node, outputs: _Outputs, asker: _Asker) -> float:
    """Handle every event, those behind STOP included; return the time by which what was asked must be answered."""
    end_s, depth = None, StreamDepth()
    while end_s is None or time.monotonic() < end_s:
        event = dataflow.next(timeout=_POLL_S)
        kind = None if event is None else event["type"]
        if event is None:
            break
        if kind == "STOP":
            end_s = time.monotonic() + _FINISH_S.get(event.get("id", ""), min(_FINISH_S.values()))
        elif kind == "INPUT":
            _take(event, node, outputs, asker, depth)
        elif kind == "ERROR":
            error = str(event.get("error"))
            if _TIMED_OUT not in error:
                outputs.send_diagnostics(node, f"dora: {error.splitlines()[0]}")
            elif end_s is not None:  # nothing is left behind STOP
                break
    if end_s is None:
        raise DeviceError("dora ended the connection without a STOP event; see dora's log")
    return end_s


class _Asker(ThreadPoolExecutor):
    """A thread for one-shot queries."""

    def __init__(self) -> None:
        super().__init__(1, "ask")
        self._pending: set[Future[None]] = set()

    def ask(self, work: Callable[[], None]) -> None:
        """Do it after what was asked before; raises `UsageError` if too many wait."""
        self._pending = {future for future in self._pending if not future.done()}
        if len(self._pending) >= _ASKS:
            raise UsageError(f"{_ASKS} one-shot queries already wait; ask when one is answered")
        self._pending.add(self.submit(work))

    def finish(self, timeout_s: float) -> bool:
        """Wait for the answers; return whether all came in time."""
        return not wait(self._pending, max(0.0, timeout_s)).not_done

    def __exit__(self, *error: object) -> None:
        """Drop what waits; the node ends what runs."""
        self.shutdown(cancel_futures=True)


class _Outputs:
    """Sends what the node finds; threads may share it."""

    def __init__(self, dataflow: Dataflow) -> None:
        self._dataflow, self._lock = dataflow, Lock()

    def send_result(self, result: NodeResult) -> None:
        """Send a result's mask and its facts."""
        stamp = {"stamp_ns": result.stamp_ns, "frame_id": result.frame_id}
        width, height = result.image_size
        size = {"width": width, "height": height, "encoding": "mono8", "stale": result.stale}
        with self._lock:
            self._send("mask", result.mask_image().ravel(), stamp | size)
            self._send("result", [to_json(result.to_facts())], stamp)

    def send_diagnostics(self, node: Node, error: str | None = None) -> None:
        """Send the node's state, or an error if there is one."""
        wrong = {} if error is None else {"level": "error", "message": error}
        try:
            with self._lock:
                self._send("diagnostics", [to_json(asdict(node.diagnostics()) | wrong)], {})
        except Exception as failure:  # dora raises RuntimeError once it is gone, which `next` reports too
            _LOG.warning("%s; sending this to dora failed: %s", error or "diagnostics", failure)

    def _send(self, output: str, data: Any, metadata: dict[str, Any]) -> None:
        self._dataflow.send_output(output, require("pyarrow", "dora").array(data), metadata)


def to_frame(event: Mapping[str, Any], depth: StreamDepth | None = None) -> Frame:
    """Return the frame of an `image` event.

    Args:
        event: the event.
        depth: of the input's images, kept from one to the next.

    Raises:
        UsageError: its encoding is not supported, the length of its data does not match its size, or its metadata have
            another type.
    """
    metadata = event.get("metadata") or {}
    data = event["value"].to_numpy(zero_copy_only=False)
    if data.dtype != np.uint8:
        raise UsageError(f"the input image takes uint8, not {data.dtype} {list(data.shape)}")
    image = _decode(data, metadata, depth)
    return Frame.of(image, metadata.get("stamp_ns", time.time_ns()), metadata.get("frame_id", ""))


def _decode(
    data: npt.NDArray[np.uint8], metadata: Mapping[str, Any], depth: StreamDepth | None
) -> npt.NDArray[np.uint8]:
    encoding = str(metadata.get("encoding", "rgb8")).lower()
    if encoding in _COMPRESSED:
        return load_image(data.tobytes(), stream=depth)
    if encoding not in _ORDERS:
        raise UsageError(f"the image's encoding is {encoding}; supported are {', '.join((*_ORDERS, *_COMPRESSED))}")
    width, height = (metadata.get(name, 0) for name in ("width", "height"))
    if not (isinstance(width, int) and isinstance(height, int)):
        raise UsageError(f"the image's width and height must be integers, not {width!r} and {height!r}")
    check_size((width, height), "the image")
    if data.size != width * height * 3:
        raise UsageError(f"an image of {width} x {height} ({encoding}) has {data.size} bytes")
    return np.ascontiguousarray(data.reshape(height, width, 3)[..., list(_ORDERS[encoding])])


def _take(event: Mapping[str, Any], node: Node, outputs: _Outputs, asker: _Asker, depth: StreamDepth) -> None:
    """Handle an input; an invalid one is reported in the diagnostics, and the dataflow continues."""

    def report(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            outputs.send_diagnostics(node, explain(error))

    def take() -> None:
        name = event["id"]
        if name == "image":
            node.put(to_frame(event, depth))
        elif name == "query":
            node.follow(_text(event) or None)
        elif name == "ask":
            query = _text(event)
            asker.ask(lambda: report(lambda: outputs.send_result(node.ask(query))))
        elif name == "enable":
            node.enable(_value(event, bool))
        elif name == "tick":
            outputs.send_diagnostics(node)

    report(take)


def _text(event: Mapping[str, Any]) -> str:
    return _value(event, str).strip() if len(event["value"]) else ""


def _value(event: Mapping[str, Any], kind: type[Value]) -> Value:
    """Return the one value of an input."""
    array = event["value"]
    value = array[0].as_py() if len(array) == 1 else None
    if not isinstance(value, kind):
        given = f"{array.type} [{len(array)}]"
        raise UsageError(f"the input {event['id']} takes an array of one {kind.__name__}, not {given}")
    return value
