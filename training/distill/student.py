"""The two models of a distillation: the teacher as it is, and a MobileSAM with the teacher's decoder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.errors import UsageError
from wise_edge.sam.checkpoint import load_segmenter
from wise_edge.sam.mobile_sam import PATCH_SIZE, MobileSamArchitecture, build_mobile_sam
from wise_edge.sam.spec import SamSpec
from wise_edge.training.distill.config import DistillConfig
from wise_edge.training.sam.segmenters import read_padded_spec


def teacher_path(config: DistillConfig) -> Path:
    """Return the file or folder of the recipe's teacher."""
    return resolve_checkpoint(config.teacher, "sam")


def read_teacher_spec(config: DistillConfig) -> SamSpec:
    """Return the teacher's spec; raises `UsageError` if it cannot be read, or has another mask decoder than SAM's."""
    return read_padded_spec(config.teacher, "teacher")


def load_teacher(config: DistillConfig) -> Any:
    """Load the recipe's teacher: a model with `image_encoder`, `prompt_encoder` and `mask_decoder`, all frozen."""
    read_teacher_spec(config)
    return load_segmenter(teacher_path(config)).eval().requires_grad_(False)


def design_student(config: DistillConfig, teacher: Any, spec: SamSpec) -> MobileSamArchitecture:
    """Return the architecture of a student with the teacher's embedding and decoder, and the recipe's encoder."""
    decoder, prompts = teacher.mask_decoder.transformer, teacher.prompt_encoder
    return MobileSamArchitecture(
        **asdict(config.model),
        input_size=spec.low_res_size // 4 * PATCH_SIZE,
        prompt_dim=decoder.embedding_dim,
        decoder_depth=decoder.depth,
        decoder_heads=decoder.num_heads,
        decoder_mlp_dim=decoder.mlp_dim,
        mask_input_channels=prompts.mask_downscaling[3].out_channels,
        multimask=spec.multimask,
    )


def build_student(architecture: MobileSamArchitecture, teacher: Any) -> Any:
    """Build a student in training mode; its prompt encoder and mask decoder are the teacher's, frozen."""
    student = build_mobile_sam(architecture)
    for name in ("prompt_encoder", "mask_decoder"):
        part = getattr(student, name)
        part.load_state_dict(getattr(teacher, name).state_dict())
        part.requires_grad_(False)
    return student.train()


def describe_student(architecture: MobileSamArchitecture) -> SamSpec:
    """Return what a runtime must know about a student."""
    return SamSpec.describe("mobile_sam", architecture, multimask=architecture.multimask)


def choose_device(config: DistillConfig) -> torch.device:
    """Return the recipe's device; raises UsageError for a GPU that is not there."""
    found = torch.cuda.is_available()
    if config.device == "cuda" and not found:
        raise UsageError("device: torch finds no GPU; set device=cpu, or install a torch with CUDA")
    return torch.device("cuda" if found and config.device != "cpu" else "cpu")
