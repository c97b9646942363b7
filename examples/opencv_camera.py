"""Follow what a sentence means with an OpenCV camera, or through a video; needs opencv-python. Escape ends it.

Of a camera the newest frame counts; of a video every frame is shown, and the policy is asked once a second of it.

python examples/opencv_camera.py "the mug" --bundle bundle
python examples/opencv_camera.py "the mug" --bundle bundle --camera clip.mp4
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from wise_edge import Session, Stamped

ESCAPE = 27


def read_frames(capture: cv2.VideoCapture, live: bool) -> Iterator[Stamped]:
    """Yield a capture's frames, which OpenCV has in BGR, until it ends."""
    while True:
        found, frame = capture.read()
        if not found:
            return
        stamp_s = time.monotonic() if live else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        yield Stamped(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), stamp_s)


def follow(
    session: Session, capture: cv2.VideoCapture, query: str, show: Callable[[cv2.typing.MatLike], bool], *, live: bool
) -> None:
    """Show each result drawn on its frame, until `show` returns False or the frames end."""
    for found in session.track(read_frames(capture, live), query, ground_every_s=None if live else 1.0):
        drawn = cv2.cvtColor(found.overlay(), cv2.COLOR_RGB2BGR)
        age = f"{1000 * found.age_s:.0f} ms old, {found.dropped} frames dropped"
        cv2.putText(drawn, age, (8, drawn.shape[0] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        if not show(drawn):
            return


def show_window(frame: cv2.typing.MatLike) -> bool:
    """Show a frame in a window; return whether to go on."""
    cv2.imshow("wise-edge", frame)
    return cv2.waitKey(1) != ESCAPE


def main() -> None:
    """Open the camera and follow the query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query")
    parser.add_argument("--camera", default="0", help="number of a camera, address of a stream, or a video file")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle; the embedded one if omitted")
    given = parser.parse_args()

    session = Session.from_bundle(given.bundle)
    live = given.camera.isdigit() or "://" in given.camera
    capture = cv2.VideoCapture(int(given.camera) if given.camera.isdigit() else given.camera)
    if not capture.isOpened():
        raise SystemExit(f"the camera {given.camera} cannot be opened")
    try:
        follow(session, capture, given.query, show_window, live=live)
    finally:
        capture.release()


if __name__ == "__main__":
    main()
