"""What the service's paths share: a session behind its limits, answering what is asked of images."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from wise_edge.errors import DeviceError, QueryCancelledError, UsageError, WiseEdgeError
from wise_edge.images import load_image
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.rle import compressed_runs
from wise_edge.runtimes.base import SegmentationResult
from wise_edge.runtimes.session import Session
from wise_edge.service.guard import BUG, Receive
from wise_edge.service.image_store import ImageStore
from wise_edge.service.limits import Limits
from wise_edge.service.metrics import Metrics
from wise_edge.service.query_queue import BusyError, LateError, QueryQueue

T = TypeVar("T")
MaskForm = Literal["rle", "png", "none"]
"""How a mask is given: COCO's compressed run lengths, a PNG of 0 and 255 in base64, or not at all."""
_READERS = 2
"""Images that are decoded at once: one of 25 million pixels takes hundreds of megabytes meanwhile."""
_LOG = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[WiseEdgeError], int], ...] = (
    (BusyError, 429),
    (UsageError, 400),
    (LateError, 503),
    (QueryCancelledError, 503),
    (DeviceError, 503),
)


@dataclass(frozen=True)
class SegmentRequest:
    """What is asked of an image.

    Attributes:
        query: what to find, in words.
        variant: prompt variant; None takes the bundle's default.
        deadline_ms: choose the variant by this instead.
        mask: how the mask is given.
        energy: read the device's power sensor meanwhile, which holds the device a little longer.
    """

    query: str
    variant: str | None = None
    deadline_ms: float | None = None
    mask: MaskForm = "rle"
    energy: bool = False


@dataclass
class Service:
    """What the paths share.

    Attributes:
        session: answers; it keeps as many images as `limits.images`.
        limits: of clients.
        meter: of the energy of queries.
        queue: lets one query run at a time.
        images: that clients return to.
        metrics: for Prometheus.
        ready: whether a first query was answered, and the service is not ending.
    """

    session: Session
    limits: Limits
    meter: QueryMeter
    queue: QueryQueue = field(init=False)
    images: ImageStore = field(init=False)
    metrics: Metrics = field(init=False)
    ready: bool = False

    def __post_init__(self) -> None:
        """Make the parts."""
        self._readers, self._reading = ThreadPoolExecutor(_READERS, "reader"), 0
        self.queue = QueryQueue(self.limits)
        self.images = ImageStore(self.limits.images)
        self.metrics = Metrics(lambda: self.queue.waiting, lambda: len(self.images))

    async def warm_up(self) -> None:
        """Answer a query, so that the first client does not wait for what is done once.

        Raises:
            DeviceError: it took longer than a query may.
            WiseEdgeError: the session cannot answer.
        """
        blank = np.full((64, 64, 3), 128, np.uint8)
        try:
            await self.queue.run(lambda cancel: self.session.segment(blank, "the object", cancel=cancel))
        except LateError:
            most = f"{self.limits.query_s:g} s"
            raise DeviceError(f"the first query was not answered within {most}; raise --time-limit") from None
        self.ready = True

    def close(self) -> None:
        """End the threads once their work is done."""
        self.ready = False
        self.queue.close()
        self._readers.shutdown()

    async def read(self, data: bytes, client: str) -> npt.NDArray[np.uint8]:
        """Decode an image beside the event loop, few at once.

        Raises:
            BusyError: there is no room for a query on it.
            UsageError: it is no image, or too large.
        """
        self.queue.check_room(client, self._reading)
        self._reading += 1
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._readers, load_image, data, self.limits.pixels)
            return await reading
        finally:
            self._reading -= 1

    async def answer(
        self,
        image: npt.NDArray[np.uint8],
        request: SegmentRequest,
        client: str,
        on_text: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """Answer a query when it is its client's turn; raises as `QueryQueue.run` and `Session.segment` do."""

        def work(cancel: Event) -> SegmentationResult:
            ask = partial(self.session.segment, image, request.query, request.variant, deadline_ms=request.deadline_ms)
            answer = partial(ask, cancel=cancel, on_text=on_text)
            return self.meter.measure(answer) if request.energy else answer()

        result = await self.queue.run(work, client)
        self.metrics.count_query(result)
        return await asyncio.to_thread(describe, result, request.mask)  # which takes a while for a large mask

    async def stream(self, image: npt.NDArray[np.uint8], request: SegmentRequest, client: str) -> AsyncIterator[str]:
        """Give server-sent events: "text" as the completion grows, then "result" or "error"."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue[tuple[str, str]]()

        def tell(event: str, data: dict[str, Any]) -> None:
            told.put_nowait((event, json.dumps(data, allow_nan=False)))

        def on_text(text: str) -> None:
            loop.call_soon_threadsafe(tell, "text", {"text": text})

        async def answer() -> None:
            try:
                tell("result", await self.answer(image, request, client, on_text))
            except WiseEdgeError as error:
                tell("error", {"error": str(error), "status": status_of(error)})
            except Exception:
                _LOG.exception("a query failed")
                tell("error", {"error": BUG, "status": 500})

        asking = asyncio.create_task(answer())
        try:
            event = "text"
            while event == "text":
                event, data = await told.get()
                yield f"event: {event}\ndata: {data}\n\n"
        finally:  # the client may have gone
            asking.cancel()


async def while_there(receive: Receive, answer: Coroutine[Any, Any, T]) -> T:
    """Await an answer as long as its client stays.

    Args:
        receive: of the request, whose body was read.
        answer: is cancelled once the client has gone.

    Raises:
        QueryCancelledError: it has.
    """

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    asking, leaving = asyncio.create_task(answer), asyncio.create_task(leave())
    try:
        await asyncio.wait((asking, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise QueryCancelledError("the client has gone")
        return asking.result()
    finally:
        asking.cancel()
        leaving.cancel()


def describe(result: SegmentationResult, mask: MaskForm) -> dict[str, Any]:
    """Return a result ready for JSON, its mask in the form that was asked for."""
    described: dict[str, Any] = result.to_dict()
    if mask == "none" or result.mask is None:
        described["mask"] = None
    else:
        described["mask"] = compressed_runs(result.mask) if mask == "rle" else _png(result.mask)
    return described


def status_of(error: WiseEdgeError) -> int:
    """Return the HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _png(mask: npt.NDArray[np.bool_]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
