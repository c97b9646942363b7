"""The table of segmenters' families: recognition, export, runtimes and plans read every family from here.

A new family is one row in `FAMILIES` and the module that the row names, a `FamilyModule`. A family whose graphs have
inputs and outputs of their own also needs a layout: a class in `export/to_onnx/` and one in `runtimes/mask/`. The
table itself imports nothing heavy.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

from wise_edge.extras import check_packages, require
from wise_edge.sam.names import VIDEO_PARTS
from wise_edge.sam.video.names import VIDEO_MODEL_PARTS

if TYPE_CHECKING:
    from wise_edge.sam.spec import SamSpec

PADDED, PADDED_HQ, STRETCHED = "segment_anything", "hq_sam", "sam2"
"""The layouts, named after their first families. `PADDED`: the encoder gives `image_embeddings`; images keep their
proportions and are padded to the square. `PADDED_HQ`: the same with an early feature beside it. `STRETCHED`: two finer
features beside it, and images are stretched to the square."""
OWN, AUTHORS, TRANSFORMERS = "own", "authors'", "transformers'"
"""The forms of a checkpoint: a folder of this project with its architecture in config.json; the names of the authors'
code; those of transformers."""
LIBRARIES = {
    "segment_anything": "export",
    "transformers": "export",
    "mobile_sam": "segmenters",
    "efficientsam": "segmenters",
    "segment_anything_hq": "segmenters",
    "timm": "segmenters",
}
"""Import names of the packages with torch's classes, and the extra that installs each."""
_REGISTERING = ("mobile_sam", "segment_anything_hq")
"""Those that register TinyViT in timm by the names of timm's own models."""

_SAM_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
_SAM_MODEL_PARTS = ("vision_encoder.", "prompt_encoder.", "mask_decoder.")
_SAM2_PARTS = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed", *VIDEO_PARTS)
_SAM2_MODEL_PARTS = (*_SAM_MODEL_PARTS, "no_memory_embedding", *VIDEO_MODEL_PARTS)


@dataclass(frozen=True)
class Form:
    """A form of a family's checkpoints.

    Attributes:
        kind: `OWN`, `AUTHORS` or `TRANSFORMERS`.
        types: what the model_type in the config.json of such a folder can be.
        sign: pattern of a tensor's name by which a file is known, which no later row's tensors match; None for folders
            alone.
        parts: how the names of all tensors begin; empty if the module judges them.
    """

    kind: str
    types: tuple[str, ...] = ()
    sign: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A family of segmenters.

    Attributes:
        name: what bundle.json says.
        title: what people call it.
        layout: `PADDED`, `PADDED_HQ` or `STRETCHED`: which classes export and run it.
        module: the `FamilyModule`.
        libraries: import names of the packages that its torch classes need, of `LIBRARIES`.
        forms: how its checkpoints are found.
        predictor: for the padded layouts, the class that torch's images and prompts go through.
    """

    name: str
    title: str
    layout: str
    module: str
    libraries: tuple[str, ...]
    forms: tuple[Form, ...]
    predictor: str = "segment_anything.SamPredictor"

    def open(self) -> FamilyModule:
        """Import its module."""
        return cast(FamilyModule, importlib.import_module(self.module))

    def check_packages(self) -> None:
        """Raise `MissingExtraError` that names the first missing one of its libraries."""
        for library in self.libraries:
            check_packages(LIBRARIES[library], library)


class FamilyModule(Protocol):
    """What a family's module offers; `checkpoint` is a file or folder that `kinds.find_kind` gave to the family."""

    def read_spec(self, checkpoint: Path) -> SamSpec:
        """Return what a runtime must know; raises `UsageError` for damage, `MissingExtraError` without torch."""
        ...

    def load(self, checkpoint: Path) -> Any:
        """Return the library's model, a `torch.nn.Module`, float32 on the CPU in evaluation mode; raises the same."""
        ...

    def count_largest(self, checkpoint: Path) -> int:
        """Return how many numbers the encoder's largest array has, as a rule of attention; plans memory."""
        ...


