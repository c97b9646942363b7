"""A stand-in for dora's `Node`, and what both of them are compared by: `listen` (tests/robot/test_dora_real.py)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from threading import Condition
from typing import Any

import numpy as np
import pyarrow as pa

Event = Mapping[str, Any]
QUEUE_SIZE = 10
"""Inputs of a name that wait; the oldest ones are dropped, as by dora."""
PIXELS = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
METADATA = {"width": 30, "height": 20, "encoding": "rgb8", "stamp_ns": 1_700_000_000_123_456_789, "frame_id": "camera"}
STOP = {"type": "STOP", "id": "MANUAL"}
RECORDING_ENDED = {"type": "STOP", "id": "ALL_INPUTS_CLOSED"}


def image(pixels: np.ndarray = PIXELS, **changes: Any) -> dict[str, Any]:
    return {"type": "INPUT", "id": "image", "value": pa.array(pixels.ravel()), "metadata": METADATA | changes}


def words(name: str, text: str) -> dict[str, Any]:
    return values(name, [text])


def values(name: str, content: list[Any]) -> dict[str, Any]:
    return {"type": "INPUT", "id": name, "value": pa.array(content), "metadata": {}}


class FakeDataflow:
    """A dataflow whose events come from a test.

    Like dora, it hands out other events before inputs, takes the inputs' names in turn, drops the oldest inputs of a
    full queue, reports a timeout as an ERROR event, and after STOP returns what waits and then None, at once.
    """

    def __init__(self, **queue_sizes: int) -> None:
        self.sent: list[tuple[str, Any, dict[str, Any]]] = []
        self._sizes = queue_sizes
        self._changed = Condition()
        self._others: deque[Event] = deque()
        self._inputs: dict[str, deque[Event]] = {}  # the name that was taken last comes last
        self._over = False

    def put(self, *events: Event) -> None:
        with self._changed:
            for event in events:
                if event["type"] == "INPUT":
                    name = event["id"]
                    if name not in self._inputs:
                        self._inputs = {name: deque(maxlen=self._sizes.get(name, QUEUE_SIZE))} | self._inputs
                    self._inputs[name].append(event)
                else:
                    self._others.append(event)
            self._changed.notify_all()

    def die(self) -> None:
        """End without a STOP, as when the daemon is killed."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def next(self, timeout: float) -> Event | None:
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._others or any(self._inputs.values()), timeout)
            if self._others:
                event = self._others.popleft()
                self._over = self._over or event["type"] == "STOP"
                return event
            for name, queue in self._inputs.items():
                if queue:
                    self._inputs[name] = self._inputs.pop(name)
                    return queue.popleft()
            if self._over:
                return None
        location = "\n\nLocation:\n    apis/rust/node/src/event_stream/mod.rs:1304:17"
        return {"type": "ERROR", "error": f"Timeout event stream error: Receiver timed out{location}"}

    def send_output(self, output_id: str, data: Any, metadata: dict[str, Any]) -> None:
        if self._over and not self._inputs:
            raise RuntimeError("internal error\n\nCaused by:\n   0: failed to send output")
        self.sent.append((output_id, data.to_pylist(), metadata))

    def outputs(self, name: str) -> list[tuple[Any, dict[str, Any]]]:
        return [(data, metadata) for output, data, metadata in list(self.sent) if output == name]


def listen(dataflow: Any, pause: Callable[[Event], None]) -> list[str]:
    """Return a line for each event; `pause` is called after the first input, and inputs gather meanwhile."""
    lines: list[str] = []
    paused = False
    while lines[-2:] != ["None", "None"]:
        event = dataflow.next(timeout=0.05)
        if event is None:
            lines.append("None")
        elif event["type"] == "INPUT":
            lines.append(f"INPUT {event['id']} {event['value'][0].as_py()}")
            if not paused:
                paused = True
                pause(event)
        else:
            error = str(event["error"]).splitlines()[0] if event["type"] == "ERROR" else event["id"]
            line = f"{event['type']} {error}"
            if [line] != lines[-1:]:
                lines.append(line)
    return lines
