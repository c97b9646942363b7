"""Segmenters on torch, through the classes of their own libraries: the reference that graphs are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.store import Bundle
from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.runtimes.backends import Backend
from wise_edge.runtimes.base import MaskBackend, MaskMemory, MaskOutput, MaskPrompt, RawMasks
from wise_edge.runtimes.checkpoints import find_checkpoint
from wise_edge.runtimes.mask.calls import NO_MEMORY, decode_together, most_together, split_prompts
from wise_edge.runtimes.mask.torch_memory import TorchMemory
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.families import PADDED, PADDED_HQ, STRETCHED, import_library
from wise_edge.sam.hq_sam import add_fine_mask, find_fine_features
from wise_edge.sam.video.checkpoint import load_video

_THRESHOLD = 0.0  # logits above it are mask


def open_mask(bundle: Bundle, row: Backend, **_: Any) -> MaskBackend[Any]:
    """Open the checkpoint of a bundle's segmenter; see `wise_edge.runtimes.backends.Support`."""
    return open_torch_mask(find_checkpoint(bundle, "mask"))


def open_torch_mask(checkpoint: Path) -> MaskBackend[Any]:
    """Open a checkpoint of any family, on a GPU if torch finds one.

    Args:
        checkpoint: what `read_sam_spec` reads.

    Raises:
        UsageError: it is none of them.
        MissingExtraError: torch or the family's library is not installed.
    """
    layouts: dict[str, Callable[[Path], MaskBackend[Any]]] = {
        PADDED: TorchSegmentAnything,
        PADDED_HQ: TorchHqSam,
        STRETCHED: TorchSam2,
    }
    return layouts[read_sam_spec(checkpoint).row.layout](checkpoint)


def _device() -> str:
    return "cuda" if require("torch", "export").cuda.is_available() else "cpu"


@dataclass(frozen=True)
class PredictorImage:
    """A predictor that holds an image's embedding; segment-anything does not time preprocessing separately."""

    predictor: Any
    preprocess_ms: float
    encode_ms: float


class TorchSegmentAnything:
    """Runs a checkpoint with its family's predictor, segment-anything's `SamPredictor` or a copy of it.

    Args:
        checkpoint: of a family with the layout `PADDED`.
    """

    name = "torch"

    def __init__(self, checkpoint: Path) -> None:
        self._torch = require("torch", "export")
        self.spec = read_sam_spec(checkpoint)
        module, _, name = self.spec.row.predictor.rpartition(".")
        self._predictor = getattr(import_library(module), name)
        device = _device()
        self._sam = load_segmenter(checkpoint).to(device)
        self._most = most_together(self.spec, on_gpu=device != "cpu")

    def encode(self, image: npt.NDArray[np.uint8]) -> PredictorImage:
        """Prepare an image (HWC uint8 RGB, any size) for prompts."""
        start = perf_counter()
        predictor = self._predictor(self._sam)
        predictor.set_image(np.require(image, requirements="W"))  # torch warns of arrays that cannot be written to
        return PredictorImage(predictor, 0.0, (perf_counter() - start) * 1e3)

    def decode(self, encoded: PredictorImage, prompt: MaskPrompt) -> MaskOutput:
        """Segment what a prompt marks; see `MaskBackend`."""
        return self.decode_many(encoded, [prompt])[0]

    def decode_many(self, encoded: PredictorImage, prompts: Sequence[MaskPrompt]) -> list[MaskOutput]:
        """Segment what each prompt marks; see `MaskBackend`."""
        return decode_together(prompts, partial(self._decode, encoded.predictor), self._most)

    def decode_raw(self, encoded: PredictorImage, prompts: Sequence[MaskPrompt], multimask: bool) -> Iterator[RawMasks]:
        """Yield what each call returns; see `MaskBackend`."""
        for call in split_prompts(prompts, self._most):
            yield _on_cpu(*self._run(encoded.predictor, call, multimask))

    def open_memory(self) -> MaskMemory[PredictorImage]:
        """Open an empty memory; see `MaskBackend`."""
        raise UsageError(NO_MEMORY)

    def _decode(self, predictor: Any, prompts: list[MaskPrompt]) -> list[MaskOutput]:
        start = perf_counter()
        raw = self._run(predictor, prompts, self.spec.multimask)
        return _best(*raw, partial(self._enlarge, predictor), start)

    def _run(self, predictor: Any, prompts: list[MaskPrompt], multimask: bool) -> tuple[Any, Any]:
        """Do what `predict_torch` does for prompts of one form, but do not upsample the masks."""
        sam = self._sam
        points = self._scale(predictor, [each.points for each in prompts]).reshape(len(prompts), -1, 2)
        with self._torch.no_grad():
            sparse, dense = sam.prompt_encoder(
                (points, self._torch.ones(points.shape[:2], device=points.device)) if points.numel() else None,
                None if (boxes := _corners(prompts)) is None else self._scale(predictor, boxes).reshape(-1, 4),
                _stack_previous(self._torch, prompts, points.device),
            )
            return self._predict(predictor, sparse, dense, multimask)

    def _predict(self, predictor: Any, sparse: Any, dense: Any, multimask: bool) -> tuple[Any, Any]:
        pe = self._sam.prompt_encoder.get_dense_pe()
        masks, scores = self._sam.mask_decoder(predictor.features, pe, sparse, dense, multimask_output=multimask)
        return masks, scores

    def _enlarge(self, predictor: Any, logits: Any) -> Any:
        return self._sam.postprocess_masks(logits, predictor.input_size, predictor.original_size)

    def _scale(self, predictor: Any, points: Any) -> Any:
        """Return points of the original image in the square of the prompts, float32 [..., 2]."""
        scaled = predictor.transform.apply_coords(np.array(points, np.float32).reshape(-1, 2), predictor.original_size)
        return self._torch.as_tensor(scaled, dtype=self._torch.float, device=predictor.device)


