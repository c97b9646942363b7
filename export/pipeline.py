"""From two checkpoints to a verified bundle: export every graph, compare it with torch, write all or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from wise_edge.bundle import SHIPPED, describe_file, hash_file, resolve_checkpoint, staging, write_manifest
from wise_edge.errors import UsageError
from wise_edge.export import policy_onnx, sam_onnx, verify
from wise_edge.export.to_onnx import DATA_SUFFIX, export_onnx
from wise_edge.extras import require
from wise_edge.manifest import Artefact, Figure, Manifest, PolicySpec, SamSpec
from wise_edge.policy_checkpoint import load_policy, read_policy_spec
from wise_edge.sam_model import SamArchitecture, load_sam, read_architecture

TARGETS = ("onnx",)

Progress = Callable[[str], None]


def export_bundle(policy: str, sam: str, target: Path, *, force: bool = False, progress: Progress) -> Manifest:
    """Export a policy and a segmenter as ONNX into a new bundle.

    Args:
        policy: Hugging Face folder of a Qwen2.5-VL policy with `prompts.json`, or "embedded".
        sam: checkpoint folder of `wise_edge.sam_model`, or "embedded".
        target: the bundle's directory.
        force: replace a bundle that is there.
        progress: told what is being done.

    Raises:
        UsageError: a checkpoint or the target does not fit.
        MissingExtraError: a package of the export extra is missing.
        VerificationError: a graph differs from its checkpoint; nothing is written.
    """
    for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "safetensors", "segment_anything"):
        require(package, "export")
    with staging(target, force=force) as folder:
        policy_folder, sam_folder = _open(policy, "policy"), _open(sam, "sam")
        policy_spec, policy_files, policy_figures = _export_policy(policy_folder, folder, progress)
        sam_spec, sam_files, sam_figures = _export_sam(sam_folder, folder, progress)
        figures = (*policy_figures, *sam_figures)
        verify.check_figures(figures)
        manifest = Manifest(
            name=target.resolve().name,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            policy=policy_spec,
            sam=sam_spec,
            artefacts=(*policy_files, *sam_files),
            verified=True,
            verification=figures,
            provenance=_provenance(policy, policy_folder, "policy") | _provenance(sam, sam_folder, "sam") | _tools(),
        )
        write_manifest(folder, manifest)
    return manifest


def _open(name: str, part: str) -> Path:
    folder = resolve_checkpoint(name, part)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name a checkpoint for --{part}, or 'embedded'")
    return folder


def _export_policy(folder: Path, out: Path, progress: Progress) -> tuple[PolicySpec, list[Artefact], list[Figure]]:
    progress("loading the policy")
    spec = read_policy_spec(folder)
    model = load_policy(folder)
    progress("exporting the policy's vision tower")
    vision = _export_vision(model, spec, out / "policy.vision.onnx")
    progress("exporting the policy's language model")
    decoder = _export_decoder(model, spec, out / "policy.decoder.onnx")
    table = policy_onnx.embedding_table(model)
    np.save(out / "policy.embedding.npy", table)
    shutil.copyfile(folder / "tokenizer.json", out / "policy.tokenizer.json")
    progress("comparing the policy's graphs with torch")
    figures = [
        *verify.verify_policy(model, spec, out / "policy.vision.onnx", out / "policy.decoder.onnx"),
        verify.verify_embedding(model, table),
    ]
    artefacts = [
        *_describe_graph(out, "policy.vision", vision),
        *_describe_graph(out, "policy.decoder", decoder),
        describe_file(out, "policy.embedding.npy", "policy.embedding", "npy", f"fp{table.dtype.itemsize * 8}"),
        describe_file(out, "policy.tokenizer.json", "policy.tokenizer", "tokenizer.json"),
    ]
    return spec, artefacts, figures


def _describe_graph(out: Path, role: str, precision: str) -> Iterator[Artefact]:
    """Yield the entry of a graph named after its role and, where its weights lie in a file of their own, of that."""
    name = f"{role}.onnx"
    yield describe_file(out, name, role, "onnx", precision)
    if (out / (name + DATA_SUFFIX)).exists():
        yield describe_file(out, name + DATA_SUFFIX, f"{role}.data", "onnx-data", precision)


def _export_vision(model: Any, spec: PolicySpec, file: Path) -> str:
    torch = require("torch", "export")
    side = spec.input_size // spec.patch_size
    patches = torch.zeros(side * side, 3 * spec.temporal_patch_size * spec.patch_size**2)
    module = policy_onnx.build_vision(model.model.visual, side)
    return export_onnx(module, (patches,), ["pixel_values"], ["image_embeds"], file)


def _export_decoder(model: Any, spec: PolicySpec, file: Path) -> str:
    torch = require("torch", "export")
    length, past_length = 4, 3  # any that differ from 0 and 1, which torch.export would take for constants
    past = tuple(
        torch.zeros(1, spec.num_kv_heads, past_length, spec.head_dim)
        for _ in policy_onnx.cache_names("past", spec.num_layers)
    )
    embeds = torch.zeros(1, length, spec.hidden_size)
    positions = torch.zeros(3, 1, length, dtype=torch.int64)
    tokens, before = (torch.export.Dim(name, min=2, max=spec.max_positions) for name in ("tokens", "past"))
    return export_onnx(
        policy_onnx.build_decoder(model),
        (embeds, positions, past),
        ["inputs_embeds", "position_ids", *policy_onnx.cache_names("past", spec.num_layers)],
        ["logits", *policy_onnx.cache_names("present", spec.num_layers)],
        file,
        dynamic=({1: tokens}, {2: tokens}, tuple({2: before} for _ in past)),
    )


def _export_sam(folder: Path, out: Path, progress: Progress) -> tuple[SamSpec, list[Artefact], list[Figure]]:
    torch = require("torch", "export")
    progress("loading the segmenter")
    architecture = read_architecture(folder)
    sam = load_sam(folder)
    side = architecture.input_size
    spec = SamSpec("segment_anything", side, architecture.pixel_mean, architecture.pixel_std)
    progress("exporting the segmenter's image encoder")
    image = torch.zeros(1, 3, side, side)
    encoder_file = out / "sam.encoder.onnx"
    encoder = export_onnx(sam.image_encoder, (image,), ["image"], ["image_embeddings"], encoder_file)
    progress("exporting the segmenter's mask decoder")
    decoder_file = out / "sam.decoder.onnx"
    decoder = _export_mask_decoder(sam, architecture, decoder_file)
    progress("comparing the segmenter's graphs with torch")
    figures = list(verify.verify_sam(sam, spec, encoder_file, decoder_file))
    artefacts = [
        *_describe_graph(out, "sam.encoder", encoder),
        *_describe_graph(out, "sam.decoder", decoder),
    ]
    return spec, artefacts, figures


def _export_mask_decoder(sam: Any, architecture: SamArchitecture, file: Path) -> str:
    torch = require("torch", "export")
    embeddings = torch.zeros(1, architecture.prompt_dim, architecture.grid, architecture.grid)
    coords, labels = torch.zeros(1, 4, 2), torch.tensor([[1.0, 1.0, 2.0, 3.0]])
    points = torch.export.Dim("points", min=2, max=64)
    return export_onnx(
        sam_onnx.build_decoder(sam),
        (embeddings, coords, labels),
        ["image_embeddings", "point_coords", "point_labels"],
        ["low_res_masks", "iou_predictions"],
        file,
        dynamic=({}, {1: points}, {1: points}),
    )


def _provenance(name: str, folder: Path, part: str) -> dict[str, str]:
    return {
        part: name if name in SHIPPED else str(folder.resolve()),
        **{f"{part}_{file.name}_sha256": hash_file(file) for file in _weights(folder)},
    }


def _weights(folder: Path) -> Iterable[Path]:
    return sorted(folder.glob("*.safetensors"))


def _tools() -> dict[str, str]:
    return {package: version(package) for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")}
