"""The service's paths: pictures and queries in, masks out, the rationale as it is written.

FastAPI reads the types of the functions below when they are made, inside `make_app`, where it is imported: so this
module does without postponed annotations, and imports with the core alone.
"""

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Annotated, Any, Literal, TypeVar

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
from wise_edge.service.guard import BUG, OWN_HOSTS, Guard, Receive
from wise_edge.service.limits import Limits
from wise_edge.service.metrics import Metrics
from wise_edge.service.pages import read_page, render_reference

T = TypeVar("T")
MaskForm = Literal["rle", "png", "none"]
"""How a mask is given: COCO's compressed run lengths, a PNG of 0 and 255 in base64, or not at all."""
_LONGEST_DEADLINE_MS = 600_000
_READERS = 2
"""Pictures that are decoded at once: one of 25 million pixels takes hundreds of megabytes meanwhile."""
_LOG = logging.getLogger(__name__)
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
        self._readers, self._reading = ThreadPoolExecutor(_READERS, "reader"), 0
        self.device = Device(self.limits)
        self.frames = FrameStore(self.limits.frames)
        self.metrics = Metrics(lambda: self.device.waiting, lambda: len(self.frames))

    async def warm_up(self) -> None:
        """Answer a query, so that the first client does not wait for what is done once.

        Raises:
            DeviceError: it took longer than a query may.
            WiseEdgeError: the session cannot answer.
        """
        blank = np.full((64, 64, 3), 128, np.uint8)
        try:
            await self.device.run(lambda cancel: self.session.segment(blank, "the object", cancel=cancel))
        except LateError:
            most = f"{self.limits.query_s:g} s"
            raise DeviceError(f"the first query was not answered within {most}; raise --time-limit") from None
        self.ready = True

    def close(self) -> None:
        """End the threads once their work is done."""
        self.ready = False
        self.device.close()
        self._readers.shutdown()

    async def read(self, data: bytes, client: str) -> npt.NDArray[np.uint8]:
        """Decode a picture beside the event loop, few at once.

        Raises:
            BusyError: there is no room for a query on it.
            UsageError: it is no picture, or too large.
        """
        self.device.check_room(client, self._reading)
        self._reading += 1
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._readers, load_image, data, self.limits.pixels)
            return await reading
        finally:
            self._reading -= 1

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
        return await asyncio.to_thread(describe, result, wish.mask)  # which takes a while for a large mask

    async def stream(self, image: npt.NDArray[np.uint8], wish: Wish, client: str) -> AsyncIterator[str]:
        """Give server-sent events: "text" as the completion grows, then "result" or "error"."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue[tuple[str, str]]()

        def tell(event: str, data: dict[str, Any]) -> None:
            told.put_nowait((event, json.dumps(data, allow_nan=False)))

        def on_text(text: str) -> None:
            loop.call_soon_threadsafe(tell, "text", {"text": text})

        async def answer() -> None:
            try:
                tell("result", await self.answer(image, wish, client, on_text))
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


def describe_fault(fault: Mapping[str, Any]) -> str:
    """Return what pydantic found wrong with a request as "field: reason", without the value."""
    if fault["type"] == "json_invalid":
        return f"the body is no JSON: {fault['ctx']['error']}"
    field = ".".join(map(str, fault["loc"][1:]))
    return f"{field or 'the body'}: {fault['msg']}"


def client_of(request: Any) -> str:
    """Return the address that a request came from."""
    return request.client.host if request.client else ""


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
    own_hosts: tuple[str, ...] = OWN_HOSTS,
    meter: QueryMeter | None = None,
) -> Any:
    """Make the ASGI application.

    Args:
        session: answers queries; nobody else should use its device.
        limits: of clients; None takes the defaults.
        token: that clients show; None asks for none.
        own_host_only: answer requests by the names of `own_hosts` only, and no pages of other sites.
        own_hosts: as a URL has them, small letters, without a port.
        meter: of the energy of queries; None looks for a sensor on this machine.

    Raises:
        MissingExtraError: a package of the extra "serve" is not installed.
    """
    require("fastapi", "serve")
    require("python_multipart", "serve")  # which FastAPI imports only when a form is declared
    from fastapi import FastAPI, File, Form, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
    from pydantic import BaseModel, Field
    from starlette.exceptions import HTTPException

    service = Service(session, limits or Limits(), meter or QueryMeter.find(session.on_gpu))

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await service.warm_up()
        yield
        service.close()

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
        403: {"model": Failure, "description": "The request names another host, or comes from a page of one."},
        408: {"model": Failure, "description": "The body came too slowly."},
        413: {"model": Failure, "description": "The body is too large."},
        422: {"model": Failure, "description": "A field is missing, or has a value that it may not have."},
        429: {"model": Failure, "description": "Too many queries wait; Retry-After says when to come again."},
        500: {"model": Failure, "description": "The engine or the service failed."},
        503: {"model": Failure, "description": "The query took too long, or the device cannot."},
    }
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "The answer.", "content": {"application/json": {}, "text/event-stream": {}}}
    }
    unknown: dict[int | str, dict[str, Any]] = {404: {"model": Failure, "description": "The picture is not kept."}}

    def refuse(status: int, line: str, headers: Mapping[str, str] | None = None) -> Response:
        # In ASCII: a line may quote half a character, which UTF-8 cannot write.
        return Response(json.dumps({"error": line}), status, headers, "application/json")

    async def respond(request: Request, image: npt.NDArray[np.uint8], wish: Wish) -> Response:
        client = client_of(request)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JSONResponse(await while_there(request.receive, service.answer(image, wish, client)))
        service.device.check_room(client)
        return StreamingResponse(service.stream(image, wish, client), media_type="text/event-stream")

    @app.post("/v1/segment", responses=answers | refusals, summary="Find what a query names in a picture")
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
        pixels = await service.read(image, client_of(request))
        return await respond(request, pixels, Wish(query, variant, deadline_ms, mask, energy))

    @app.post("/v1/frames", status_code=201, responses=refusals, summary="Keep a picture for several queries")
    async def keep(
        request: Request, image: Annotated[bytes, File(description="As for /v1/segment.")]
    ) -> dict[str, Any]:
        """Keep a picture; a further query on it costs its own words only."""
        pixels = await service.read(image, client_of(request))
        height, width, _ = pixels.shape
        return {"frame": service.frames.add(pixels), "width": width, "height": height}

    @app.post(
        "/v1/frames/{frame}/segment", responses=answers | refusals | unknown, summary="Ask a picture that is kept"
    )
    async def ask(request: Request, frame: str, question: Question) -> Response:
        """Answer like /v1/segment."""
        pixels = service.frames.find(frame)
        if pixels is None:
            raise HTTPException(404, "this picture is not kept any more; send it again")
        return await respond(request, pixels, Wish(**question.model_dump()))

    @app.delete(
        "/v1/frames/{frame}", status_code=204, responses=unknown | {422: refusals[422]}, summary="Forget a picture"
    )
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

    @app.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)
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
        return refuse(status_of(error), str(error), headers)

    @app.exception_handler(HTTPException)
    async def translate(request: Request, error: HTTPException) -> Response:
        return refuse(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def point_out(request: Request, error: RequestValidationError) -> Response:
        return refuse(422, "; ".join(map(describe_fault, error.errors())))

    @app.exception_handler(Exception)  # which is raised again, and logged by the guard
    async def admit(request: Request, error: Exception) -> Response:
        return refuse(500, BUG)

    return Guard(app, service.limits, token, own_hosts if own_host_only else (), service.metrics.count_request)
