"""Opening what frames come from."""

from __future__ import annotations

from wise_edge.errors import DeviceError
from wise_edge.extras import require
from wise_edge.video.cameras import Live, advise, check_camera
from wise_edge.video.reading import PATIENCE_S, Recording, open_patiently, open_recording
from wise_edge.video.sources import CameraSettings, Source, find_source

_NETWORK = {"timeout": PATIENCE_S}


def open_video(source: Source | str, settings: CameraSettings | None = None) -> Live | Recording:
    """Open a file, a camera or an address; what has an end is a recording, wherever it lies.

    Args:
        source: where frames come from, or what a user writes for it, see `find_source`.
        settings: what a camera is asked for.

    Returns:
        A recording, which is iterated over, or a camera whose first frame has come, which has `newest`; `Session.track`
        takes either. Close it.

    Raises:
        MissingExtraError: PyAV is not installed.
        DeviceError: it is not there, busy, denied, no camera, or delivers nothing.
        UsageError: there is no such file, what a file or an address holds is no video, or settings of a camera are
            given for something else.
    """
    require("av", "video")
    settings = settings or CameraSettings()
    source = find_source(source, settings) if isinstance(source, str) else source
    if source.kind == "file":
        return open_recording(source)
    if source.kind == "camera":
        check_camera(source.address)
        try:
            return _begin(Live(open_patiently(source, format="v4l2", options=settings.options), source))
        except DeviceError as error:
            raise DeviceError(f"{error}; {advise(error, settings)}") from None
    options = {"rtsp_transport": "tcp"} if source.address.lower().startswith("rtsp") else {}
    container = open_patiently(source, options=options, **_NETWORK)
    return Recording(container, source.name) if container.duration else _begin(Live(container, source))


def _begin(live: Live) -> Live:
    """Return a camera or stream once its first frame has come."""
    try:
        live.wait()
    except BaseException:
        live.close()
        raise
    return live
