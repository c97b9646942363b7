"""The service's paths: pictures and queries in, masks out, the rationale as it is written.

FastAPI reads the types of the functions below when they are made, inside `make_app`, where it is imported: so this
module does without postponed annotations, and imports with the core alone.
"""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from wise_edge import __version__
from wise_edge.errors import DeviceError, QueryCancelledError, UsageError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.images import load_image
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.prompts import MAX_QUERY_CHARACTERS, VARIANTS
from wise_edge.rle import compressed_runs
from wise_edge.runtimes.base import SegmentationResult
from wise_edge.runtimes.session import Session
from wise_edge.service.device import BusyError, Device, LateError
from wise_edge.service.frames import FrameStore
from wise_edge.service.guard import Guard
from wise_edge.service.limits import Limits
from wise_edge.service.metrics import Metrics
from wise_edge.service.pages import read_page, render_reference

MaskForm = Literal["rle", "png", "none"]
"""How a mask is given: COCO's compressed run lengths, a PNG of 0 and 255 in base64, or not at all."""
_LONGEST_DEADLINE_MS = 600_000
_ENERGY = "Read the device's power sensor meanwhile, which takes up to half a second more; the answer has energy_j."
_STATUS: tuple[tuple[type[WiseEdgeError], int], ...] = (
    (BusyError, 429),
    (UsageError, 400),
    (LateError, 503),
    (QueryCancelledError, 503),
    (DeviceError, 503),
)
_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; media-src 'self' blob:"


