"""Write the tables of docs/families.md from the code: which family of policies and segmenters runs on what.

    python scripts/families_page.py

Rows and columns are those of `wise_edge.policy.families.FAMILIES`, `wise_edge.sam.families.FAMILIES`,
`wise_edge.export.targets` and `wise_edge.runtimes.backends`; a test compares the page with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from wise_edge.export import precisions
from wise_edge.export.targets import TARGETS, Target
from wise_edge.policy.families import FAMILIES
from wise_edge.runtimes.backends import BACKENDS
from wise_edge.sam import families as segmenters

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
TITLES = {"qwen2_vl": "Qwen2-VL", "qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL", "qwen3_5": "Qwen3.5"}
_TYPES = {
    "--quant": ("gguf", precisions.TEXT_TYPES),
    "--vision-quant": ("gguf", precisions.VISION_TYPES),
    "--onnx-precision": ("onnx, tensorrt", precisions.ONNX_PRECISIONS),
    "--edgellm-quant": ("edgellm", precisions.EDGELLM_METHODS),
}
"""For each option that chooses how numbers are stored: the targets that read it, and its values."""


def backends_of(target: Target) -> list[str]:
    """Return the names of the policy backends that run what a target writes."""
    policies = (backend for backend in BACKENDS if "policy" in backend.parts)
    return [backend.name for backend in policies if backend.target.split(" ")[0] == target.name]


def render_families() -> str:
    """Return the table of families and targets, with the backends of each target below its name."""
    heads = [f"`{target.name}`: {', '.join(backends_of(target))}" for target in TARGETS]
    rows = (
        [f"{TITLES[family]} (`{family}`)", "yes", *("yes" if family in t.families else "no" for t in TARGETS)]
        for family in FAMILIES
    )
    return _table(["family", "the checkpoint: torch", *heads], rows)


def render_types() -> str:
    """Return the table of number types, the same for every family that a target holds."""
    rows = ([f"`{option}`", targets, ", ".join(values)] for option, (targets, values) in _TYPES.items())
    return _table(["option", "target", "values"], rows)


def render_segmenters() -> str:
    """Return the table of segmenters' families: how their pictures are fitted, and the extras for their checkpoints."""
    rows = []
    for family in reversed(segmenters.FAMILIES):
        fitted = "stretched to it" if family.layout == segmenters.STRETCHED else "scaled to fit, padded"
        extras = sorted({"export", *(segmenters.LIBRARIES[library] for library in family.libraries)})
        types = [f"`{name}`" for form in family.forms for name in form.types]
        files = "yes" if any(form.sign for form in family.forms) else "no"
        named = f"{family.title} (`{family.name}`)"
        rows.append([named, files, ", ".join(types) or "no", fitted, ", ".join(f"`{extra}`" for extra in extras)])
    return _table(["family", "files", "folders: `model_type`", "the picture in the square", "extras"], rows)


def fill(page: str) -> str:
    """Return a page with its tables written anew."""
    tables = {"families": render_families(), "types": render_types(), "segmenters": render_segmenters()}
    for name, table in tables.items():
        before, rest = page.split(f"<!-- {name} -->", 1)
        page = f"{before}<!-- {name} -->\n\n{table}\n\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    return page


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
