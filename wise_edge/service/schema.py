"""What goes over the wire, for the OpenAPI document: the fields of requests, answers and failures.

Texts of an answer's fields are those of the docstrings of `wise_edge.runtimes.results`.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wise_edge.outputs.saving import Kind
from wise_edge.policy.picture import MOST_BUDGET
from wise_edge.policy.prompts import MAX_QUERY_CHARACTERS
from wise_edge.runtimes import objects, results
from wise_edge.runtimes.deadline import DeadlineChoice
from wise_edge.runtimes.results import BackendChoice, Latencies, Status, TokenCounts
from wise_edge.service.answering import MaskForm
from wise_edge.service.fields import FORM, JSON, MULTIPART

LONGEST_DEADLINE_MS = 600_000


@dataclass(frozen=True)
class Mask:
    """A mask as COCO's compressed run lengths, which `pycocotools.mask.decode` reads.

    Attributes:
        size: height and width in pixels.
        counts: runs down the columns, compressed.
    """

    size: tuple[int, int]
    counts: str


@dataclass(frozen=True)
class Object:
    """An object that was found.

    Attributes:
        mask_px: pixels of its mask.
        mask_reason: why the mask has no pixel; null if it has one.
        mask: as requested: run lengths, a PNG in base64, or null.
    """

    number: int
    box: tuple[int, int, int, int]
    points: list[tuple[int, int]]
    label: str | None
    score: float | None
    mask_px: int
    mask_reason: str | None
    mask: Mask | str | None


@dataclass(frozen=True)
class Answer:
    """The answer to a query, with the masks of all objects and of each one.

    Attributes:
        version: of this layout.
        notes: what to know about the answer, in sentences for people; mostly empty.
        mask_px: pixels of all masks together.
        mask: of all objects, as requested: run lengths, a PNG in base64, or null.
        answer_valid: whether an answer could be read.
    """

    version: int
    status: Status
    notes: list[str]
    query: str
    variant: str
    rationale: str | None
    text: str
    objects: list[Object]
    box: tuple[int, int, int, int] | None
    points: list[tuple[int, int]] | None
    score: float | None
    mask: Mask | str | None
    mask_px: int | None
    mask_reason: str | None
    reason: str | None
    answer_valid: bool
    repairs: list[str]
    image_size: tuple[int, int]
    tokens: TokenCounts
    latency_ms: Latencies
    energy_j: dict[str, float] | None
    energy_reason: str | None
    energy_source: str | None
    backends: dict[str, BackendChoice]
    frame_reused: bool
    pixels: int | None
    deadline: DeadlineChoice | None


@dataclass(frozen=True)
class Stored:
    """A stored image.

    Attributes:
        frame: its name in `/v1/frames/{frame}`, which cannot be guessed.
        width: in pixels, turned upright.
        height: in pixels, turned upright.
    """

    frame: str
    width: int
    height: int


@dataclass(frozen=True)
class Failure:
    """Why a request failed.

    Attributes:
        error: what is wrong and what to do, in one line.
    """

    error: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": text}
    for status, text in (
        (400, "The image or the query cannot be used."),
        (401, "The token is missing or wrong."),
        (403, "The request names another host, or comes from a page of another site."),
        (408, "The body arrived too slowly."),
        (413, "The body is too large."),
        (415, "The body is neither a form nor JSON."),
        (422, "A field is missing, unknown or has an invalid value."),
        (429, "Too many queries or bodies; Retry-After says when to retry."),
        (500, "The engine or the service failed."),
        (503, "The query took too long, or the device cannot run it."),
    )
}
STORED: dict[int | str, dict[str, Any]] = {
    201: {
        "model": Stored,
        "description": "The image is stored.",
        "links": {
            call: {"operationId": call, "parameters": {"frame": "$response.body#/frame"}}
            for call in ("segment_stored", "delete_image")
        },
    }
}
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Failure, "description": "The image is not stored."}}
STREAM = (
    'event: text\ndata: {"delta": "<think>The only small"}\n\n'
    'event: result\ndata: {"version": 3, "status": "found", ...}\n\n'
)
MEDIA_TYPES: dict[Kind, str] = {
    "json": JSON,
    "coco": JSON,
    "outlines": "image/svg+xml",
    "overlay": "image/png",
    "mask": "image/png",
    "cutout": "image/png",
}
NOTES_HEADER = "wise-edge-notes"
"""Of an answer that is a file, with the notes that JSON has."""
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Answer,
        "description": "The answer, a stream of events that ends with it, or the file that `output` names.",
        "content": {
            JSON: {},
            "text/event-stream": {"schema": {"type": "string"}, "example": STREAM},
            **{kind: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values() if kind != JSON},
        },
    }
}


def request_models(variants: Collection[str], default: str) -> tuple[type[Any], type[Any], type[Any]]:
    """Return the pydantic models of a query, of an image, and of a query with an image; they refuse unknown fields.

    Args:
        variants: the policy's.
        default: the one that a query without a variant takes.
    """
    from pydantic import BaseModel, Field

    Variant = Literal[tuple(variants)]  # type: ignore[valid-type]

    class Query(BaseModel, extra="forbid"):
        query: str = Field(max_length=MAX_QUERY_CHARACTERS, description="What to find.")
        variant: Variant | None = Field(None, description=f"Prompt variant; {default} by default.")  # type: ignore[valid-type]
        deadline_ms: float | None = Field(
            None,
            gt=0,
            le=LONGEST_DEADLINE_MS,
            description="Choose the variant by this deadline instead, and pixels where the bundle records evaluations.",
        )
        pixels: int | None = Field(
            None, ge=1, le=MOST_BUDGET, description="Most pixels of the image as the policy sees it; fewer is faster."
        )
        mask: MaskForm = Field(
            "rle",
            description="Masks as COCO's compressed run lengths, as PNGs in base64 (of all: 255 in object 1, 254 in "
            "object 2), or none.",
        )
        energy: bool = Field(
            False,
            description="Read the device's power sensor during the query, which adds up to half a second; the answer "
            "has energy_j.",
        )
        output: Kind = Field(
            "json",
            description="What to return: the answer as JSON, or a file: a COCO document, outlines as SVG, or a PNG "
            "of the image with the objects drawn on it, of their masks, or of the objects cut out.",
        )

    class Picture(BaseModel, extra="forbid"):
        image: bytes = Field(description="PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or AVIF; a file, in JSON base64.")

    class PictureQuery(Query, Picture):
        pass

    return Query, Picture, PictureQuery


def describe_body(model: type[Any], example: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI description of a body, which is a form or JSON.

    Args:
        model: from `request_models`.
        example: values of its fields but the image.
    """
    schema = model.model_json_schema()
    schema.pop("title")
    contents = {}
    for kind in (MULTIPART, JSON) if "image" in schema["properties"] else (JSON, FORM, MULTIPART):
        own = copy.deepcopy(schema)
        if image := own["properties"].get("image"):
            del image["format"]
            image |= {"contentEncoding": "base64"} if kind == JSON else {"contentMediaType": "application/octet-stream"}
        contents[kind] = {"schema": own, "example": dict(example)}
    return {"required": True, "content": contents}


def describe_fields(schemas: Mapping[str, dict[str, Any]]) -> None:
    """Move the texts under "Attributes:" of the schemas' descriptions to their properties, in place."""
    properties = {name: about.__doc__ for name, about in vars(results.Findings).items() if about.__doc__}
    shared = {
        "Answer": properties | _attributes(results.SegmentationResult.__doc__),
        "Object": _attributes(objects.SegmentedObject.__doc__),
    }
    for name, schema in schemas.items():
        attributes = shared.get(name, {}) | _attributes(schema.get("description"))
        schema["description"] = schema.get("description", "").partition("\n\nAttributes:")[0]
        for key, about in schema.get("properties", {}).items():
            about.pop("title", None)
            if key in attributes:
                text = re.sub(r"\bNone\b", "null", " ".join(attributes[key].split()))
                about.setdefault("description", text)


def _attributes(docstring: str | None) -> dict[str, str]:
    _, _, listed = inspect.cleandoc(docstring or "").partition("Attributes:\n")
    return dict(re.findall(r"^    (\w+): ((?:.+\n?)(?:^ {8}.+\n?)*)", listed, re.MULTILINE))
