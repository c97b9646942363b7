"""The service's endpoints: images and queries in, masks out, the rationale streamed while it is generated.

FastAPI is imported inside `make_app` and reads the annotations of the functions there when they are defined. So this
module does not postpone annotations, and it can be imported with the core package alone.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from wise_edge import __version__
from wise_edge.errors import WiseEdgeError
from wise_edge.extras import require
from wise_edge.files.documents import to_json
from wise_edge.mapping import suggestion
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.ranges import label
from wise_edge.runtimes.session import Session
from wise_edge.service import example, samples
from wise_edge.service.access_log import Log, Served
from wise_edge.service.answering import SegmentRequest, Service, status_of, while_connected
from wise_edge.service.fields import read_fields
from wise_edge.service.guard import BUG, Guard, client_of
from wise_edge.service.limits import Limits
from wise_edge.service.pages import content_policy, read_page
from wise_edge.service.query_queue import BusyError
from wise_edge.service.reference import render_reference
from wise_edge.service.schema import (
    ANSWERS,
    MEDIA_TYPES,
    NOTES_HEADER,
    REFUSALS,
    STORED,
    UNKNOWN,
    describe_body,
    describe_fields,
    request_models,
)

MOST_FAULTS = 5
QUERY_EXAMPLE = {"query": samples.QUERY}


def make_app(
    session: Session,
    limits: Limits | None = None,
    token: str | None = None,
    *,
    own_hosts: tuple[str, ...] = (),
    meter: QueryMeter | None = None,
    demo: bool = False,
    access_log: Log | None = None,
) -> Any:
    """Make the ASGI application.

    Args:
        session: answers queries; nothing else should use its device.
        limits: bounds on what clients may send; None takes the defaults.
        token: token that clients must send; None requires none.
        own_hosts: reject requests that name another host or come from a page of another site. Names are written as in a
            URL, in lower case and without a port, such as `wise_edge.service.guard.OWN_HOSTS`. Empty accepts all.
        meter: measures the energy of queries; None looks for a sensor on this machine.
        demo: the models are the shipped ones: the page opens with an example, and answers on pictures of another kind
            than theirs have a note.
        access_log: gets a line for each request; None writes none.

    Raises:
        UsageError: no client can send the token.
        MissingExtraError: a package of the extra "serve" is not installed.
    """
    require("fastapi", "serve")
    require("python_multipart", "serve")  # FastAPI imports it only when a form is declared
    from fastapi import FastAPI, Path, Request
    from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
    from pydantic import BaseModel, ValidationError
    from starlette.exceptions import HTTPException

    service = Service(session, limits or Limits(), meter or QueryMeter.find(session.on_gpu), demo)

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
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service

    Frame = Annotated[str, Path(description="Name of the stored image.")]
    Query, Picture, PictureQuery = request_models(session.policy.variants, session.policy.default_variant)

    def refuse(status: int, line: str, headers: Mapping[str, str] | None = None) -> Response:
        # ASCII, because a line may quote a lone surrogate, which UTF-8 cannot encode.
        return Response(to_json({"error": line}), status, headers, "application/json")

    def show(page: str) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": content_policy(page)})

    async def read(request: Request, model: type[BaseModel]) -> dict[str, Any]:
        fields = await read_fields(request, service.limits.question_bytes)
        try:
            return model.model_validate(fields).model_dump()
        except ValidationError as error:
            known = list(model.model_fields)
            faults = error.errors()[:MOST_FAULTS]
            raise HTTPException(422, "; ".join(describe_fault(fault, known) for fault in faults)) from None

    async def respond(request: Request, image: npt.NDArray[np.uint8], asked: SegmentRequest) -> Response:
        client = client_of(request.scope)
        streamed = "text/event-stream" in request.headers.get("accept", "")
        if asked.output != "json":
            if streamed:
                raise HTTPException(422, f"output: {asked.output} cannot be streamed; remove Accept or output")
            content = await while_connected(request.receive, service.write(image, asked, client))
            notes = " ".join(service.notes(image, asked.query))
            return Response(content, 200, {NOTES_HEADER: notes} if notes else None, MEDIA_TYPES[asked.output])
        if not streamed:
            return JSONResponse(await while_connected(request.receive, service.answer(image, asked, client)))
        service.queue.check_room(client)
        return StreamingResponse(service.stream(image, asked, client), media_type="text/event-stream")

    @app.get(
        example.PATH,
        summary="A picture to try queries on",
        response_class=Response,
        responses={200: {"description": "The picture.", "content": {"image/png": {}}}},
        openapi_extra=samples.extra(samples.EXAMPLE),
    )
    async def example_image() -> Response:
        return Response(example.example_png(), media_type="image/png")

    @app.post(
        "/v1/segment",
        responses=ANSWERS | REFUSALS,
        summary="Find what a query names in an image",
        openapi_extra=samples.extra(samples.SEGMENT) | {"requestBody": describe_body(PictureQuery, QUERY_EXAMPLE)},
    )
    async def segment(request: Request) -> Response:
        """Answer with JSON; with `Accept: text/event-stream`, stream the rationale while it is written."""
        asked = await read(request, PictureQuery)
        pixels = await service.read(asked.pop("image"), client_of(request.scope))
        return await respond(request, pixels, SegmentRequest(**asked))

    @app.post(
        "/v1/frames",
        status_code=201,
        responses=STORED | REFUSALS,
        summary="Store an image for several queries",
        openapi_extra=samples.extra(samples.STORE) | {"requestBody": describe_body(Picture, {})},
    )
    async def store_image(request: Request) -> dict[str, Any]:
        """Store an image; each further query on it costs only its own tokens."""
        sent = await read(request, Picture)
        pixels = await service.read(sent["image"], client_of(request.scope))
        height, width, _ = pixels.shape
        return {"frame": service.images.add(pixels), "width": width, "height": height}

    @app.post(
        "/v1/frames/{frame}/segment",
        responses=ANSWERS | REFUSALS | UNKNOWN,
        summary="Query a stored image",
        openapi_extra=samples.extra(samples.ASK) | {"requestBody": describe_body(Query, QUERY_EXAMPLE)},
    )
    async def segment_stored(request: Request, frame: Frame) -> Response:
        """Answer like /v1/segment."""
        asked = SegmentRequest(**await read(request, Query))
        pixels = service.images.find(frame)
        if pixels is None:
            raise HTTPException(404, "this image is no longer stored; upload it again")
        return await respond(request, pixels, asked)

    @app.delete(
        "/v1/frames/{frame}",
        status_code=204,
        responses=UNKNOWN | {422: REFUSALS[422]},
        summary="Delete a stored image",
        response_description="The image is deleted.",
        openapi_extra=samples.extra(samples.DELETE),
    )
    async def delete_image(frame: Frame) -> Response:
        if not service.images.remove(frame):
            raise HTTPException(404, "this image is not stored")
        return Response(status_code=204)

    @app.get(
        "/healthz",
        summary="Whether the process is alive",
        response_description="It is.",
        openapi_extra=samples.get("/healthz"),
    )
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        summary="Whether the service answers queries",
        response_description="It does.",
        responses={503: {"description": "It does not, or no longer."}},
        openapi_extra=samples.get("/readyz"),
    )
    async def readiness() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get(
        "/metrics",
        summary="Prometheus metrics",
        response_description="Requests, queries, phases and the queue.",
        response_class=PlainTextResponse,
        responses={401: REFUSALS[401]},
        openapi_extra=samples.get("/metrics"),
    )
    async def metrics() -> Response:
        text, kind = service.metrics.render()
        return Response(text, media_type=kind)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return show(read_page(session.policy.variants, session.policy.default_variant, demo))

    @app.get("/docs", include_in_schema=False)
    async def reference(request: Request) -> Response:
        return show(render_reference(app.openapi(), str(request.base_url).rstrip("/"), token is not None))

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = FastAPI.openapi(app)
            describe_fields(schema["components"]["schemas"])
        return app.openapi_schema or {}

    app.openapi = describe  # type: ignore[method-assign]

    @app.exception_handler(WiseEdgeError)
    async def explain(request: Request, error: WiseEdgeError) -> Response:
        headers = {"retry-after": str(error.retry_after_s)} if isinstance(error, BusyError) else None
        return refuse(status_of(error), str(error), headers)

    @app.exception_handler(HTTPException)
    async def translate(request: Request, error: HTTPException) -> Response:
        return refuse(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)  # raised again by Starlette, and logged by the guard
    async def admit(request: Request, error: Exception) -> Response:
        return refuse(500, BUG)

    def record(served: Served) -> None:
        service.metrics.count_request(served)
        if access_log is not None:
            access_log.add_request(served)

    return Guard(app, service.limits, token, own_hosts, record)


def describe_fault(fault: Mapping[str, Any], known: Sequence[str]) -> str:
    """Return what pydantic found wrong as "field: reason", without the value.

    Args:
        fault: an entry of `ValidationError.errors`.
        known: the fields there are.
    """
    field = ".".join(map(label, fault["loc"]))
    if fault["type"] != "extra_forbidden":
        return f"{field}: {fault['msg']}"
    return f"{field}: unknown field{suggestion(field, known) or '; there are ' + ', '.join(known)}"
