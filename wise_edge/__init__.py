"""Image and sentence in, mask out: concise reasoning segmentation on edge devices.

    from wise_edge import Session, load_image

The package holds what the stages share: the prompt, the answer, geometry, metrics, the bundle and the errors. The
stages are sub-packages (`training`, `export`, `runtimes`) that meet only in files and never import one another.
Importing the package imports no other one: its public names are imported when they are first used.
"""

from __future__ import annotations

import os

# Nothing here reports its use. Two libraries do by default: ONNX Runtime from 1.32 on keeps a device id, sends events
# (https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md), TRL reports each trainer through huggingface_hub
# (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables). They read these when they are
# imported, by whomever.
for _switch in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_switch, "1")  # a user's own setting wins, 0 too

TYPE_CHECKING = False  # type checkers take it for typing's, which would be one more import
if TYPE_CHECKING:
    from wise_edge.bundle.store import load as load_bundle
    from wise_edge.images import load_image
    from wise_edge.outputs.coco import to_coco
    from wise_edge.runtimes.base import Decoding, MaskPrompt
    from wise_edge.runtimes.mask.grid import GridOptions
    from wise_edge.runtimes.results import SegmentationResult
    from wise_edge.runtimes.segmenter import Segmenter
    from wise_edge.runtimes.session import Session
    from wise_edge.runtimes.tracking import Stamped
    from wise_edge.video.opening import open_video

__version__ = "0.1.0"
__all__ = [
    "Decoding",
    "GridOptions",
    "MaskPrompt",
    "SegmentationResult",
    "Segmenter",
    "Session",
    "Stamped",
    "load_bundle",
    "load_image",
    "open_video",
    "to_coco",
]

_HOMES = {
    "Decoding": ("wise_edge.runtimes.base", "Decoding"),
    "GridOptions": ("wise_edge.runtimes.mask.grid", "GridOptions"),
    "MaskPrompt": ("wise_edge.runtimes.base", "MaskPrompt"),
    "SegmentationResult": ("wise_edge.runtimes.results", "SegmentationResult"),
    "Segmenter": ("wise_edge.runtimes.segmenter", "Segmenter"),
    "Session": ("wise_edge.runtimes.session", "Session"),
    "Stamped": ("wise_edge.runtimes.tracking", "Stamped"),
    "load_bundle": ("wise_edge.bundle.store", "load"),
    "load_image": ("wise_edge.images", "load_image"),
    "open_video": ("wise_edge.video.opening", "open_video"),
    "to_coco": ("wise_edge.outputs.coco", "to_coco"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    value: object = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
