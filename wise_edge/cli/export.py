"""`wise-edge export`: two checkpoints in, one verified bundle out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wise_edge.cli.options import JsonOption

if TYPE_CHECKING:
    from wise_edge.bundle.manifest import Figure, Manifest
    from wise_edge.evaluation.agreement import Pair
    from wise_edge.export.pipeline import ExportOptions

MERGED = "hf"
"""The target that is no bundle: the policy's checkpoint with its adapter merged, for other converters."""


def export(
    policy: Annotated[str, typer.Option(metavar="CKPT", help="Hugging Face folder of the policy, or 'embedded'.")],
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Folder of the bundle to make.")],
    sam: Annotated[str | None, typer.Option(metavar="CKPT", help="Checkpoint of the segmenter, or 'embedded'.")] = None,
    adapter: Annotated[Path | None, typer.Option(metavar="DIR", help="LoRA adapter to merge into the policy.")] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="What to export to, separated by commas: onnx, gguf, tensorrt, edgellm; or hf alone."
        ),
    ] = "onnx",
    device: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="GPUs to build for: orin, thor, sm75, sm86, sm89, sm120, sm80, sm90, sm100 or this.",
        ),
    ] = "",
    quant: Annotated[
        str, typer.Option(metavar="TYPE", help="GGUF type of the language model: F32, F16, Q8_0, Q4_K_M, ...")
    ] = "F16",
    vision_quant: Annotated[
        str, typer.Option(metavar="TYPE", help="GGUF type of the vision tower: F32, F16, BF16 or Q8_0.")
    ] = "F16",
    onnx_precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Precision of the policy's ONNX graphs: fp32, fp16, bf16, fp8, or weights of int8 or int4.",
        ),
    ] = "fp32",
    sam_precision: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Precision of the segmenter: fp32, fp16, bf16, or fp8 or int8 for its encoder."
        ),
    ] = "fp32",
    edgellm_quant: Annotated[
        str,
        typer.Option(metavar="NAME", help="Language model of --target edgellm: fp16, fp8, int8_sq, int4_awq or nvfp4."),
    ] = "fp16",
    importance: Annotated[
        bool, typer.Option("--importance/--no-importance", help="Quantize columns that matter with more care.")
    ] = True,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images, each with queries in a .txt beside it; scenes where left out."),
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="How many images and queries to measure with.")] = 8,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Compare with torch before writing.")] = True,
    min_mask_iou: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="IOU", help="Mean IoU with torch's masks to reach; by default 0.99, for 8 bits 0.95."
        ),
    ] = None,
    as_json: JsonOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Export a policy and a segmenter, compare them with torch, and write a bundle if all agrees."""
    from wise_edge.cli.output.progress import ProgressLine
    from wise_edge.errors import UsageError
    from wise_edge.export.pipeline import ExportOptions, export_bundle, export_merged

    if target == MERGED:
        with ProgressLine() as progress:
            export_merged(policy, adapter, out, force=force, progress=progress)
        return
    if sam is None:
        raise UsageError("a bundle needs a segmenter; name its checkpoint with --sam, or 'embedded'")
    options = ExportOptions(
        targets=tuple(target.split(",")),
        device=device,
        quant=quant,
        vision_quant=vision_quant,
        onnx_precision=onnx_precision,
        sam_precision=sam_precision,
        edgellm_quant=edgellm_quant,
        importance=importance,
        verify=verify,
        samples=samples,
        calibration=calibration,
    )
    check = EndToEnd(sam, options, min_mask_iou, out)
    with ProgressLine() as progress:
        manifest = export_bundle(
            policy, sam, out, options, adapter=adapter, force=force, check=check.run, progress=progress
        )
    if as_json:
        typer.echo(json.dumps(manifest.to_dict()))
    else:
        _print(manifest, out)
    if "tensorrt" in options.targets:
        _tell_of_kit(manifest, device, out)


class EndToEnd:
    """Compares a bundle with its checkpoints by asking both, and draws the worst case where it fails."""

    def __init__(self, sam: str, options: ExportOptions, least: float | None, out: Path) -> None:
        self._sam = sam
        self._options = options
        self._least = least
        self._out = out

    def run(self, bundle: Path, policy: Path) -> list[Figure]:
        """Return the figures of each policy backend that the bundle has files for."""
        from wise_edge.bundle.store import load, resolve_checkpoint
        from wise_edge.evaluation import agreement
        from wise_edge.export.source.calibration import read_calibration
        from wise_edge.runtimes.backends import list_cpu_policies
        from wise_edge.runtimes.session import Session

        artifacts = load(bundle).manifest.artifacts
        least = self._least
        if least is None:
            least = agreement.least_mask_iou(artifact.precision for artifact in artifacts)
        reference = Session.from_checkpoints(policy, resolve_checkpoint(self._sam, "sam"))
        read = read_calibration(self._options.calibration, self._options.samples)
        samples = [(sample.name, sample.image, sample.query) for sample in read]
        figures = []
        for backend in list_cpu_policies(artifact.role for artifact in artifacts):
            session = Session.from_bundle(bundle, policy_backend=backend, mask_backend="onnx", verify_hashes=False)
            pairs = agreement.ask_both(reference, session, samples)
            judged = agreement.judge(backend, pairs, least)
            if not all(figure.passed for figure in judged):
                self._draw(agreement.worst(pairs))
            figures += judged
        return figures

    def _draw(self, pair: Pair) -> None:
        """Save torch's answer beside the bundle's; what is beside a bundle is no part of it."""
        import numpy as np

        from wise_edge.cli.output.result import result_caption, result_drawing
        from wise_edge.drawing.report import Cell, contact_sheet
        from wise_edge.images import save_png

        row = [
            Cell(result_drawing(result, pair.image), result_caption(result, (label,)))
            for label, result in (("torch", pair.expected), ("this export", pair.got))
        ]
        file = self._out.with_name(f"{self._out.name}.worst.png")
        title = f"mask IoU {pair.mask_iou:.2f} with torch: {pair.name}"
        save_png(np.asarray(contact_sheet("the least equal masks of a failed export", title, [row])), file, True)
        typer.echo(f"the least equal masks are drawn in {file}", err=True)


def _print(manifest: Manifest, out: Path) -> None:
    from rich.console import Console

    from wise_edge.cli.bundle import figures_table, files_table

    console = Console()
    console.print(f"bundle {out}", markup=False, highlight=False)
    console.print(files_table(manifest))
    if manifest.verified:
        console.print(figures_table(manifest))
    else:
        typer.echo("note: nothing was compared with torch (--no-verify)", err=True)


def _tell_of_kit(manifest: Manifest, device: str, out: Path) -> None:
    """Say what remains to be done on devices whose engines cannot be built here."""
    from wise_edge.bundle.devices import parse_gpu_kinds
    from wise_edge.bundle.roles import engine_role

    roles = {artifact.role for artifact in manifest.artifacts}
    targets = parse_gpu_kinds(device) if device != "this" else ()
    if left := [target.name for target in targets if engine_role("sam.decoder", target.engine_set) not in roles]:
        typer.echo(f"engines for {', '.join(left)} are built there: copy {out} and run wise-edge build {out}", err=True)
