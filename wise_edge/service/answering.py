"""What the service's endpoints share: a session behind limits, which answers queries on images."""

from __future__ import annotations

import asyncio
import base64
import io
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
from wise_edge.files.documents import to_json
from wise_edge.images import load_image
from wise_edge.outputs.saving import Kind, encode_result
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.rle import compressed_runs
from wise_edge.runtimes.objects import MaskCode
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.runtimes.session import Session
from wise_edge.scenes.recognition import explain_other_kind
from wise_edge.service.guard import BUG, Receive
from wise_edge.service.image_store import ImageStore
from wise_edge.service.limits import Limits
from wise_edge.service.metrics import Metrics
from wise_edge.service.query_queue import BusyError, LateError, QueryQueue

T = TypeVar("T")
MaskForm = Literal["rle", "png", "none"]
"""How masks are returned: COCO's compressed run lengths, a PNG in base64, or not at all."""
_READERS = 2
"""Images decoded at once: decoding one of 25 million pixels takes hundreds of megabytes."""
CLOSE_S = 5.0
"""Time for a cancelled query to end when the service stops; it ends before the policy's next call."""
_LOG = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[WiseEdgeError], int], ...] = (
    (BusyError, 429),
    (UsageError, 400),
    (LateError, 503),
    (QueryCancelledError, 499),  # its client left; nginx's number, which is no error of the service in its metrics
    (DeviceError, 503),
)


@dataclass(frozen=True)
class SegmentRequest:
    """A query on an image, and how to answer it.

    Attributes:
        query: what to find, in words.
        variant: prompt variant; None takes the bundle's default.
        deadline_ms: choose the variant by this deadline instead, and the pixels unless they are given.
        pixels: most pixels of the image as the policy sees it; None for the session's, or the deadline's choice.
        mask: form of the masks in the answer.
        energy: read the device's power sensor during the query, which occupies the device a little longer.
        output: what is answered: "json", or a file of `wise_edge.outputs.saving`.
    """

    query: str
    variant: str | None = None
    deadline_ms: float | None = None
    pixels: int | None = None
    mask: MaskForm = "rle"
    energy: bool = False
    output: Kind = "json"


