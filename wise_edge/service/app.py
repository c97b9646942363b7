"""The service's paths: images and queries in, masks out, the rationale as it is written.

FastAPI reads the types of the functions below when they are made, inside `make_app`, where it is imported: so this
module does without postponed annotations, and imports with the core alone.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from wise_edge import __version__
from wise_edge.errors import WiseEdgeError
from wise_edge.extras import require
from wise_edge.policy.prompts import MAX_QUERY_CHARACTERS, VARIANTS
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.runtimes.session import Session
from wise_edge.service.answering import MaskForm, SegmentRequest, Service, status_of, while_there
from wise_edge.service.guard import BUG, Guard
from wise_edge.service.limits import Limits
from wise_edge.service.pages import read_page, render_reference
from wise_edge.service.query_queue import BusyError

_LONGEST_DEADLINE_MS = 600_000
_ENERGY = "Read the device's power sensor meanwhile, which takes up to half a second more; the answer has energy_j."
_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; media-src 'self' blob:"


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
        session: answers queries; nobody else should use its device.
        limits: of clients; None takes the defaults.
        token: that clients show; None asks for none.
        own_hosts: answer requests by these names only, and no pages of other sites; as a URL has them, in small letters
            and without a port, such as `wise_edge.service.guard.OWN_HOSTS`. Empty answers all.
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
        description="An image and a sentence in, a mask out.",
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
        400: {"model": Failure, "description": "The image or the query cannot be used."},
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
    unknown: dict[int | str, dict[str, Any]] = {404: {"model": Failure, "description": "The image is not kept."}}

    def refuse(status: int, line: str, headers: Mapping[str, str] | None = None) -> Response:
        # In ASCII: a line may quote half a character, which UTF-8 cannot write.
        return Response(json.dumps({"error": line}), status, headers, "application/json")

    async def respond(request: Request, image: npt.NDArray[np.uint8], asked: SegmentRequest) -> Response:
        client = client_of(request)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JSONResponse(await while_there(request.receive, service.answer(image, asked, client)))
        service.queue.check_room(client)
        return StreamingResponse(service.stream(image, asked, client), media_type="text/event-stream")

    @app.post("/v1/segment", responses=answers | refusals, summary="Find what a query names in an image")
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
        return await respond(request, pixels, SegmentRequest(query, variant, deadline_ms, mask, energy))

    @app.post("/v1/frames", status_code=201, responses=refusals, summary="Keep an image for several queries")
    async def keep(
        request: Request, image: Annotated[bytes, File(description="As for /v1/segment.")]
    ) -> dict[str, Any]:
        """Keep an image; a further query on it costs its own words only."""
        pixels = await service.read(image, client_of(request))
        height, width, _ = pixels.shape
        return {"frame": service.images.add(pixels), "width": width, "height": height}

    @app.post("/v1/frames/{frame}/segment", responses=answers | refusals | unknown, summary="Ask an image that is kept")
    async def ask(request: Request, frame: str, question: Question) -> Response:
        """Answer like /v1/segment."""
        pixels = service.images.find(frame)
        if pixels is None:
            raise HTTPException(404, "this image is not kept any more; send it again")
        return await respond(request, pixels, SegmentRequest(**question.model_dump()))

    @app.delete(
        "/v1/frames/{frame}", status_code=204, responses=unknown | {422: refusals[422]}, summary="Forget an image"
    )
    async def forget(frame: str) -> Response:
        if not service.images.remove(frame):
            raise HTTPException(404, "this image is not kept")
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

    return Guard(app, service.limits, token, own_hosts, service.metrics.count_request)


def describe_fault(fault: Mapping[str, Any]) -> str:
    """Return what pydantic found wrong with a request as "field: reason", without the value."""
    if fault["type"] == "json_invalid":
        return f"the body is no JSON: {fault['ctx']['error']}"
    field = ".".join(map(str, fault["loc"][1:]))
    return f"{field or 'the body'}: {fault['msg']}"


def client_of(request: Any) -> str:
    """Return the address that a request came from."""
    return request.client.host if request.client else ""
