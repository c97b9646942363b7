"""`--target edgellm`: a policy for NVIDIA's TensorRT Edge-LLM, quantized and checked here, built on the device.

The bundle holds a checkpoint, from which `tensorrt-edgellm-build` makes engines on a Jetson or a desktop GPU. Its
graphs are exported here only to check that every product is quantized as requested and that they compute what
transformers does.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from wise_edge.bundle.manifest import Artifact, Figure
from wise_edge.bundle.roles import EDGELLM_FOLDER
from wise_edge.bundle.store import describe_file
from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.export.progress import Progress
from wise_edge.export.source.policy import PolicyCheckpoint
from wise_edge.export.source.tensors import CheckpointTensors, has_own_head, is_tied
from wise_edge.export.to_edgellm import check as edgellm_check
from wise_edge.export.to_onnx.target import check_attention
from wise_edge.files.documents import to_json
from wise_edge.images import save_png
from wise_edge.native.process import module_command
from wise_edge.policy.architecture import load_config
from wise_edge.policy.image import fit_picture

FORMAT = "edgellm"
_BLOCK = 128  # input channels that share a scale in int4_awq
_LIMIT_S = 12 * 3600.0
"""Time after which a process of tensorrt-edgellm is ended; quantizing billions of weights on a CPU takes hours."""


def check_policy(source: PolicyCheckpoint, method: str) -> None:
    """Raise `UsageError` if attention, widths or head do not fit a method of `precisions.EDGELLM_METHODS`."""
    spec = source.spec
    check_attention(source.folder)
    config = load_config(source.folder).to_dict()
    if is_tied(config) and has_own_head(config, CheckpointTensors(source.folder)):
        raise UsageError(
            f"{source.folder} stores a head that differs from the embedding, to which its config ties it; Edge-LLM "
            "would leave it out. Set tie_word_embeddings to false in config.json, in text_config too"
        )
    if method == "int4_awq" and spec.hidden_size % _BLOCK:
        raise UsageError(f"int4_awq needs widths of multiples of {_BLOCK}, the policy is {spec.hidden_size} wide")


def export_edgellm(source: PolicyCheckpoint, out: Path, method: str, progress: Progress) -> Iterator[Artifact]:
    """Write the checkpoint that Edge-LLM builds from into a bundle's folder.

    Args:
        source: the policy.
        out: the folder.
        method: one of `precisions.EDGELLM_METHODS`.
        progress: called at each step.

    Raises:
        UsageError: the policy's widths or head do not fit.
        WiseEdgeError: tensorrt-edgellm failed.
    """
    check_policy(source, method)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".samples.") as scratch:
        _write_samples(source, Path(scratch))
        source.release()
        progress(f"bringing the policy to {method} with tensorrt-edgellm")
        arguments = [str(source.folder), str(out / EDGELLM_FOLDER), method, scratch]
        _run("wise_edge.export.to_edgellm.quantize", arguments, scratch)
    for file in sorted((out / EDGELLM_FOLDER).iterdir()):
        path = f"{EDGELLM_FOLDER}/{file.name}"
        yield describe_file(out, path, path, FORMAT, method if file.suffix == ".safetensors" else "")


def compare_edgellm(source: PolicyCheckpoint, out: Path, method: str, progress: Progress) -> list[Figure]:
    """Export the graphs that Edge-LLM would build from, and compare them with torch; see `edgellm_check`."""
    progress("comparing tensorrt-edgellm's graphs with torch")
    edgellm_check.check_template(source, out / EDGELLM_FOLDER)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".graphs.") as scratch:
        _run("tensorrt_edgellm.scripts.export", [str(out / EDGELLM_FOLDER), scratch], scratch)
        edgellm_check.check_operators(Path(scratch) / "llm" / "model.onnx", method)
        return list(edgellm_check.check_numbers(source, Path(scratch), method))


def _write_samples(source: PolicyCheckpoint, folder: Path) -> None:
    listed = []
    for number, sample in enumerate(source.samples):
        save_png(fit_picture(sample.image, source.spec), folder / f"{number}.png", True)
        words = "".join(source.spec.prompts.user_text(sample.query, source.spec.default_variant))
        listed.append((f"{number}.png", sample.query, f"{words}\n{source.answer_text(number)}"))
    (folder / "samples.json").write_text(to_json({"samples": listed}), encoding="utf-8")


def _run(module: str, arguments: list[str], scratch: str) -> None:
    try:
        done = subprocess.run(
            module_command(module, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            env={**os.environ, "TMPDIR": scratch},
        )
    except subprocess.TimeoutExpired:
        raise WiseEdgeError(f"tensorrt-edgellm did not end within {_LIMIT_S / 3600:g} h, and was ended") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise WiseEdgeError(f"tensorrt-edgellm failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