@dataclass
class Service:
    """What the endpoints share.

    Attributes:
        session: answers queries; it caches as many images as `limits.images`.
        limits: bounds on what clients may send.
        meter: measures the energy of queries.
        demo: whether the models are the shipped ones, which know one kind of picture.
        queue: runs one query at a time.
        images: uploaded images, stored for further queries.
        metrics: for Prometheus.
        ready: whether a first query was answered and the service is not shutting down.
    """

    session: Session
    limits: Limits
    meter: QueryMeter
    demo: bool = False
    queue: QueryQueue = field(init=False)
    images: ImageStore = field(init=False)
    metrics: Metrics = field(init=False)
    ready: bool = False

    def __post_init__(self) -> None:
        """Create the parts."""
        self._readers, self._reading = ThreadPoolExecutor(_READERS, "reader"), 0
        self.queue = QueryQueue(self.limits)
        self.images = ImageStore(self.limits.images)
        self.metrics = Metrics(lambda: self.queue.waiting, lambda: len(self.images))

    async def warm_up(self) -> None:
        """Answer one query, so that the first client does not wait for one-time initialization.

        Raises:
            DeviceError: it exceeded the time limit of a query.
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
        """Stop the threads once their work is done.

        Raises:
            DeviceError: a query does not end, although it was cancelled.
        """
        self.ready = False
        self._readers.shutdown()
        if not self.queue.close(CLOSE_S):
            raise DeviceError("a query does not end: its engine hangs; see dmesg for errors of the GPU")

    async def read(self, data: bytes, client: str) -> npt.NDArray[np.uint8]:
        """Decode an image outside the event loop, at most `_READERS` at once.

        Raises:
            BusyError: the queue has no room for a query on it.
            UsageError: the data are not an image, or the image is too large.
        """
        self.queue.check_room(client, self._reading)
        self._reading += 1
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._readers, load_image, data, self.limits.pixels)
            image: npt.NDArray[np.uint8] = await reading
            image.flags.writeable = False  # so that the session keeps it without a copy
            return image
        finally:
            self._reading -= 1

    async def ask(
        self,
        image: npt.NDArray[np.uint8],
        request: SegmentRequest,
        client: str,
        on_text: Callable[[str], None] | None = None,
    ) -> SegmentationResult:
        """Ask when the client's turn comes; raises what `QueryQueue.run` and `Session.segment` raise."""

        def work(cancel: Event) -> SegmentationResult:
            ask = partial(self.session.segment, image, request.query, request.variant, pixels=request.pixels)
            answer = partial(ask, deadline_ms=request.deadline_ms, cancel=cancel, on_text=on_text)
            return self.meter.measure(answer) if request.energy else answer()

        result = await self.queue.run(work, client)
        self.metrics.count_query(result)
        return result

    async def answer(
        self,
        image: npt.NDArray[np.uint8],
        request: SegmentRequest,
        client: str,
        on_text: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """Return the answer to a query as JSON; raises what `ask` raises."""
        result = await self.ask(image, request, client, on_text)
        described = await asyncio.to_thread(describe, result, request.mask)  # a large mask takes a while
        return described | {"notes": await asyncio.to_thread(self.notes, image, request.query)}

    async def write(self, image: npt.NDArray[np.uint8], request: SegmentRequest, client: str) -> bytes:
        """Return the answer to a query as the content of a file; raises what `ask` and `encode_result` raise."""
        result = await self.ask(image, request, client)
        return await asyncio.to_thread(encode_result, result, image, request.output, ".png", "image")

    def notes(self, image: npt.NDArray[np.uint8], query: str) -> list[str]:
        """Return what to know about the answer to a query on an image."""
        line = explain_other_kind(image, query) if self.demo else None
        return [line] if line else []

    async def stream(self, image: npt.NDArray[np.uint8], request: SegmentRequest, client: str) -> AsyncIterator[str]:
        """Yield server-sent events: "text" with what the completion has grown by, then "result" or "error"."""
        loop, pending = asyncio.get_running_loop(), asyncio.Queue[tuple[str, str]]()
        sent = ""

        def emit(event: str, data: dict[str, Any]) -> None:
            pending.put_nowait((event, to_json(data)))

        def on_text(text: str) -> None:
            nonlocal sent
            text = text.rstrip("\ufffd")  # part of a character, whose other bytes are in the next token
            if len(text) > len(sent) and text.startswith(sent):
                loop.call_soon_threadsafe(emit, "text", {"delta": text[len(sent) :]})
                sent = text

        async def answer() -> None:
            try:
                emit("result", await self.answer(image, request, client, on_text))
            except WiseEdgeError as error:
                emit("error", {"error": str(error), "status": status_of(error)})
            except Exception:
                _LOG.exception("a query failed")
                emit("error", {"error": BUG, "status": 500})

        asking = asyncio.create_task(answer())
        try:
            event = "text"
            while event == "text":
                event, data = await pending.get()
                yield f"event: {event}\ndata: {data}\n\n"
        finally:  # the client may have disconnected
            asking.cancel()


async def while_connected(receive: Receive, answer: Coroutine[Any, Any, T]) -> T:
    """Await an answer while its client stays connected.

    Args:
        receive: the request's ASGI callable, after its body was read.
        answer: cancelled when the client disconnects.

    Raises:
        QueryCancelledError: the client disconnected.
    """

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    asking, leaving = asyncio.create_task(answer), asyncio.create_task(leave())
    try:
        await asyncio.wait((asking, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise QueryCancelledError("the client disconnected")
        return asking.result()
    finally:
        asking.cancel()
        leaving.cancel()


def describe(result: SegmentationResult, mask: MaskForm) -> dict[str, Any]:
    """Return a JSON-ready result with its masks in the requested form; the PNG of all is `Findings.mask_image`."""
    codes: dict[MaskForm, MaskCode] = {"rle": compressed_runs, "png": _png, "none": lambda mask: None}
    described = result.to_dict(codes[mask])
    if mask == "png" and result.mask is not None:
        described["mask"] = _png(result.mask_image())
    return described


def status_of(error: WiseEdgeError) -> int:
    """Return the HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _png(mask: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]) -> str:
    pixels = mask if mask.dtype == np.uint8 else mask * np.uint8(255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
