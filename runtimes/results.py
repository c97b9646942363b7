"""What a session returns for a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_image, describe
from wise_edge.errors import UsageError
from wise_edge.geometry import Box, Point, Size, unite
from wise_edge.rle import compressed_runs
from wise_edge.runtimes.deadline import DeadlineChoice
from wise_edge.runtimes.objects import HiddenObject, MaskCode, SegmentedObject, explain_empty
from wise_edge.runtimes.spans import PHASES, Span

if TYPE_CHECKING:
    from wise_edge.outputs.saving import Kind

Status = Literal["found", "nothing", "unreadable"]
"""Whether the policy named objects, answered that there is none, or wrote what is no answer."""
RESULT_VERSION = 3
"""Of results as JSON; docs/result.md has its history."""
_NOT_IN_JSON = ("spans", "image")
NOTHING = "nothing that matches the query was found"
HIDDEN = "what matches the query is hidden"


@dataclass(frozen=True)
class TokenCounts:
    """Where the policy's tokens went.

    Attributes:
        prompt: tokens of the complete prompt, including those of the image.
        image: tokens of the image.
        rationale: tokens of the text inside `<think>`, without the tags.
        answer: tokens of the text inside `<answer>`, without the tags.
        forced: tokens dictated by the answer's form, which the model was not asked for.
        decode_steps: runs of the language model after the prompt.
    """

    prompt: int
    image: int
    rationale: int
    answer: int
    forced: int
    decode_steps: int


@dataclass(frozen=True)
class BackendChoice:
    """Which backend runs a part, and why it was chosen.

    Attributes:
        name: the backend.
        reason: why it was chosen, and which ones did not start before it.
        rejected: why each backend that is preferred to it cannot run here.
    """

    name: str
    reason: str
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Latencies:
    """Clock readings of one query in ms; a phase that an earlier query on the same image paid for is 0.

    Attributes:
        preprocess: resizing, patches, normalizing, for policy and segmenter together.
        vision_encode: the policy's vision tower.
        prefill: the language model over the prompt.
        decode: writing the completion.
        mask_encode: the segmenter's image encoder, which may run while the policy writes.
        mask_decode: the segmenter's decoder and the upsampling.
        total: from the image to the mask, including what lies between the phases; phases that overlap count once.
    """

    preprocess: float
    vision_encode: float
    prefill: float
    decode: float
    mask_encode: float
    mask_decode: float
    total: float

    @classmethod
    def of(cls, spans: Iterable[Span], total_ms: float) -> Latencies:
        """Sum up the spans of each phase."""
        spent = dict.fromkeys(PHASES, 0.0)
        for span in spans:
            spent[span.phase] += span.ms
        return cls(**spent, total=total_ms)


class Findings:
    """What all kinds of results on an image say of their objects: of the first one, and of all together.

    Attributes:
        query: what was asked for.
        objects: what the query names; empty if that is nothing, and without an answer.
        reason: why there is no answer, None if there is one.
        image_size: (width, height) of the image in pixels.
        hidden: objects that are followed through a video with a memory and not visible here; else None.
    """

    query: str
    objects: tuple[SegmentedObject, ...]
    reason: str | None
    image_size: Size
    hidden: tuple[HiddenObject, ...] | None = None

    @property
    def image(self) -> npt.NDArray[np.uint8] | None:
        """The image, HWC uint8 RGB; None if the result does not hold it."""
        return None

    @property
    def status(self) -> Status:
        """Whether objects were found, the answer is that there is none, or it could not be read."""
        if self.reason is not None:
            return "unreadable"
        return "found" if self.objects else "nothing"

    @property
    def box(self) -> Box | None:
        """The first object's box; None without an object."""
        return self.objects[0].box if self.objects else None

    @property
    def points(self) -> tuple[Point, ...] | None:
        """The first object's points; None without an object."""
        return self.objects[0].points if self.objects else None

    @property
    def score(self) -> float | None:
        """The first object's score; None without an object, and without a pixel in its mask."""
        return self.objects[0].score if self.objects else None

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """The union of the objects' masks, bool [H, W] of the image; None without an answer."""
        if self.status == "unreadable":
            return None
        masks = [item.mask for item in self.objects]
        return masks[0] if len(masks) == 1 else unite(masks, self.image_size)

    @property
    def mask_reason(self) -> str | None:
        """Why the mask has no pixel; None if it has one, and without an answer."""
        if self.status == "nothing":
            return HIDDEN if self.hidden else NOTHING
        return explain_empty(self.mask)

    def mask_image(self) -> npt.NDArray[np.uint8]:
        """Return one image of all masks, uint8 [H, W]: 255 in object 1, 254 in object 2 and so on, 0 elsewhere.

        Where masks overlap, it is the object's with the lowest number. All 0 without an object.
        """
        width, height = self.image_size
        image = np.zeros((height, width), np.uint8)
        for item in self.objects:
            np.maximum(image, item.mask * np.uint8(item.level), out=image)
        return image

    def overlay(
        self,
        image: npt.NDArray[np.uint8] | None = None,
        *,
        boxes: bool = False,
        points: bool = False,
        labels: bool | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Draw the objects on a copy of the image: a contour and a light fill each, in no color that the query names.

        Args:
            image: HWC uint8 RGB; None takes the one that the result holds.
            boxes: draw the policy's boxes, too.
            points: draw the policy's points, too.
            labels: write labels and, of several objects, numbers; None writes them if there are several.

        Returns:
            HWC uint8 RGB of the image's size.

        Raises:
            UsageError: there is no image, or it has another size.
        """
        from wise_edge.outputs.pictures import draw_result

        return draw_result(self, self.require_image(image), boxes=boxes, points=points, labels=labels)

    def to_coco(self, file_name: str | Path = "image") -> dict[str, Any]:
        """Return a COCO document of this image alone; `wise_edge.outputs.coco.to_coco` makes one of several.

        Args:
            file_name: of the image, as the document's reader finds it.
        """
        from wise_edge.outputs.coco import to_coco

        return to_coco([(file_name, self)])

    def to_supervision(self) -> Any:
        """Return the objects as `supervision.Detections`, see `wise_edge.outputs.detections.to_supervision`.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        from wise_edge.outputs.detections import to_supervision

        return to_supervision(self)

    def require_image(self, image: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """Return an image that is given, or the one that the result holds, HWC uint8 RGB.

        Raises:
            UsageError: there is none, or it has another size than the result's.
        """
        found = self.image if image is None else image
        if found is None:
            raise UsageError("the result holds no image; pass the image that it is about")
        check_image(found)
        found = np.asarray(found)  # as of `read_picture`
        if (found.shape[1], found.shape[0]) != self.image_size:
            width, height = self.image_size
            raise UsageError(f"the result is about an image of {width} x {height}, got {describe(found)}")
        return found

    def _facts(self) -> dict[str, Any]:
        """Return JSON-ready data of what is not a field, without masks."""
        return {
            "version": RESULT_VERSION,
            "status": self.status,
            "objects": [item.to_facts() for item in self.objects],
            "box": self.box,
            "points": self.points,
            "score": self.score,
            "mask_px": None if self.mask is None else int(np.count_nonzero(self.mask)),
            "mask_reason": self.mask_reason,
        }


@dataclass(frozen=True)
class SegmentationResult(Findings):
    """Everything about one query on one image.

    Attributes:
        query: the query as the policy saw it.
        variant: the prompt variant.
        text: the policy's complete output.
        rationale: the text inside `<think>`, None if there is none.
        objects: what the query names, in the order in which the policy wrote it; empty if that is nothing, and without
            an answer.
        reason: why there is no answer, None if there is one.
        repairs: what the tolerant parser repaired, empty for a clean answer.
        image_size: (width, height) of the original image in pixels.
        tokens: token counts.
        latency_ms: clock readings of the phases.
        energy_j: energy of the complete query in J, as "total"; None if it was not measured.
        energy_reason: why `energy_j` is None.
        energy_source: what measured it, and what it covers; None if it was not measured.
        backends: for "policy" and "mask", the backend and why it was chosen.
        frame_reused: whether the image was known, so that its embeddings were reused.
        pixels: most pixels of the image as the policy saw it; None for as many as the bundle takes.
        deadline: what was chosen to meet a deadline; None without one.
        spans: when each phase of `latency_ms` ran; not part of `to_dict`.
        image: the image, HWC uint8 RGB, which the session does not copy again; 6 MB at 1920 x 1080. Not part of
            `to_dict`. Whoever keeps many results drops it: `dataclasses.replace(result, image=None)`.
    """

    query: str
    variant: str
    text: str
    rationale: str | None
    objects: tuple[SegmentedObject, ...]
    reason: str | None
    repairs: tuple[str, ...]
    image_size: Size
    tokens: TokenCounts
    latency_ms: Latencies
    energy_j: dict[str, float] | None
    energy_reason: str | None
    energy_source: str | None
    backends: Mapping[str, BackendChoice]
    frame_reused: bool
    pixels: int | None = None
    deadline: DeadlineChoice | None = None
    spans: tuple[Span, ...] = ()
    image: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @property
    def answer_valid(self) -> bool:
        """Whether an answer could be read; that nothing is there is one."""
        return self.status != "unreadable"

    def to_dict(self, code: MaskCode = compressed_runs) -> dict[str, Any]:
        """Return JSON-ready data.

        Args:
            code: makes a mask JSON-ready; by default as COCO's compressed run lengths.
        """
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in _NOT_IN_JSON}
        objects = [item.to_dict(code) for item in self.objects]
        union = objects[0]["mask"] if len(objects) == 1 else None if self.mask is None else code(self.mask)
        return (data | self._facts()) | {
            "answer_valid": self.answer_valid,
            "objects": objects,
            "mask": union,
            "tokens": asdict(self.tokens),
            "latency_ms": asdict(self.latency_ms),
            "deadline": None if self.deadline is None else asdict(self.deadline),
            "backends": {part: asdict(choice) for part, choice in self.backends.items()},
        }

    def save(
        self,
        path: str | Path,
        kind: Kind | None = None,
        *,
        image: npt.NDArray[np.uint8] | None = None,
        file_name: str | Path = "image",
        force: bool = False,
    ) -> None:
        """Write the result to a file, atomically.

        | kind | suffix | holds |
        | --- | --- | --- |
        | `overlay` | .png, .jpg | `overlay`; what a suffix of a picture means without a kind |
        | `mask` | .png | `mask_image` |
        | `cutout` | .png | the objects, cropped to them, transparent around them |
        | `outlines` | .svg | exact outlines, of the image's size and to be laid over it |
        | `json` | .json | `to_dict` |
        | `coco` | .json | `to_coco`; has to be named |

        Args:
            path: the file; its folder must exist.
            kind: what it holds; None goes by the suffix.
            image: as of `overlay`; for overlays and cut-outs alone.
            file_name: as of `to_coco`.
            force: replace an existing file.

        Raises:
            UsageError: the suffix does not fit, the file exists and `force` is off, there is no image, or, for a mask
                or cut-out, no answer.
            WiseEdgeError: the write failed.
        """
        from wise_edge.files.targets import check_target
        from wise_edge.files.writing import atomic_write
        from wise_edge.outputs.saving import encode_result, kind_of

        if not isinstance(path, str | Path):
            raise UsageError(f"path must be that of a file, got {describe(path)}")
        kind, path = kind_of(path, kind), Path(path)
        if path.exists() and not force:
            raise UsageError(f"{path} exists; force=True replaces it")
        check_target(path, force=force)
        atomic_write(path, encode_result(self, image, kind, path.suffix, file_name), force=force)
