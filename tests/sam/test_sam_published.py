"""Published `.pth` files are recognized by their shapes, load exactly, export, and damaged ones are one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segment_anything
import torch

from tiny_models import SAM
from wise_edge.errors import UsageError
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.sam.checkpoint import load_segmenter
from wise_edge.sam.published import infer_architecture
from wise_edge.sam.segment_anything import SamArchitecture, build_sam

TINY = SamArchitecture(**{**SAM.__dict__, "decoder_heads": 8, "prompt_dim": 64})
"""Small, but with the published decoder's eight heads, which cannot be inferred from shapes."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file as segment-anything publishes them, and the model it was saved from."""
    torch.manual_seed(0)
    sam = build_sam(TINY)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    file = tmp_path_factory.mktemp("published") / "sam.pth"
    torch.save(sam.state_dict(), file)
    return file, sam


@pytest.mark.parametrize(
    ("name", "depth", "width", "heads", "whole"),
    [
        ("vit_b", 12, 768, 12, (2, 5, 8, 11)),
        ("vit_l", 24, 1024, 16, (5, 11, 17, 23)),
        ("vit_h", 32, 1280, 16, (7, 15, 23, 31)),
    ],
)
def test_the_published_sizes_are_recognized(
    name: str, depth: int, width: int, heads: int, whole: tuple[int, ...]
) -> None:
    with torch.device("meta"):  # shapes without weights: vit_h alone has 2.5 GB
        state = segment_anything.sam_model_registry[name](checkpoint=None).state_dict()

    found = SamArchitecture(**infer_architecture(Path("sam.pth"), state))

    assert (found.encoder_depth, found.encoder_dim, found.encoder_heads) == (depth, width, heads)
    assert found.global_attention == whole
    assert (found.input_size, found.patch_size, found.window_size) == (1024, 16, 14)
    with torch.device("meta"):
        rebuilt = build_sam(found).state_dict()
    assert {key: value.shape for key, value in rebuilt.items()} == {key: value.shape for key, value in state.items()}


def test_a_file_restores_the_model_that_it_was_saved_from(published: tuple[Path, Any]) -> None:
    file, sam = published
    image = torch.randn(1, 3, TINY.input_size, TINY.input_size, generator=torch.Generator().manual_seed(1))

    with torch.no_grad():
        assert torch.equal(load_segmenter(file).image_encoder(image), sam.image_encoder(image))


@pytest.mark.slow
def test_a_file_exports_to_graphs_that_equal_torch(published: tuple[Path, Any], tmp_path: Path) -> None:
    source = SamSource(published[0])

    artifacts = source.export(tmp_path, "fp32", False, [], lambda *_: None)
    figures = source.compare(tmp_path, "fp32", False, lambda *_: None)

    assert [artifact.role for artifact in artifacts] == ["sam.encoder", "sam.decoder"]
    assert all(figure.passed and figure.at_most == 1e-4 for figure in figures)


class Harmful:
    """A pickle that would write a file if it were executed."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (Path("harm"),))


def save(file: Path, data: Any) -> None:
    torch.save(data, file)


def changed(state: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    merged = dict(state) | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in merged.items() if value is not None}


TOKEN = "mask_decoder__iou_token__weight"
DAMAGE: dict[str, tuple[Callable[[Path, dict[str, torch.Tensor]], None], str]] = {
    "text": (lambda f, _: f.write_text("no weights") and None, "begin as torch's files do"),
    "empty": (lambda f, _: f.touch(), "holds no weights"),
    "harmful": (lambda f, _: f.write_bytes(pickle.dumps(Harmful())) and None, "holds no weights"),
    "a list": (lambda f, _: save(f, [torch.ones(2)]), "no segmenter's weights but a list"),
    "mixed": (lambda f, s: save(f, changed(s, classifier__weight=torch.ones(2))), "classifier.weight"),
    "another": (lambda f, _: save(f, {"layer.weight": torch.ones(2)}), "layer.weight"),
    "nan": (lambda f, s: save(f, changed(s, **{TOKEN: torch.full((1, 64), torch.nan)})), "iou_token"),
    "missing": (lambda f, s: save(f, changed(s, **{TOKEN: None})), "lacks .*iou_token"),
    "cut": (lambda f, s: save(f, changed(s, image_encoder__neck__0__weight=None)), r"lacks .*neck\.0\.weight"),
    "wrong shape": (
        lambda f, s: save(f, changed(s, **{TOKEN: torch.ones(1, 3)})),
        r"another shape .*iou_token.weight \[1, 3\] instead of \[1, 64\]",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_an_invalid_file_is_one_line(
    published: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    damage, words = DAMAGE[case]
    file = tmp_path / "sam.pth"
    damage(file, published[1].state_dict())

    with pytest.raises(UsageError, match=words) as caught:
        load_segmenter(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()
