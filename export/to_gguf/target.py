"""`--target gguf`: a policy for llama.cpp in a bundle, quantized on request and compared with torch."""

from __future__ import annotations

from pathlib import Path

from wise_edge.bundle.manifest import Artifact, Figure
from wise_edge.bundle.store import describe_file
from wise_edge.export.precisions import QUANTIZATION_TYPES
from wise_edge.export.progress import Progress
from wise_edge.export.source.policy import PolicyCheckpoint
from wise_edge.export.to_gguf.convert import PolicyGguf, read_config
from wise_edge.export.to_gguf.importance import measure_importance
from wise_edge.export.to_gguf.quantize import quantize_gguf
from wise_edge.export.to_gguf.verify import verify_gguf

TEXT_FILE, VISION_FILE = "policy.gguf", "policy.mmproj.gguf"
_ROLES = {TEXT_FILE: "policy.gguf", VISION_FILE: "policy.mmproj"}


def export_gguf(
    source: PolicyCheckpoint, out: Path, text: str, vision: str, importance: bool, progress: Progress
) -> list[Artifact]:
    """Write language model and vision tower into a bundle's folder.

    Args:
        source: the policy.
        out: the folder.
        text: type of the language model, one of `TEXT_TYPES`.
        vision: type of the vision tower, one of `VISION_TYPES`.
        importance: measure which columns matter, and round them more carefully.
        progress: called at each step.
    """
    policy = PolicyGguf(source.folder)
    matrix = None
    if importance and text in QUANTIZATION_TYPES and text != "Q8_0":  # Q8_0 ignores it
        config = read_config(source.folder)
        matrix = measure_importance(source.torch_reference, source.references, config, progress)
    for name, kind, write, columns in (
        (TEXT_FILE, text, policy.write_text, matrix),
        (VISION_FILE, vision, policy.write_vision, None),
    ):
        if kind not in QUANTIZATION_TYPES:
            write(out / name, kind, progress)
            continue
        lossless = out / f"{name}.lossless"
        write(lossless, policy.lossless_type, progress)
        progress(f"quantizing {name} to {kind}")
        quantize_gguf(lossless, out / name, kind, columns)
        lossless.unlink()
    return [
        describe_file(out, name, role, "gguf", kind)
        for (name, role), kind in zip(_ROLES.items(), (text, vision), strict=True)
    ]


def compare_gguf(source: PolicyCheckpoint, out: Path, text: str, vision: str, progress: Progress) -> list[Figure]:
    """Compare the files of `export_gguf` with torch."""
    progress("comparing the GGUF files with torch")
    context = max(answer.tokens for answer in source.references)
    return list(verify_gguf(source.references, out / TEXT_FILE, out / VISION_FILE, context, text, vision))
