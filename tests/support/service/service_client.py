"""What tests of the service send."""

from __future__ import annotations

import io
import threading
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
    """Decode a mask with COCO's own tools."""
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


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run work in so many threads and return their results."""
    found: list[Any] = [None] * count
    threads = [threading.Thread(target=lambda n=n: found.__setitem__(n, work(n))) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return found
