"""Images and results for the Rerun viewer (https://rerun.io), on the camera's time line and on this machine's.

The phases' times and the device's power are shown next to them as curves.

Only a thread of the log's own calls Rerun, because its calls wait without an end for a viewer that does not read, and
no signal interrupts them: `flush`, `disconnect`, the handler that Rerun registers for the end of the process, and `log`
once about 1 GB is waiting (rerun-sdk 0.41, with a listener that accepts a connection and says nothing).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.drawing.overlay import object_color
from wise_edge.drawing.panel import PHASE_COLORS
from wise_edge.errors import DeviceError, UsageError
from wise_edge.extras import check_packages, require
from wise_edge.files.locks import claiming
from wise_edge.files.targets import check_target
from wise_edge.power.gauge import PowerGauge
from wise_edge.robot.frames import Frame
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.session import Session

CONNECT = "connect"
"""Target that means a viewer that is already running."""
_VIEWER = ("127.0.0.1", 9876)
"""Where a viewer listens (https://rerun.io/docs/reference/sdk/operating-modes)."""
PATIENCE_S = 5.0
"""Time without progress after which a viewer is given up; a file is waited for."""
_WAITING = 4  # images that wait for the thread
_MASK_ALPHA = 140
_LOG = logging.getLogger(__name__)


class RerunLog:
    """Writes a recording or feeds a viewer; a context manager that is called with each frame and its result.

    A viewer that takes nothing for `PATIENCE_S` is given up with a warning; whoever calls the log continues.

    Args:
        target: a file (`.rrd`), or `CONNECT`.
        force: replace an existing file.
        on_gpu: whether a GPU does some of the work; if so, its power is logged.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
        UsageError: the file exists, cannot be written, another process writes it, or its name does not end in .rrd.
        DeviceError: no viewer is running.
    """

    def __init__(self, target: str, *, force: bool = False, on_gpu: bool = True) -> None:
        check_rerun(target, force=force)
        self._power = PowerGauge.find(on_gpu)
        self._rerun = require("rerun", "rerun")
        self._recording = self._rerun.RecordingStream("wise-edge")
        self._patience_s = PATIENCE_S if target == CONNECT else None
        self._held = ExitStack()
        if target == CONNECT:
            self._recording.connect_grpc("rerun+http://{}:{}/proxy".format(*_VIEWER))
            self._recording.send_blueprint(self._layout())
        else:
            self._held.enter_context(claiming(Path(target)))
            if not force and Path(target).stat().st_size:
                raise UsageError(f"{target} exists; use --force to replace it")
            self._recording.save(target, default_blueprint=self._layout())
        self._color()
        self._waiting: Queue[tuple[Frame, NodeResult, float | None] | None] = Queue(_WAITING)
        self._given_up = False
        self._thread = Thread(target=self._work, name="rerun", daemon=True)
        self._thread.start()

    def __enter__(self) -> RerunLog:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write what waits and close the recording."""
        self._put(None)
        if not self._given_up:
            self._thread.join(self._patience_s)
        if self._thread.is_alive():
            self._give_up(f"the viewer has not taken the last images within {PATIENCE_S:g} s")
        self._held.close()

    def __call__(self, frame: Frame, result: NodeResult) -> None:
        """Log a frame with its mask, box, points, rationale and phases."""
        self._put((frame, result, self._power.read()[0]))

    def _put(self, item: tuple[Frame, NodeResult, float | None] | None) -> None:
        """Hand something to the thread; None ends it."""
        if self._given_up:
            return
        try:
            self._waiting.put(item, timeout=self._patience_s)
        except Full:
            self._give_up(f"the viewer has taken nothing for {PATIENCE_S:g} s")

    def _give_up(self, reason: str) -> None:
        if not self._given_up:
            self._given_up = True
            self._rerun.unregister_shutdown()  # it would wait for the viewer at the end of the process
            _LOG.warning("logging to Rerun ends here: %s", reason)

    def _work(self) -> None:
        try:
            while (item := self._waiting.get()) is not None:
                self._write(*item)
            self._recording.flush()
            self._recording.disconnect()
        except Exception as error:  # rerun raises many types
            self._give_up(str(error))
            with suppress(Empty):  # whoever waits for room continues
                while True:
                    self._waiting.get_nowait()

    def _write(self, frame: Frame, result: NodeResult, power_w: float | None) -> None:
        rerun, log = self._rerun, self._recording.log
        self._recording.set_time("camera", timestamp=np.datetime64(frame.stamp_ns, "ns"))
        log("camera", rerun.Image(frame.image))
        log("camera/mask", rerun.Image(_color_masks(result), color_model="RGBA"))
        boxes = [item.box for item in result.objects]
        centers = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes]
        halves = [((right - left) / 2, (bottom - top) / 2) for left, top, right, bottom in boxes]
        names = [item.label or result.query for item in result.objects]
        colors = [object_color(item.number) for item in result.objects]
        log("camera/box", rerun.Boxes2D(centers=centers, half_sizes=halves, labels=names, colors=colors))
        log("camera/points", rerun.Points2D([point for item in result.objects for point in item.points], radii=2.0))
        log("rationale", rerun.TextDocument(f"{result.query}: {result.rationale or result.reason or '(no rationale)'}"))
        for phase, spent_ms in result.latency_ms.items():
            log(f"ms/{phase}", rerun.Scalars(spent_ms))
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


def _color_masks(result: NodeResult) -> npt.NDArray[np.uint8]:
    """Return the masks in their objects' colors, RGBA uint8 [H, W, 4], transparent elsewhere."""
    colors = np.zeros((256, 4), np.uint8)
    for item in result.objects:
        colors[item.level] = (*object_color(item.number), _MASK_ALPHA)
    return colors[result.mask_image()]


def check_rerun(target: str | None, *, force: bool = False, keep: Iterable[Path] = ()) -> None:
    """Check what `RerunLog` needs, before the work that it will show; raises what `RerunLog` raises."""
    if not target:
        return
    check_packages("rerun", "rerun")
    if target == CONNECT:
        _check_viewer()
    elif Path(target).suffix != ".rrd":
        raise UsageError(f"--rerun {target} is not a recording; pass a file name that ends in .rrd, or {CONNECT}")
    else:
        check_target(target, force=force, keep=keep)


def _check_viewer() -> None:
    """Raise `DeviceError` if no viewer is running; Rerun itself tries to connect for 5 s and then says nothing."""
    host, port = _VIEWER
    try:
        socket.create_connection(_VIEWER, PATIENCE_S).close()
    except OSError as error:
        reason = f"nothing listens at {host}:{port}, {error.strerror or error}"
        raise DeviceError(f"no Rerun viewer is running here ({reason}); start one with: rerun") from error


@contextmanager
def open_rerun(target: str | None, session: Session, *, force: bool = False) -> Iterator[RerunLog | None]:
    """Yield a log of a session's work, or None without a target; raises what `RerunLog` raises."""
    if not target:
        yield None
        return
    with RerunLog(target, force=force, on_gpu=session.on_gpu) as log:
        yield log