class TorchHqSam(TorchSegmentAnything):
    """Runs a checkpoint of the layout `PADDED_HQ` with segment-anything-hq's `SamPredictor`."""

    def _predict(self, predictor: Any, sparse: Any, dense: Any, multimask: bool) -> tuple[Any, Any]:
        fine = find_fine_features(self._sam, predictor.features, predictor.interm_features)
        pe = self._sam.prompt_encoder.get_dense_pe()
        masks, scores = self._sam.mask_decoder.predict_masks(predictor.features, pe, sparse, dense, fine)
        chosen = slice(1, None) if multimask else slice(1)
        return add_fine_mask(masks)[:, chosen], scores[:, chosen]


def _corners(prompts: list[MaskPrompt]) -> list[Any] | None:
    """Return the two corners of each prompt's box; None if prompts have none."""
    return [(each.box[:2], each.box[2:]) for each in prompts if each.box is not None] or None


def _on_cpu(masks: Any, scores: Any) -> RawMasks:
    return RawMasks(masks.cpu().numpy(), scores.cpu().numpy())


def _stack_previous(torch: Any, prompts: list[MaskPrompt], device: Any) -> Any:
    """Return the masks of prompts that have one, float32 [N, 1, L, L], or None."""
    previous = [each.previous for each in prompts if each.previous is not None]
    return torch.from_numpy(np.stack(previous)[:, None]).to(device) if previous else None


def _best(masks: Any, scores: Any, enlarge: Callable[[Any], Any], start_s: float) -> list[MaskOutput]:
    """Return each prompt's mask of the best score.

    Args:
        masks: logits float32 [N, M, L, L].
        scores: float32 [N, M].
        enlarge: logits [1, 1, L, L] to those of the original image; called for one mask at a time, which as float is
            four times as large as the result.
        start_s: when the call began.
    """
    best = scores.argmax(dim=1).tolist()  # waits for the GPU
    share_ms = (perf_counter() - start_s) * 1e3 / len(best)
    outputs: list[MaskOutput] = []
    for place, chosen in enumerate(best):
        start = perf_counter()
        logits = masks[place, chosen]
        mask = (enlarge(logits[None, None])[0, 0] > _THRESHOLD).cpu().numpy()
        score, low = float(scores[place, chosen]), logits.cpu().numpy()
        outputs.append(MaskOutput(mask, score, low, share_ms + (perf_counter() - start) * 1e3))
    return outputs


@dataclass(frozen=True)
class Sam2Image:
    """An image's features, and its (height, width)."""

    features: Any
    size: tuple[int, int]
    preprocess_ms: float
    encode_ms: float