FAMILIES: tuple[Family, ...] = (
    Family(
        "hq_sam",
        "HQ-SAM",
        PADDED_HQ,
        "wise_edge.sam.hq_sam",
        ("segment_anything_hq", "timm"),
        (
            Form(AUTHORS, (), r"^mask_decoder\.(hf_|compress_vit_feat)", _SAM_PARTS),
            Form(TRANSFORMERS, ("sam_hq",), r"^mask_decoder\.(hq_|compress_vit_)", _SAM_MODEL_PARTS),
        ),
        "segment_anything_hq.SamPredictor",
    ),
    Family(
        "sam3_tracker",
        "SAM 3",
        STRETCHED,
        "wise_edge.sam.sam3_tracker",
        ("transformers",),
        (
            Form(AUTHORS, (), r"(^|\.)(detector|tracker)\."),
            Form(
                TRANSFORMERS,
                ("sam3_tracker", "sam3_tracker_video", "sam3_video"),
                r"(^|\.)(detector_model|tracker_model)\.|^vision_encoder\.backbone\.embeddings\.",
            ),
        ),
    ),
    Family(
        "edgetam",
        "EdgeTAM",
        STRETCHED,
        "wise_edge.sam.edgetam",
        ("transformers", "timm"),
        (
            Form(AUTHORS, (), r"^image_encoder\.trunk\.body\."),
            Form(TRANSFORMERS, ("edgetam", "edgetam_video"), r"timm_model|spatial_perceiver"),
        ),
    ),
    Family(
        "mobile_sam",
        "MobileSAM",
        PADDED,
        "wise_edge.sam.mobile_sam",
        ("segment_anything", "mobile_sam", "timm"),
        (
            Form(OWN, ("mobile_sam",)),
            Form(AUTHORS, (), r"^image_encoder\.patch_embed\.seq\.", _SAM_PARTS),
        ),
    ),
    Family(
        "efficientvit_sam",
        "EfficientViT-SAM",
        PADDED,
        "wise_edge.sam.efficientvit_sam",
        ("segment_anything", "efficientsam"),
        (Form(AUTHORS, (), r"^image_encoder\.backbone\.", _SAM_PARTS),),
        "efficientsam.models.efficientvit.sam.EfficientViTSamPredictor",
    ),
    Family(
        "sam2",
        "SAM 2",
        STRETCHED,
        "wise_edge.sam.sam2",
        ("transformers",),
        (
            Form(AUTHORS, (), r"^(image_encoder\.trunk|sam_mask_decoder)\.", _SAM2_PARTS),
            Form(TRANSFORMERS, ("sam2", "sam2_video"), r"^vision_encoder\.backbone\.", _SAM2_MODEL_PARTS),
        ),
    ),
    Family(
        "segment_anything",
        "SAM",
        PADDED,
        "wise_edge.sam.segment_anything",
        ("segment_anything",),
        (
            Form(OWN, ("segment_anything",)),
            Form(TRANSFORMERS, ("sam",), r"^vision_encoder\.", _SAM_MODEL_PARTS),
            Form(AUTHORS, (), r"^image_encoder\.(patch_embed|blocks)\.", _SAM_PARTS),
        ),
    ),
)
"""Every family. A file belongs to the first whose sign one of its tensors' names matches."""


def find_family(name: str) -> Family:
    """Return the row of a name; raises ValueError that names all others."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise ValueError(f"choose one of {', '.join(family.name for family in FAMILIES)}; it is {name[:80]!r}")


def list_forms() -> Iterator[tuple[Family, Form]]:
    """Yield every form of every family, in the order of recognition."""
    for family in FAMILIES:
        for form in family.forms:
            yield family, form


def describe_supported() -> str:
    """Return what can be passed, for a message."""
    *titles, last = [family.title for family in reversed(FAMILIES)]
    return f"supported are {', '.join(titles)} and {last}, as their authors' files or as transformers' folders"


def import_library(module: str) -> ModuleType:
    """Import a module of one of the `LIBRARIES` without side effects: no warnings, and timm's models stay timm's.

    Args:
        module: import name, possibly dotted.

    Raises:
        MissingExtraError: it is not installed.
    """
    library = module.partition(".")[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Importing from timm", FutureWarning)  # places that timm has given up
        if library not in _REGISTERING or library in sys.modules:
            return require(module, LIBRARIES[library])
        registry = require("timm.models.registry", LIBRARIES["timm"])
        register, registry.register_model = registry.register_model, lambda build: build  # type: ignore[attr-defined]
        try:
            return require(module, LIBRARIES[library])
        finally:
            registry.register_model = register  # type: ignore[attr-defined]
