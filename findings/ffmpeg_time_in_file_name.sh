#!/usr/bin/env bash
# PyAV 18.1.0 and opencv-python-headless 5.0.0.93: a recording named by its time (2026-11-30T12:00:00.mp4) cannot be opened.
#
# Source: https://ffmpeg.org/ffmpeg-protocols.html#file ("file:" opens a file whatever its name), and `url_find_protocol`
# of libavformat/avio.c: letters, digits, "+", "-" and "." before a colon are a protocol.
#
# A good engineer would guess that the path of a file that exists is opened. In ISO 8601's form the characters before the
# first colon could all be a protocol's name; with "_" instead of "T" they could not, and the same file is read. PyAV says
# "Protocol not found", OpenCV nothing but that it is not opened. "./" or "file:" before the name mends it.
#
# Seen:
#   2026-11-30T12:00:00.avi           PyAV ProtocolNotFoundError   OpenCV opened False
#   2026-11-30_12:00:00.avi           PyAV 3 frames                OpenCV opened True
#   file:2026-11-30T12:00:00.avi      PyAV 3 frames                OpenCV opened True
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 opencv-python-headless==5.0.0.93

cat > "$work/show.py" <<'PYTHON'
import shutil
import sys

import av
import cv2
import numpy as np

ISO, OTHER = "2026-11-30T12:00:00.avi", "2026-11-30_12:00:00.avi"
with av.open("plain.avi", "w") as out:
    stream = out.add_stream("mpeg4", rate=30)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    for _ in range(3):
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
    out.mux(stream.encode(None))
for name in (ISO, OTHER):
    shutil.copy("plain.avi", name)


def open_with_pyav(name: str) -> str:
    try:
        with av.open(name) as opened:
            return f"{len(list(opened.decode(video=0)))} frames"
    except av.error.FFmpegError as error:
        return type(error).__name__


for name, expected in (
    (ISO, ("ProtocolNotFoundError", False)),
    (OTHER, ("3 frames", True)),
    (f"file:{ISO}", ("3 frames", True)),
):
    found = open_with_pyav(name), cv2.VideoCapture(name).isOpened()
    print(f"{name:34}PyAV {found[0]:24}OpenCV opened {found[1]}")
    if found != expected:
        sys.exit(f"changed: expected {expected}")
PYTHON
cd "$work"
"$work/venv/bin/python" "$work/show.py"
