"""The service's endpoints: images and queries in, masks out, the rationale streamed while it is generated.

FastAPI is imported inside `make_app` and reads the annotations of the functions there when they are defined. So this
module does not postpone annotations, and it can be imported with the core package alone.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from wise_edge import __version__
from wise_edge.errors import WiseEdgeError
from wise_edge.extras import require
from wise_edge.files.documents import to_json
from wise_edge.policy.prompts import MAX_QUERY_CHARACTERS
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.runtimes.session import Session
from wise_edge.service.answering import MaskForm, SegmentRequest, Service, status_of, while_connected
from wise_edge.service.guard import BUG, Guard, client_of
from wise_edge.service.limits import Limits
from wise_edge.service.pages import content_policy, read_page, render_reference
from wise_edge.service.query_queue import BusyError

_LONGEST_DEADLINE_MS = 600_000
_DEADLINE = "Choose the variant by this deadline instead."
_MASK = "Masks as COCO compressed run lengths, as base64 PNGs (of all: 255 in object 1, 254 in object 2), or none."
_ENERGY = "Read the device's power sensor during the query, which adds up to half a second; the answer has energy_j."


def make_app(
    session: Session,
    limits: Limits | None = None,
    token: str | None = None,
    *,
    own_hosts: tuple[str, ...] = (),
    meter: QueryMeter | None = None,
) -> Any:
    """Make the ASGI application.

    Args:
        session: answers queries; nothing else should use its device.
        limits: bounds on what clients may send; None takes the defaults.
        token: token that clients must send; None requires none.
        own_hosts: reject requests that name another host or come from a page of another site. Names are written as in a
            URL, in lower case and without a port, such as `wise_edge.service.guard.OWN_HOSTS`. Empty accepts all.
        meter: measures the energy of queries; None looks for a sensor on this machine.

    Raises:
        UsageError: no client can send the token.
        MissingExtraError: a package of the extra "serve" is not installed.
    """
    require("fastapi", "serve")
    require("python_multipart", "serve")  # FastAPI imports it only when a form is declared
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
        description="Send an image and a sentence, get a mask.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service

    Variant = Literal[tuple(session.policy.variants)]  # type: ignore[valid-type]

    class Question(BaseModel):
        query: str = Field(max_length=MAX_QUERY_CHARACTERS, description="What to find.")
        variant: Variant | None = Field(None, description="Prompt variant.")  # type: ignore[valid-type]
        deadline_ms: float | None = Field(None, gt=0, le=_LONGEST_DEADLINE_MS, description=_DEADLINE)
        mask: MaskForm = Field("rle", description=_MASK)
        energy: bool = Field(False, description=_ENERGY)

    class Failure(BaseModel):
        error: str

    refusals: dict[int | str, dict[str, Any]] = {
        400: {"model": Failure, "description": "The image or the query cannot be used."},
        401: {"model": Failure, "description": "The token is missing or wrong."},
        403: {"model": Failure, "description": "The request names another host, or comes from a page of another site."},
        408: {"model": Failure, "description": "The body arrived too slowly."},
        413: {"model": Failure, "description": "The body is too large."},
        422: {"model": Failure, "description": "A field is missing or has an invalid value."},
        429: {"model": Failure, "description": "Too many queries or bodies; Retry-After says when to retry."},
        500: {"model": Failure, "description": "The engine or the service failed."},
        503: {"model": Failure, "description": "The query took too long, or the device cannot run it."},
    }
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "The answer.", "content": {"application/json": {}, "text/event-stream": {}}}
    }
    unknown: dict[int | str, dict[str, Any]] = {404: {"model": Failure, "description": "The image is not stored."}}

    def refuse(status: int, line: str, headers: Mapping[str, str] | None = None) -> Response:
        # ASCII, because a line may quote a lone surrogate, which UTF-8 cannot encode.
        return Response(to_json({"error": line}), status, headers, "application/json")

    def show(page: str) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": content_policy(page)})

    async def respond(request: Request, image: npt.NDArray[np.uint8], asked: SegmentRequest) -> Response:
        client = client_of(request.scope)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JSONResponse(await while_connected(request.receive, service.answer(image, asked, client)))
        service.queue.check_room(client)
        return StreamingResponse(service.stream(image, asked, client), media_type="text/event-stream")

    @app.post("/v1/segment", responses=answers | refusals, summary="Find what a query names in an image")
    async def segment(
        request: Request,
        image: Annotated[bytes, File(description="PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or AVIF.")],
        query: Annotated[str, Form(max_length=MAX_QUERY_CHARACTERS, description="What to find.")],
        variant: Annotated[Variant | None, Form(description="Prompt variant.")] = None,  # type: ignore[valid-type]
        deadline_ms: Annotated[
            float | None,
            Form(gt=0, le=_LONGEST_DEADLINE_MS, description=_DEADLINE),
        ] = None,
        mask: Annotated[MaskForm, Form(description=_MASK)] = "rle",
        energy: Annotated[bool, Form(description=_ENERGY)] = False,
    ) -> Response:
        """Answer with JSON; with `Accept: text/event-stream`, stream the rationale while it is generated."""
        pixels = await service.read(image, client_of(request.scope))
        return await respond(request, pixels, SegmentRequest(query, variant, deadline_ms, mask, energy))

    @app.post("/v1/frames", status_code=201, responses=refusals, summary="Store an image for several queries")
    async def keep(
        request: Request, image: Annotated[bytes, File(description="As for /v1/segment.")]
    ) -> dict[str, Any]:
        """Store an image; each further query on it costs only its own tokens."""
        pixels = await service.read(image, client_of(request.scope))
        height, width, _ = pixels.shape
        return {"frame": service.images.add(pixels), "width": width, "height": height}

    @app.post("/v1/frames/{frame}/segment", responses=answers | refusals | unknown, summary="Query a stored image")
    async def ask(request: Request, frame: str, question: Question) -> Response:
        """Answer like /v1/segment."""
        pixels = service.images.find(frame)
        if pixels is None:
            raise HTTPException(404, "this image is no longer stored; upload it again")
        return await respond(request, pixels, SegmentRequest(**question.model_dump()))

    @app.delete(
        "/v1/frames/{frame}", status_code=204, responses=unknown | {422: refusals[422]}, summary="Delete a stored image"
    )
    async def forget(frame: str) -> Response:
        if not service.images.remove(frame):
            raise HTTPException(404, "this image is not stored")
        return Response(status_code=204)

    @app.get("/healthz", summary="Whether the process is alive")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether the service answers queries")
    async def readiness() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        text, kind = service.metrics.render()
        return Response(text, media_type=kind)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return show(read_page(session.policy.variants, session.policy.default_variant))

    @app.get("/docs", include_in_schema=False)
    async def reference() -> Response:
        return show(render_reference(app.openapi()))

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

    @app.exception_handler(Exception)  # raised again by Starlette, and logged by the guard
    async def admit(request: Request, error: Exception) -> Response:
        return refuse(500, BUG)

    return Guard(app, service.limits, token, own_hosts, service.metrics.count_request)


def describe_fault(fault: Mapping[str, Any]) -> str:
    """Return what pydantic found wrong as "field: reason", without the value."""
    if fault["type"] == "json_invalid":
        return f"the body is not valid JSON: {fault['ctx']['error']}"
    field = ".".join(map(str, fault["loc"][1:]))
    return f"{field or 'the body'}: {fault['msg']}"
