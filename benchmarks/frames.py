"""Checks that the memory of a session does not grow over thousands of images.

    python benchmarks/frames.py [--bundle DIR] [--policy-backend NAME] [--frames 10000] [--json]

Every image is new to the session (a test scene with another pixel changed), of one of three sizes, and gets one query,
or eight together every hundredth time. Resident memory is read every 100 images. Exits with 1 if it grew by more than
2 % after the first 500.

    python benchmarks/frames.py --pictures 2000 [--runs 40] [--json]

Instead sends a service pictures of all shapes up to the bounds of an image, in several formats, and gives the largest
to `wise-edge run` with mask and overlay. Exits with 1 if the peak memory of either exceeds 1.5 times that with pictures
in 4K, or a picture is refused.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from math import exp, log
from pathlib import Path
from time import perf_counter

import httpx
import numpy as np
from figures import print_figures, print_result
from PIL import Image

from wise_edge.arguments import MAX_ASPECT, MAX_PIXELS, MAX_SIDE_PX
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.runtimes.session import Session

SIZES = ((224, 224), (320, 240), (160, 200))
SCENES = 50
ALLOWED = 0.02
MOST_OF_4K = 1.5
IN_4K = (3840, 2160)
FORMATS = (
    ("RGB", {"format": "JPEG"}),
    ("RGB", {"format": "JPEG", "progressive": True}),
    ("RGB", {"format": "PNG", "compress_level": 1}),
    ("RGBA", {"format": "PNG", "compress_level": 1}),
    ("L", {"format": "TIFF"}),
    ("I;16", {"format": "PNG", "compress_level": 1}),
)


def resident_mb() -> float:
    """Return the process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def draw_sizes(count: int) -> list[tuple[int, int]]:
    """Return (width, height) of pictures of all areas and aspects, the bounds first."""
    side = int(MAX_PIXELS**0.5)
    bounds = [(side, side), (MAX_SIDE_PX, MAX_PIXELS // MAX_SIDE_PX), (MAX_SIDE_PX, MAX_SIDE_PX // MAX_ASPECT)]
    sizes = [*bounds, *(size[::-1] for size in bounds)] * len(FORMATS)
    generator = np.random.default_rng(0)
    while len(sizes) < count:
        area, aspect = exp(generator.uniform(0, log(MAX_PIXELS))), exp(generator.uniform(-1, 1) * log(MAX_ASPECT))
        size = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < max(size) <= min(MAX_SIDE_PX, MAX_ASPECT * min(size)) and size[0] * size[1] <= MAX_PIXELS:
            sizes.append(size)
    return sizes[:count]


def make_pictures(sizes: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Yield files, of one format after the other, and at the bounds of every one."""
    scene = Image.fromarray(SceneDataset("test")[0].image)
    for number, size in enumerate(sizes):
        mode, options = FORMATS[(number + number // 6) % len(FORMATS)]
        picture, buffer = scene.resize(size, Image.Resampling.NEAREST), io.BytesIO()
        if mode == "I;16":
            picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 17)
        picture.convert(mode).save(buffer, **options)
        yield buffer.getvalue()


def serve_peak_mb(pictures: Iterable[bytes]) -> tuple[float, int]:
    """Return the peak memory of a service that answers queries on pictures, and how many it refused."""
    refused = 0
    command = [sys.executable, "-m", "wise_edge", "serve", "--port", "0", "--max-megabytes", "200"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = server.stderr.readline().split()[-1]
        try:
            with httpx.Client(base_url=url, timeout=120) as client:
                for picture in pictures:
                    kept = client.post("/v1/frames", files={"image": picture})
                    if kept.status_code == 201:
                        kept = client.post(f"/v1/frames/{kept.json()['frame']}/segment", json={"query": "the ring"})
                    refused += kept.status_code != 200
            status = Path(f"/proc/{server.pid}/status").read_text()
        finally:
            server.terminate()
            server.wait()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1e3, refused


def run_peak_mb(pictures: Iterable[bytes]) -> tuple[float, int]:
    """Return the largest peak memory of `wise-edge run` on pictures, and how many it refused."""
    peak_kb = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        file, mask, overlay = (Path(folder) / name for name in ("picture", "mask.png", "overlay.png"))
        outputs = ["--json", "--mask", str(mask), "--overlay", str(overlay), "--force"]
        for picture in pictures:
            file.write_bytes(picture)
            command = [sys.executable, "-m", "wise_edge", "run", str(file), "the ring", *outputs]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak_kb, refused = max(peak_kb, used.ru_maxrss), refused + (status != 0)
    return peak_kb / 1e3, refused


def compare_pictures(count: int, runs: int) -> dict[str, float]:
    """Return peaks of all pictures and of those in 4K."""
    sizes = draw_sizes(count)
    served, refused = serve_peak_mb(make_pictures(sizes))
    ran, failed = run_peak_mb(make_pictures(sizes[:runs]))
    ordinary = [IN_4K] * len(FORMATS)
    serve_4k, run_4k = serve_peak_mb(make_pictures(ordinary))[0], run_peak_mb(make_pictures(ordinary[:1]))[0]
    return {
        "pictures": count,
        "refused": refused + failed,
        "serve_mb": served,
        "serve_4k_mb": serve_4k,
        "serve_ratio": served / serve_4k,
        "run_mb": ran,
        "run_4k_mb": run_4k,
        "run_ratio": ran / run_4k,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch the memory of one session.")
    parser.add_argument("--bundle", help="bundle; the embedded one where left out")
    parser.add_argument("--policy-backend", default="auto", help="runtime of the policy")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    parser.add_argument("--pictures", type=int, help="measure the peak memory of so many pictures of all shapes")
    parser.add_argument("--runs", type=int, default=40, help="for how many of them `wise-edge run` starts")
    options = parser.parse_args()
    if options.pictures:
        figures = compare_pictures(options.pictures, options.runs)
        print_figures(figures, options.json)
        sys.exit(bool(figures["refused"]) or max(figures["serve_ratio"], figures["run_ratio"]) > MOST_OF_4K)
    session = Session.from_bundle(options.bundle, policy_backend=options.policy_backend, threads=1)
    scenes = SceneDataset("test")
    examples = [scenes[place] for place in range(SCENES)]
    queries = [example.query for example in examples[:8]]
    pictures = [np.asarray(Image.fromarray(e.image).resize(SIZES[n % 3])) for n, e in enumerate(examples)]
    readings, start = [], perf_counter()
    for number in range(options.frames):
        image = pictures[number % SCENES].copy()
        image[0, 0] = (number % 256, number // 256 % 256, number // 65536)
        if number % 100:
            session.segment(image, examples[number % SCENES].query)
        else:
            session.segment_many(image, queries)
            readings.append(resident_mb())
    readings.append(resident_mb())
    early, late = readings[min(5, len(readings) - 1)], max(readings[6:], default=readings[-1])
    found = {
        "policy": session.policy.name,
        "frames": options.frames,
        "seconds": perf_counter() - start,
        "after_500_mb": early,
        "largest_later_mb": late,
        "growth": late / early - 1,
        "readings_mb": readings,
    }
    print_result(
        found,
        options.json,
        f"{found['frames']} frames in {found['seconds']:.0f} s with {found['policy']}: "
        f"{early:.1f} MB after 500, at most {late:.1f} MB later, {found['growth']:+.2%}",
    )
    sys.exit(found["growth"] > ALLOWED)


if __name__ == "__main__":
    main()
