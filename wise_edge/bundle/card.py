"""The model card of a bundle, for people: its contents, its verification and its provenance.

The front matter follows model cards on hubs (https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from wise_edge.bundle.evaluated import Evaluated
from wise_edge.bundle.manifest import Figure, Manifest

_FRONT = """---
library_name: wise-edge
pipeline_tag: image-segmentation
tags: [reasoning-segmentation, {families}]
---
"""


def render_card(manifest: Manifest, sha256: str) -> str:
    """Return a bundle's card as Markdown.

    Args:
        manifest: where everything in it comes from.
        sha256: hash of the manifest's file, hexadecimal.
    """
    policy, sam = manifest.policy, manifest.sam
    fitting = "stretched to" if sam.stretches else "scaled to fit"
    families = ", ".join(sorted({policy.family, sam.family}))
    parts = [
        _FRONT.format(families=families),
        f"# {manifest.name}\n",
        f"A {policy.family} policy that finds what a sentence means in an image, and a {sam.family} segmenter that "
        f"outlines it. Exported {manifest.created}.\n",
        "```console\n$ wise-edge run image.jpg 'the red mug' --bundle .\n$ wise-edge bundle verify . --sha256 "
        f"{sha256}\n```\n",
        "The hash is that of `bundle.json`, which holds the hashes of all other files. Anyone who can alter the files "
        "can alter `bundle.json` and this card with them: take the hash from the bundle's publisher.\n",
        f"The policy reads {policy.picture} and answers in {policy.coordinates}; images are "
        f"{fitting} {sam.input_size} x {sam.input_size} px for the segmenter. Prompt and answer together "
        f"take up to {policy.max_positions} tokens.\n",
        "## Files\n",
        _table(
            ("role", "file", "weights", "bytes", "sha256"),
            ((a.role, f"`{a.path}`", a.precision, str(a.bytes), f"`{a.sha256[:16]}`") for a in manifest.artifacts),
        ),
        *describe_float32(manifest, lambda layer: f"`{layer}`"),
        "## Compared with the checkpoints\n",
        _verification(manifest.verified, manifest.verification),
        *_evaluations(manifest.evaluated),
        "## Prompts\n",
        f"Set `{policy.prompts.name}`; `{policy.default_variant}` where none is asked for. System message: "
        f"{policy.prompts.system}\n",
        _table(
            ("variant", "words"), ((f"`{name}`", each.describe()) for name, each in policy.prompts.variants.items())
        ),
        "## Where it comes from\n",
        _table(("what", "value"), ((key, f"`{manifest.provenance[key]}`") for key in sorted(manifest.provenance))),
    ]
    return "\n".join(parts)


def describe_float32(manifest: Manifest, quote: Callable[[str], str] = str) -> list[str]:
    """Return a line for each graph that names its layers of float32, for a card or a terminal; none if it has none."""
    return [
        f"{artifact.role}: float32 instead of {artifact.precision}, whose numbers overflow or vanish there: "
        f"{', '.join(map(quote, artifact.float32_layers))}.\n"
        for artifact in manifest.artifacts
        if artifact.float32_layers
    ]


def describe_bound(figure: Figure) -> str:
    """Return the bounds of a figure as text, for a message or a table."""
    sides = (("least", figure.at_least), ("most", figure.at_most))
    return " and ".join(f"at {side} {bound:g}" for side, bound in sides if bound is not None) or "reported"


def _verification(verified: bool, figures: Sequence[Figure]) -> str:
    if not figures:
        return "Nothing was compared: the bundle was exported with `--no-verify` and its answers may be wrong.\n"
    rows = ((f.what, f"{f.value:.3g}", f.unit, describe_bound(f)) for f in figures)
    table = _table(("what", "value", "unit", "bound"), rows)
    return (
        table
        if verified
        else f"Parts were compared; complete queries were not, so the bundle is unverified.\n\n{table}"
    )


def _evaluations(evaluated: Evaluated | None) -> Iterable[str]:
    if evaluated is not None:
        yield "## Evaluated\n"
        how = f"{evaluated.metric_mode} metrics, {evaluated.decoding} decoding"
        yield f"On {evaluated}; {how}. A deadline chooses the best gIoU that fits.\n"
        yield _table(*evaluated_rows(evaluated))


def evaluated_rows(evaluated: Evaluated) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
    """Return the head and the rows of a table of evaluations, as text."""
    rows = (
        (
            run.variant,
            "all" if run.pixels is None else str(run.pixels),
            *(f"{figure:.3f}" for figure in (run.giou, run.ciou)),
            *(f"{tokens:.1f}" for tokens in (run.rationale_tokens, run.answer_tokens)),
        )
        for run in evaluated.runs
    )
    return ("variant", "pixels", "gIoU", "cIoU", "rationale tokens", "answer tokens"), rows


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "&#124;").replace("\n", "<br>")
