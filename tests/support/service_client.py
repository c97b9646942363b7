"""What tests of the service send and wait for."""

from __future__ import annotations

import io
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
from PIL import Image
from pycocotools import mask as coco
from starlette.testclient import TestClient


def png(width: int = 30, height: int = 20, value: int = 9) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def pixels_of(runs: dict[str, Any]) -> np.ndarray:
    """Return a mask as COCO's own tools read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools and numpy 2
        found: np.ndarray = coco.decode(runs) > 0
    return found


def ask(
    client: TestClient | httpx.Client, query: str = "the ring", image: bytes | None = None, **more: Any
) -> httpx.Response:
    headers = more.pop("headers", None)
    return client.post(
        "/v1/segment", files={"image": ("a.png", image or png())}, data={"query": query, **more}, headers=headers
    )


def wait_until(happens: Callable[[], bool], seconds: float = 30) -> bool:
    end_s = time.monotonic() + seconds
    while not (happened := happens()) and time.monotonic() < end_s:
        time.sleep(0.05)
    return happened


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Do something in threads of its own and return what came of each."""
    found: list[Any] = [None] * count
    threads = [threading.Thread(target=lambda n=n: found.__setitem__(n, work(n))) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return found