@dataclass(frozen=True)
class Wish:
    """What is asked of a picture.

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
        session: answers; it keeps as many pictures as `limits.frames`.
        limits: of clients.
        meter: of the energy of queries.
        device: lets one query run at a time.
        frames: pictures that clients come back to.
        metrics: for Prometheus.
        ready: whether a first query was answered, and the service is not ending.
    """

    session: Session
    limits: Limits
    meter: QueryMeter
    device: Device = field(init=False)
    frames: FrameStore = field(init=False)
    metrics: Metrics = field(init=False)
    ready: bool = False

    def __post_init__(self) -> None:
        """Make the parts."""
        self.device = Device(self.limits)
        self.frames = FrameStore(self.limits.frames)
        self.metrics = Metrics(lambda: self.device.waiting, lambda: len(self.frames))

    async def warm_up(self) -> None:
        """Answer a query, so that the first client does not wait for what is done once."""
        blank = np.full((64, 64, 3), 128, np.uint8)
        await self.device.run(lambda cancel: self.session.segment(blank, "the object", cancel=cancel))
        self.ready = True

    async def read(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Decode a picture beside the event loop."""
        return await asyncio.to_thread(load_image, data, self.limits.pixels)

    async def answer(
        self, image: npt.NDArray[np.uint8], wish: Wish, client: str, on_text: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """Answer a query when it is its client's turn; raises as `Device.run` and `Session.segment` do."""

        def work(cancel: Event) -> SegmentationResult:
            ask = partial(self.session.segment, image, wish.query, wish.variant, deadline_ms=wish.deadline_ms)
            answer = partial(ask, cancel=cancel, on_text=on_text)
            return self.meter.measure(answer) if wish.energy else answer()

        result = await self.device.run(work, client)
        self.metrics.count_query(result)
        return describe(result, wish.mask)

    async def stream(self, image: npt.NDArray[np.uint8], wish: Wish, client: str) -> AsyncIterator[str]:
        """Give server-sent events: "text" as the completion grows, then "result" or "error"."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue[tuple[str, dict[str, Any]]]()

        def on_text(text: str) -> None:
            loop.call_soon_threadsafe(told.put_nowait, ("text", {"text": text}))

        async def answer() -> None:
            try:
                told.put_nowait(("result", await self.answer(image, wish, client, on_text)))
            except WiseEdgeError as error:
                told.put_nowait(("error", {"error": str(error), "status": status_of(error)}))

        asking = asyncio.create_task(answer())
        try:
            event = "text"
            while event == "text":
                event, data = await told.get()
                yield f"event: {event}\ndata: {json.dumps(data)}\n\n"
        finally:  # the client may have gone
            asking.cancel()


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


def make_app(
    session: Session,
    limits: Limits | None = None,
    token: str | None = None,
    *,
    own_host_only: bool = False,
    meter: QueryMeter | None = None,
) -> Any:
    """Make the ASGI application.

    Args:
        session: answers queries; nobody else should use its device.
        limits: of clients; None takes the defaults.
        token: that clients show; None asks for none.
        own_host_only: answer requests to 127.0.0.1 and localhost by those names only.
        meter: of the energy of queries; None looks for a sensor on this machine.

    Raises:
        MissingExtraError: a package of the extra "serve" is not installed.
    """
    require("fastapi", "serve")
    require("python_multipart", "serve")  # which FastAPI imports only when a form is declared
    from fastapi import FastAPI, File, Form, Request
    from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
    from pydantic import BaseModel, Field
    from starlette.exceptions import HTTPException

    service = Service(session, limits or Limits(), meter or QueryMeter.find())

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await service.warm_up()
        yield
        service.ready = False
        service.device.close()

    app = FastAPI(
        title="wise-edge",
        version=__version__,
        description="A picture and a sentence in, a mask out.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service

    class Question(BaseModel):
        query: str = Field(max_length=MAX_QUERY_CHARACTERS, description="What to find, in words.")
        variant: Literal[VARIANTS] | None = Field(None, description="Prompt variant.")  # type: ignore[valid-type]
        deadline_ms: float | None = Field(
            None, gt=0, le=_LONGEST_DEADLINE_MS, description="Choose the variant by this instead."
        )
        mask: MaskForm = Field("rle", description="COCO's compressed run lengths, a PNG in base64, or none.")
        energy: bool = Field(False, description=_ENERGY)

    class Failure(BaseModel):
        error: str

    refusals: dict[int | str, dict[str, Any]] = {
        400: {"model": Failure, "description": "The picture or the query cannot be used."},
        401: {"model": Failure, "description": "The token is missing."},
        408: {"model": Failure, "description": "The body came too slowly."},
        413: {"model": Failure, "description": "The body is too large."},
        429: {"model": Failure, "description": "Too many queries wait; Retry-After says when to come again."},
        503: {"model": Failure, "description": "The query took too long, or the device cannot."},
    }
    unknown: dict[int | str, dict[str, Any]] = {404: {"model": Failure, "description": "The picture is not kept."}}

    async def respond(request: Request, image: npt.NDArray[np.uint8], wish: Wish) -> Response:
        client = request.client.host if request.client else ""
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JSONResponse(await service.answer(image, wish, client))
        service.device.check_room(client)
        return StreamingResponse(service.stream(image, wish, client), media_type="text/event-stream")

    @app.post("/v1/segment", responses=refusals, summary="Find what a query names in a picture")
    async def segment(
        request: Request,
        image: Annotated[bytes, File(description="PNG, JPEG, WebP, BMP, TIFF, GIF or PPM.")],
        query: Annotated[str, Form(max_length=MAX_QUERY_CHARACTERS, description="What to find, in words.")],
        variant: Annotated[Literal[VARIANTS] | None, Form(description="Prompt variant.")] = None,  # type: ignore[valid-type]
        deadline_ms: Annotated[
            float | None, Form(gt=0, le=_LONGEST_DEADLINE_MS, description="Choose the variant by this instead.")
        ] = None,
        mask: Annotated[MaskForm, Form(description="COCO's run lengths, a PNG in base64, or none.")] = "rle",
        energy: Annotated[bool, Form(description=_ENERGY)] = False,
    ) -> Response:
        """Answer with JSON; with `Accept: text/event-stream` the rationale comes as it is written."""
        return await respond(request, await service.read(image), Wish(query, variant, deadline_ms, mask, energy))

    @app.post("/v1/frames", status_code=201, responses=refusals, summary="Keep a picture for several queries")
    async def keep(image: Annotated[bytes, File(description="As for /v1/segment.")]) -> dict[str, Any]:
        """Keep a picture; a further query on it costs its own words only."""
        pixels = await service.read(image)
        height, width, _ = pixels.shape
        return {"frame": service.frames.add(pixels), "width": width, "height": height}

    @app.post("/v1/frames/{frame}/segment", responses=refusals | unknown, summary="Ask a picture that is kept")
    async def ask(request: Request, frame: str, question: Question) -> Response:
        """Answer like /v1/segment."""
        pixels = service.frames.find(frame)
        if pixels is None:
            raise HTTPException(404, "this picture is not kept any more; send it again")
        return await respond(request, pixels, Wish(**question.model_dump()))

    @app.delete("/v1/frames/{frame}", status_code=204, responses=unknown, summary="Forget a picture")
    async def forget(frame: str) -> Response:
        if not service.frames.remove(frame):
            raise HTTPException(404, "this picture is not kept")
        return Response(status_code=204)

    @app.get("/healthz", summary="Whether the process answers")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether queries are answered")
    async def readiness() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metrics", summary="For Prometheus")
    async def metrics() -> Response:
        text, kind = service.metrics.render()
        return Response(text, media_type=kind)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(read_page(), headers={"content-security-policy": _POLICY})

    @app.get("/docs", include_in_schema=False)
    async def reference() -> Response:
        return HTMLResponse(render_reference(app.openapi()), headers={"content-security-policy": _POLICY})

    @app.exception_handler(WiseEdgeError)
    async def explain(request: Request, error: WiseEdgeError) -> Response:
        headers = {"retry-after": str(error.retry_after_s)} if isinstance(error, BusyError) else None
        return JSONResponse({"error": str(error)}, status_of(error), headers)

    @app.exception_handler(HTTPException)
    async def translate(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    return Guard(app, service.limits, token, own_host_only, service.metrics.count_request)
