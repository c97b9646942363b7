"""`wise-edge export`: two checkpoints in, one verified bundle out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.bundle.devices import GPU_KINDS, THIS
from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.export.precisions import EDGELLM_METHODS, ONNX_PRECISIONS, SAM_PRECISIONS, TEXT_TYPES, VISION_TYPES
from wise_edge.export.targets import MERGED, describe_targets
from wise_edge.files.documents import to_json
from wise_edge.policy.answers.form import FORMS

if TYPE_CHECKING:
    from wise_edge.bundle.manifest import Figure, Manifest
    from wise_edge.evaluation.agreement import Pair
    from wise_edge.export.options import ExportOptions
    from wise_edge.export.source.calibration import CalibrationSample


_READ_BY_MERGED = ("policy", "out", "sam", "adapter", "target", "verify", "as_json", "force")
"""What `--target hf` reads, and the segmenter, which belongs to the model without being written."""


_FORM, _PRECISION, _CHECK = "How the policy reads and answers", "Target and precision", "Comparison"


def _choice(text: str, names: Iterable[str], metavar: str = "NAME") -> Any:
    return option(metavar, f"{text}: {', '.join(names)}.", panel=_PRECISION)


def export(
    context: typer.Context,
    policy: Annotated[
        str, option("CKPT", "Hugging Face folder of the policy, verl's shards, or 'embedded'.", panel=options.ASKED)
    ],
    out: Annotated[Path, option("DIR", "Folder of the bundle to write.", panel=options.OUTPUT)],
    sam: Annotated[
        str | None,
        option(
            "CKPT",
            "Checkpoint of the segmenter, or the name of a shipped one, such as 'embedded'.",
            panel=options.ASKED,
        ),
    ] = None,
    adapter: Annotated[
        Path | None, option("DIR", "LoRA adapter to merge into the policy.", panel=options.ASKED)
    ] = None,
    target: Annotated[str, option("NAME,...", describe_targets(), panel=_PRECISION)] = "onnx",
    device: Annotated[str, _choice("GPUs to build for", [*(kind.name for kind in GPU_KINDS), THIS], "NAME,...")] = "",
    quant: Annotated[str, _choice("GGUF type of the language model", TEXT_TYPES, "TYPE")] = "F16",
    vision_quant: Annotated[str, _choice("GGUF type of the vision tower", VISION_TYPES, "TYPE")] = "F16",
    onnx_precision: Annotated[
        str, _choice("Precision of the policy's ONNX graphs (int8 and int4 are for weights)", ONNX_PRECISIONS)
    ] = "fp32",
    sam_precision: Annotated[
        str, _choice("Precision of the segmenter (fp8 and int8 are for its encoder)", SAM_PRECISIONS)
    ] = "fp32",
    edgellm_quant: Annotated[str, _choice("Quantization of edgellm's language model", EDGELLM_METHODS)] = "fp16",
    importance: Annotated[
        bool,
        options.flag(
            "--importance/--no-importance", "Weight columns by an importance matrix when quantizing.", panel=_PRECISION
        ),
    ] = True,
    calibration: Annotated[
        Path | None,
        option(
            "DIR",
            "Folder of images, each with its queries in a .txt file of the same name; scenes if omitted.",
            panel=_CHECK,
        ),
    ] = None,
    samples: Annotated[
        int, option("N", "Number of images and queries to calibrate and compare with.", panel=_CHECK)
    ] = 8,
    form: Annotated[
        str | None,
        option("NAME|FILE", f"How the policy writes its answers: {', '.join(FORMS)}, or a JSON file.", panel=_FORM),
    ] = None,
    coordinates: Annotated[
        str | None,
        option("UNIT", "Unit of coordinates in answers: pixels or per-mille; add ,yx if rows come first.", panel=_FORM),
    ] = None,
    picture: Annotated[
        str | None,
        option("HOW", "How images are resized: square[:SIDE] or aspect[:LEAST-MOST], in pixels.", panel=_FORM),
    ] = None,
    pixels: Annotated[
        int | None, option("N", "Most pixels of an image as the policy sees it; fewer is faster.", panel=_FORM, min=1)
    ] = None,
    grids: Annotated[
        str | None,
        option(
            "COLSxROWS,...",
            "Grids of image tokens to make graphs for; those of common aspect ratios if omitted.",
            panel=_FORM,
        ),
    ] = None,
    verify: Annotated[
        bool, options.flag("--verify/--no-verify", "Compare with torch before writing.", panel=_CHECK)
    ] = True,
    min_mask_iou: Annotated[
        float | None,
        option(
            "IOU", "Required mean IoU with torch's masks; 0.99 if omitted, 0.95 for 8 bits.", panel=_CHECK, min=0, max=1
        ),
    ] = None,
    as_json: options.Json = False,
    force: Annotated[bool, options.flag("--force", "Replace an existing bundle.", panel=options.OUTPUT)] = False,
) -> None:
    """Export a policy and a segmenter, compare them with torch, and write a bundle if they agree."""
    from wise_edge.extras import check_python

    check_python("export")
    from wise_edge.bundle.store import read_bundle
    from wise_edge.cli.output.progress import ProgressLine
    from wise_edge.errors import UsageError
    from wise_edge.export.options import ExportOptions
    from wise_edge.export.pipeline import export_bundle, export_merged

    names = options.split_names("--target", "target", target)
    if MERGED in names:
        if len(names) > 1:
            raise UsageError(f"--target {MERGED} writes no bundle; export to the other targets with another command")
        options.refuse_options(context, but=_READ_BY_MERGED, command=f"export --target {MERGED}")
        with ProgressLine() as progress:
            export_merged(policy, adapter, out, verify=verify, force=force, progress=progress)
        typer.echo(to_json({"checkpoint": str(out)}) if as_json else f"checkpoint {out}")
        return
    if sam is None:
        raise UsageError("a bundle needs a segmenter; pass its checkpoint with --sam, or --sam embedded")
    wanted = ExportOptions(
        targets=tuple(names),
        device=device,
        quant=quant,
        vision_quant=vision_quant,
        onnx_precision=onnx_precision,
        sam_precision=sam_precision,
        edgellm_quant=edgellm_quant,
        importance=importance,
        samples=samples,
        calibration=calibration,
        coordinates=coordinates,
        form=form,
        picture=picture,
        pixels=pixels,
        grids=grids,
    )
    check = EndToEnd(sam, out, min_mask_iou) if verify else None
    with ProgressLine() as progress:
        manifest = export_bundle(
            policy, sam, out, wanted, adapter=adapter, force=force, verify=check, progress=progress
        )
    sha256 = read_bundle(out).sha256
    if as_json:
        typer.echo(to_json(manifest.to_dict() | {"sha256": sha256}))
    else:
        _print(manifest, sha256, out)
    if wanted.fp16_arithmetic:
        _name_missing_engines(manifest, wanted, out)


class EndToEnd:
    """Compares a bundle with its checkpoints in complete queries, and draws the worst case if they differ.

    Args:
        sam: the segmenter's checkpoint, or one of the names that ship.
        out: the bundle's final place; the drawing is saved next to it.
        min_mask_iou: the mean IoU of masks to reach; None derives it from the bundle's precisions.
    """

    def __init__(self, sam: str, out: Path, min_mask_iou: float | None = None) -> None:
        self._sam = sam
        self._out = out
        self._min_mask_iou = min_mask_iou

    def __call__(self, bundle: Path, policy: Path, samples: Sequence[CalibrationSample]) -> list[Figure]:
        """Return the figures of each policy backend that runs the bundle on a CPU; see `QueryCheck`."""
        from wise_edge.bundle.store import load, resolve_checkpoint
        from wise_edge.evaluation import agreement
        from wise_edge.runtimes.backends import list_cpu_policies
        from wise_edge.runtimes.session import Session

        manifest = load(bundle).manifest
        artifacts = manifest.artifacts
        bound = self._min_mask_iou
        if bound is None:
            bound = agreement.least_mask_iou(artifact.precision for artifact in artifacts)
        reference = Session.from_checkpoints(policy, resolve_checkpoint(self._sam, "sam"), spec=manifest.policy)
        asked = [(sample.name, sample.image, sample.query) for sample in samples]
        figures = []
        for backend in list_cpu_policies(artifact.role for artifact in artifacts):
            session = Session.from_bundle(bundle, policy_backend=backend, mask_backend="onnx", verify_hashes=False)
            pairs = agreement.ask_both(reference, session, asked)
            judged = agreement.judge(backend, pairs, bound)
            if not all(figure.passed for figure in judged):
                self._draw(agreement.worst(pairs))
            figures += judged
        return figures

    def _draw(self, pair: Pair) -> None:
        """Save torch's answer side by side with the bundle's; the file is no part of the bundle."""
        import numpy as np

        from wise_edge.cli.output.result import result_caption, result_drawing
        from wise_edge.drawing.report import Cell, contact_sheet
        from wise_edge.errors import WiseEdgeError
        from wise_edge.images import save_png

        row = [
            Cell(result_drawing(result, pair.image), result_caption(result, (label,)))
            for label, result in (("torch", pair.expected), ("this export", pair.got))
        ]
        file = self._out.with_name(f"{self._out.name}.worst.png")
        title = f"mask IoU {pair.mask_iou:.2f} with torch: {pair.name}"
        sheet = np.asarray(contact_sheet("the masks that differ most in a failed export", title, [row]))
        try:
            save_png(sheet, file, force=True)
        except WiseEdgeError as error:  # what was compared matters more than the drawing
            options.note(f"the masks that differ most are not drawn: {error}")
        else:
            typer.echo(f"the masks that differ most are drawn in {file}", err=True)


def _print(manifest: Manifest, sha256: str, out: Path) -> None:
    from wise_edge.cli.bundle import figures_table, files_table
    from wise_edge.cli.output.tables import open_console, show

    console = open_console()
    console.print(f"bundle {out}", markup=False, highlight=False)
    show(console, files_table(manifest))
    if manifest.verification:
        show(console, figures_table(manifest))
    typer.echo(f"bundle.json sha256:{sha256}")
    if not manifest.verified:
        reason = "no backend runs its policy on a CPU" if manifest.verification else "--no-verify"
        options.note(f"the bundle is not verified: no query was compared with torch ({reason})")


def _name_missing_engines(manifest: Manifest, wanted: ExportOptions, out: Path) -> None:
    """Say which engines cannot be built on this machine, and how to build them on the devices."""
    from wise_edge.bundle.roles import engine_role

    roles = {artifact.role for artifact in manifest.artifacts}
    kinds = wanted.gpu_kinds
    if missing := [kind.name for kind in kinds if engine_role("sam.decoder", kind.engine_set) not in roles]:
        typer.echo(
            f"engines for {', '.join(missing)} are built on the device: copy {out} there and run wise-edge build {out}",
            err=True,
        )
