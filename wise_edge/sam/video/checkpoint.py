"""The memory in a segmenter's checkpoint: what it holds, and transformers' video models with its weights.

Source of what no tensor says: https://github.com/facebookresearch/sam2/tree/main/sam2/configs/sam2.1, and the defaults
of transformers' `Sam2VideoConfig` and `EdgeTamVideoConfig`, which are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wise_edge.arguments import describe, is_count
from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import read_json
from wise_edge.mapping import from_mapping
from wise_edge.native.pretrained import load_pretrained
from wise_edge.native.weight_files import check_finite
from wise_edge.sam.kinds import find_kind
from wise_edge.sam.sam2 import build
from wise_edge.sam.video.memory import PROMPTED_FRAMES, MemorySpec
from wise_edge.sam.video.names import to_video_model
from wise_edge.sam.weights import read_weights

_TYPES = {"sam2_video": "Sam2Video", "edgetam_video": "EdgeTamVideo"}
"""The model_type of folders with a memory, and how transformers' names for them begin."""
FAMILIES = ("sam2", "edgetam")
"""Those whose video models are read."""
_DEFAULTS: dict[str, Any] = {
    "num_maskmem": 7,
    "max_cond_frame_num": -1,
    "max_object_pointers_in_encoder": 16,
    "multimask_output_in_sam": True,
    "multimask_output_for_tracking": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
}
"""Entries of a config that is silent about them."""


def read_memory(checkpoint: Path) -> MemorySpec | None:
    """Return how much a checkpoint of SAM 2 or its kin remembers; None if it is for images alone.

    Args:
        checkpoint: a folder with config.json, or a file.

    Raises:
        UsageError: an entry is malformed, or the weights cannot be read.
    """
    if checkpoint.is_dir():
        config = read_json(checkpoint / "config.json")
        kind = _TYPES.get(str(config.get("model_type")))
        return _describe(config, kind, f"{checkpoint / 'config.json'}: ") if kind else None
    memory = to_video_model(read_weights(checkpoint))
    if not any(name.startswith("memory_attention.") for name in memory):
        return None
    frames = memory.get("memory_temporal_positional_encoding")
    found = {} if frames is None else {"num_maskmem": len(frames)}
    return _describe(found, _kind_of(memory), f"{checkpoint}: ")


def load_video(checkpoint: Path) -> Any:
    """Load a checkpoint in which `read_memory` finds a memory.

    Returns:
        transformers' `Sam2VideoModel` or `EdgeTamVideoModel`, float32 with eager attention, on the CPU, in evaluation
        mode.

    Raises:
        UsageError: weights are missing, not finite or do not fit; the message names the first.
        MissingExtraError: torch or transformers is not installed.
    """
    torch = require("torch", "export")
    if checkpoint.is_dir():
        kind = _TYPES[str(read_json(checkpoint / "config.json")["model_type"])]
        model = load_pretrained(f"{kind}Model", checkpoint, dtype=torch.float32, attention="eager")
    else:
        model = _load_file(checkpoint)
    check_finite(checkpoint, dict(model.named_parameters()))
    grid = model.backbone_feature_sizes[-1]
    if (rotary := [*model.config.memory_attention_rope_feat_sizes]) != [*grid]:
        raise UsageError(
            f"{checkpoint}: memory_attention_rope_feat_sizes is {rotary}, and the image's features are {[*grid]}; the "
            "two must agree"
        )
    return model


def _load_file(file: Path) -> Any:
    """Put the memory of a file beside the image part that its family loads."""
    transformers = require("transformers", "export")
    image = find_kind(file).family.open().load(file)
    memory = to_video_model(read_weights(file))
    kind = _kind_of(memory)
    config = getattr(transformers, f"{kind}Config")(
        vision_config=image.config.vision_config,
        num_maskmem=len(memory["memory_temporal_positional_encoding"]),
        enable_occlusion_spatial_embedding="occlusion_spatial_embedding_parameter" in memory,
        enable_temporal_pos_encoding_for_object_pointers=any(
            name.startswith("temporal_positional_encoding_projection_layer.") for name in memory
        ),
    )
    return build(f"{kind}Model", config, {**image.state_dict(), **memory}, file, "video model")


def _kind_of(memory: Mapping[str, Any]) -> str:
    return _TYPES["edgetam_video" if any(name.startswith("spatial_perceiver.") for name in memory) else "sam2_video"]


def _describe(config: Mapping[str, Any], kind: str, where: str) -> MemorySpec | None:
    found = {name: config.get(name, value) for name, value in _DEFAULTS.items()}
    frames, pointers, prompted = (
        found[name] for name in ("num_maskmem", "max_object_pointers_in_encoder", "max_cond_frame_num")
    )
    if frames == 0:
        return None
    if not is_count(frames) or not is_count(pointers):
        raise UsageError(
            f"{where}num_maskmem is {describe(frames)} and max_object_pointers_in_encoder {describe(pointers)}"
        )
    in_sam = bool(found["multimask_output_in_sam"])
    least, most = found["multimask_min_pt_num"], found["multimask_max_pt_num"]
    entries = {
        "recent_frames": frames - 1,
        "prompted_frames": prompted if is_count(prompted) else PROMPTED_FRAMES,
        "recent_pointers": pointers - 1,
        "bfloat16": kind == "Sam2Video",  # EdgeTAM's perceiver returns float32
        "multimask_points": [least, most] if in_sam else [1, 0],
        "multimask_following": in_sam and bool(found["multimask_output_for_tracking"]) and least == 0,
    }
    return from_mapping(MemorySpec, entries, where)
