"""Images and results for the Rerun viewer (https://rerun.io), on the camera's time line and on this machine's.

The phases' times and the device's power are shown next to them as curves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wise_edge.drawing.panel import PHASE_COLORS
from wise_edge.errors import DeviceError, UsageError
from wise_edge.extras import require
from wise_edge.power.gauge import PowerGauge
from wise_edge.robot.frames import Frame
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session

CONNECT = "connect"
"""Target that means a viewer that is already running."""
_MASK_RGBA = (0, 214, 255, 140)


class RerunLog:
    """Writes a recording or feeds a viewer; a context manager that is called with each frame and its result.

    Args:
        target: a file (`.rrd`), or `CONNECT`.
        force: replace an existing file.
        on_gpu: whether a GPU does some of the work; if so, its power is logged.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
        UsageError: the file exists, or its name does not end in .rrd.
        DeviceError: no viewer is running.
    """

    def __init__(self, target: str, *, force: bool = False, on_gpu: bool = True) -> None:
        self._power = PowerGauge.find(on_gpu)
        self._rerun = require("rerun", "rerun")
        self._recording = self._rerun.RecordingStream("wise-edge")
        if target == CONNECT:
            try:
                self._recording.connect_grpc()
            except Exception as error:  # rerun raises many types
                raise DeviceError(f"no Rerun viewer is running here ({error}); start one with: rerun") from error
            self._recording.send_blueprint(self._layout())
            self._color()
            return
        file = Path(target)
        if file.suffix != ".rrd":
            raise UsageError(f"--rerun {target} is not a recording; pass a file name that ends in .rrd, or {CONNECT}")
        if file.exists() and not force:
            raise UsageError(f"{file} exists; use --force, or name another")
        self._recording.save(file, default_blueprint=self._layout())
        self._color()

    def __enter__(self) -> RerunLog:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Flush the recording and close it."""
        self._recording.flush()
        self._recording.disconnect()

    def __call__(self, frame: Frame, result: NodeResult) -> None:
        """Log a frame with its mask, box, points, rationale and phases."""
        rerun, log = self._rerun, self._recording.log
        self._recording.set_time("camera", timestamp=np.datetime64(frame.stamp_ns, "ns"))
        log("camera", rerun.Image(frame.image))
        mask = np.zeros(frame.image.shape[:2], np.bool_) if result.mask is None else result.mask
        log("camera/mask", rerun.Image(mask[..., None] * np.array(_MASK_RGBA, np.uint8), color_model="RGBA"))
        boxes = [] if result.box is None else [result.box]
        centers = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes]
        halves = [((right - left) / 2, (bottom - top) / 2) for left, top, right, bottom in boxes]
        log("camera/box", rerun.Boxes2D(centers=centers, half_sizes=halves, labels=[result.query] * len(boxes)))
        log("camera/points", rerun.Points2D(list(result.points), radii=2.0))
        log("rationale", rerun.TextDocument(f"{result.query}: {result.rationale or result.reason or '(no rationale)'}"))
        for phase, spent_ms in result.latency_ms.items():
            log(f"ms/{phase}", rerun.Scalars(spent_ms))
        power_w, _ = self._power.read()
        if power_w is not None:
            log("power_w", rerun.Scalars(power_w))

    def _color(self) -> None:
        """Set the phases' colors to those of wise-edge's reports."""
        for phase, color in PHASE_COLORS.items():
            self._recording.log(f"ms/{phase}", self._rerun.SeriesLines(colors=[color]), static=True)

    def _layout(self) -> Any:
        """Return the viewer's layout: the image, and next to it text, times and power."""
        blueprint = require("rerun.blueprint", "rerun")
        curves = [
            blueprint.TextDocumentView(origin="rationale", name="rationale"),
            blueprint.TimeSeriesView(origin="ms", name="phases, ms"),
            blueprint.TimeSeriesView(origin="power_w", name="power, W"),
        ]
        column = blueprint.Vertical(*curves, row_shares=[1, 3, 2])
        camera = blueprint.Spatial2DView(origin="camera", name="camera")
        return blueprint.Blueprint(blueprint.Horizontal(camera, column, column_shares=[3, 2]), collapse_panels=True)


@contextmanager
def open_rerun(target: str | None, session: Session, *, force: bool = False) -> Iterator[RerunLog | None]:
    """Yield a log of a session's work, or None without a target; raises what `RerunLog` raises."""
    if not target:
        yield None
        return
    with RerunLog(target, force=force, on_gpu=session.on_gpu) as log:
        yield log