class TorchSam2:
    """Runs a checkpoint with transformers' `Sam2Model` and its image processor.

    Args:
        checkpoint: of a family with the layout `STRETCHED`.
    """

    name = "torch"

    def __init__(self, checkpoint: Path) -> None:
        self.spec = spec = read_sam_spec(checkpoint)
        self._torch = require("torch", "export")
        self._device = _device()
        self._most = most_together(spec, on_gpu=self._device != "cpu")
        self._model = load_segmenter(checkpoint).to(self._device)
        self._checkpoint = checkpoint
        self._video: Any = None
        self._square = spec.input_size
        self._processor = require("transformers", "export").Sam2ImageProcessor(
            size={"height": spec.input_size, "width": spec.input_size},
            image_mean=[value / 255.0 for value in spec.pixel_mean],
            image_std=[value / 255.0 for value in spec.pixel_std],
        )

    def encode(self, image: npt.NDArray[np.uint8]) -> Sam2Image:
        """Prepare an image (HWC uint8 RGB, any size) for prompts."""
        start = perf_counter()
        image = image if image.flags.writeable else image.copy()  # torch warns of others
        pixels = self._processor(image, return_tensors="pt")["pixel_values"].to(self._device)
        prepared = perf_counter()
        features = self._model.get_image_embeddings(pixels)
        end = perf_counter()
        return Sam2Image(features, image.shape[:2], (prepared - start) * 1e3, (end - prepared) * 1e3)

    def decode(self, encoded: Sam2Image, prompt: MaskPrompt) -> MaskOutput:
        """Segment what a prompt marks; see `MaskBackend`."""
        return self.decode_many(encoded, [prompt])[0]

    def decode_many(self, encoded: Sam2Image, prompts: Sequence[MaskPrompt]) -> list[MaskOutput]:
        """Segment what each prompt marks; see `MaskBackend`."""
        return decode_together(prompts, partial(self._decode, encoded), self._most)

    def decode_raw(self, encoded: Sam2Image, prompts: Sequence[MaskPrompt], multimask: bool) -> Iterator[RawMasks]:
        """Yield what each call returns; see `MaskBackend`."""
        for call in split_prompts(prompts, self._most):
            yield _on_cpu(*self._run(encoded, call, multimask))

    def open_memory(self) -> MaskMemory[Sam2Image]:
        """Open an empty memory; see `MaskBackend`."""
        if self.spec.memory is None:
            raise UsageError(NO_MEMORY)
        if self._video is None:  # an image does not need its weights
            self._video = load_video(self._checkpoint).to(self._device)
            self._video.vision_encoder = self._model.vision_encoder  # the same weights, once in memory
        return TorchMemory(self, self._video, self.spec.memory)

    def label_points(self, encoded: Sam2Image, prompt: MaskPrompt) -> tuple[Any, Any]:
        """Return a prompt's points in the encoder's square, float32 [1, 1, N, 2], and labels, int32 [1, 1, N]."""
        corners = [] if prompt.box is None else [prompt.box[:2], prompt.box[2:]]
        labels = [1] * len(prompt.points) + [2, 3][: len(corners)]
        points = self._scale(encoded, [*prompt.points, *corners])[None, None]
        return points, self._torch.tensor([[labels]], dtype=self._torch.int32, device=self._device)

    def _decode(self, encoded: Sam2Image, prompts: list[MaskPrompt]) -> list[MaskOutput]:
        start = perf_counter()
        raw = self._run(encoded, prompts, self.spec.multimask)
        return _best(*raw, partial(self.enlarge, encoded), start)

    def _run(self, encoded: Sam2Image, prompts: list[MaskPrompt], multimask: bool) -> tuple[Any, Any]:
        """Decode prompts of one form: a batch of images, since one image takes one mask as prompt."""
        torch, count = self._torch, len(prompts)
        points = self._scale(encoded, [each.points for each in prompts]).reshape(count, 1, -1, 2)
        labels = torch.ones(points.shape[:3], dtype=torch.int32, device=self._device)
        boxes = _corners(prompts)
        with torch.no_grad():
            output = self._model(
                image_embeddings=[each.expand(count, -1, -1, -1) for each in encoded.features],
                input_points=points if points.numel() else None,
                input_labels=labels if points.numel() else None,
                input_boxes=None if boxes is None else self._scale(encoded, boxes).reshape(count, 1, 4),
                input_masks=_stack_previous(torch, prompts, self._device),
                multimask_output=multimask,
            )
        return output.pred_masks[:, 0], output.iou_scores[:, 0]

    def enlarge(self, encoded: Sam2Image, logits: Any) -> Any:
        """Return logits [1, 1, L, L] in the size of the original image."""
        return self._torch.nn.functional.interpolate(logits, encoded.size, mode="bilinear", align_corners=False)

    def _scale(self, encoded: Sam2Image, points: Any) -> Any:
        """Return points of the original image in the encoder's square, float32 [N, 2]."""
        scale = self._square / np.array(encoded.size[::-1], np.float64)
        coords = (np.array(points, np.float64).reshape(-1, 2) * scale).astype(np.float32)
        return self._torch.from_numpy(coords).to(self._device)
