"""A stock policy in a bundle: pictures that keep their aspect, numbers per mille, rows first, on every backend."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.knowing_qwen import Lesson, make_knowing_qwen
from wise_edge.bundle.store import Bundle, load
from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.export.options import ExportOptions
from wise_edge.export.pipeline import export_bundle
from wise_edge.export.to_onnx.verify import verify_policy
from wise_edge.export.to_tensorrt.plan import plan_engines
from wise_edge.images import save_png
from wise_edge.policy.answers.frame import PER_MILLE, YX, Coordinates
from wise_edge.policy.checkpoint import load_policy
from wise_edge.runtimes.graphs import onnx_runtime
from wise_edge.runtimes.session import Session

pytestmark = pytest.mark.slow
UNIT = 28
SIZES = {"wide": (320, 180), "upright": (180, 320), "square": (200, 200)}
GRIDS = {"wide": (5, 3), "upright": (3, 5), "square": (4, 4)}
BOXES = {"wide": (250, 100, 750, 400), "upright": (100, 500, 300, 900), "square": (0, 0, 1000, 500)}
"""XYXY, per mille."""
BACKENDS = ["onnx", "llama", "torch"]


def picture(name: str) -> Any:
    width, height = SIZES[name]
    return np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)


def as_stock(folder: Path) -> None:
    """Let the processor take pictures of 4 to 16 image tokens."""
    file = folder / "preprocessor_config.json"
    size = {"shortest_edge": 4 * UNIT**2, "longest_edge": 16 * UNIT**2}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": size}))


def text_of(name: str) -> str:
    x1, y1, x2, y2 = BOXES[name]
    point = f"[{(y1 + y2) // 2}, {(x1 + x2) // 2}]"
    return f'<answer>{{"bbox": [{y1}, {x1}, {y2}, {x2}], "points_1": {point}, "points_2": {point}}}</answer>'


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lessons = [Lesson(picture(name), f"the {name} one", "answer", text_of(name)) for name in SIZES]
    return make_knowing_qwen("qwen2_5_vl", tmp_path_factory.mktemp("stock") / "policy", lessons, prepare=as_stock)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Bundle:
    out = checkpoint.parent / "bundle"
    options = ExportOptions(("onnx", "gguf"), quant="F32", vision_quant="F32", samples=1, coordinates="per-mille,yx")
    export_bundle(str(checkpoint), "embedded", out, options, verify=None, progress=lambda *_: None)
    return load(out)


def test_the_bundle_says_what_its_policy_expects(bundle: Bundle) -> None:
    policy = bundle.manifest.policy
    assert policy.coordinates == Coordinates(PER_MILLE, YX)
    assert policy.grids == ((4, 4), (4, 3), (3, 4), (5, 3), (3, 5))
    assert "answers in 0 to 1000 of each side, rows before columns" in (bundle.directory / "README.md").read_text()


def test_the_graph_of_each_grid_is_compared_with_torch(bundle: Bundle, checkpoint: Path) -> None:
    policy = bundle.manifest.policy
    figures = {figure.what: figure for figure in verify_policy(load_policy(checkpoint), policy, bundle.directory)}
    graphs = {f"policy.vision.{columns}x{rows}" for columns, rows in policy.grids}
    assert graphs < figures.keys() and all(figures[graph].passed for graph in graphs)
    assert graphs < {artifact.role for artifact in bundle.manifest.artifacts}


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_answer_lies_where_it_was_meant_in_pictures_of_each_aspect(bundle: Bundle, backend: str) -> None:
    session = Session.from_bundle(bundle, policy_backend=backend, mask_backend="onnx", frames=2)
    for name in (*SIZES, "wide"):  # the last one is no longer kept
        result = session.segment(picture(name), f"the {name} one", "answer")

        assert result.text == text_of(name)
        width, height = SIZES[name]
        x1, y1, x2, y2 = BOXES[name]
        expected = x1 * width / 1000, y1 * height / 1000, x2 * width / 1000, y2 * height / 1000
        assert np.abs(np.array(result.box) - expected).max() <= 1
        assert result.tokens.image == GRIDS[name][0] * GRIDS[name][1]


def test_graphs_are_opened_when_their_first_picture_comes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Recorded(onnx_runtime.OnnxGraph):
        def __init__(self, file: Path, *settings: Any) -> None:
            opened.append(file.name)
            super().__init__(file, *settings)

    monkeypatch.setattr(onnx_runtime, "OnnxGraph", Recorded)
    session = Session.from_bundle(bundle, policy_backend="onnx", mask_backend="onnx")
    assert [name for name in opened if "vision" in name] == [bundle.file("policy.vision.4x4").name]
    for _ in range(2):
        session.segment(picture("wide"), "the wide one", "answer")
    assert len(opened) == len(set(opened))
    assert {name for name in opened if "vision" in name} == {
        bundle.file(f"policy.vision.{grid}").name for grid in ("4x4", "5x3")
    }
    for pixels in (12 * UNIT**2, None, 12 * UNIT**2):  # budgets share every graph but the vision tower's
        session.segment(picture("wide"), "the wide one", "answer", pixels=pixels)
    assert len(opened) == len(set(opened)) and opened[-1] == bundle.file("policy.vision.4x3").name


def test_engines_are_planned_for_each_grid(bundle: Bundle) -> None:
    planned = [graph.graph for graph in plan_engines(bundle, ()).graphs]
    assert planned[:5] == [f"policy.vision.{columns}x{rows}" for columns, rows in bundle.manifest.policy.grids]
    assert planned[5:] == ["policy.decoder", "sam.encoder", "sam.decoder"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_pixels_are_fewer_tokens(bundle: Bundle, backend: str) -> None:
    fewer = 13 * UNIT**2
    session = Session.from_bundle(bundle, policy_backend=backend, mask_backend="onnx", pixels=fewer)
    result = session.segment(picture("square"), "the square one", "answer")
    assert result.tokens.image == 12  # of (4, 3) and (3, 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_session_answers_within_each_budget_as_one_that_was_opened_with_it(bundle: Bundle, backend: str) -> None:
    def answers(session: Session, pixels: int | None = None) -> list[dict[str, Any]]:
        results = [session.segment(picture(name), f"the {name} one", "answer", pixels=pixels) for name in SIZES]
        kept = ("text", "objects", "mask", "image_size")
        tokens = [replace(result.tokens, decode_steps=0) for result in results]  # a draft saves some
        found = zip(results, tokens, strict=True)
        return [{entry: result.to_dict()[entry] for entry in kept} | {"tokens": counts} for result, counts in found]

    def open_session(pixels: int | None) -> Session:
        return Session.from_bundle(
            bundle, policy_backend=backend, mask_backend="onnx", pixels=pixels, frames=2, verify_hashes=False
        )

    budgets = [None, 13 * UNIT**2, 12 * UNIT**2, 13 * UNIT**2 + 500]
    expected = {pixels: answers(open_session(pixels)) for pixels in budgets}
    assert [answer[0]["tokens"].image for answer in expected.values()] == [15, 12, 12, 12]
    session = open_session(None)
    for pixels in (*budgets, *budgets[::-1], budgets[1], None):
        assert answers(session, pixels) == expected[pixels], pixels
    for name in SIZES:
        for pixels in (budgets[1], None, budgets[1]):  # on a picture that is kept, too
            result = session.segment(picture(name), f"the {name} one", "answer", pixels=pixels)
            assert result.text == expected[pixels][list(SIZES).index(name)]["text"]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (UNIT**2 * 5, r"3920 pixels hold none of the grids that the graphs have, 4x4, 4x3, 3x4, 5x3, 3x5 tokens"),
        (UNIT**2 - 1, r"783 pixels hold no image token of 28 x 28; allow 784 or more"),
        (0, "pixels must be an integer of at least 1, got int 0"),
    ],
)
def test_pixels_that_cannot_be_are_refused(bundle: Bundle, pixels: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Session.from_bundle(bundle, pixels=pixels)
    session = Session.from_bundle(bundle, policy_backend="onnx", verify_hashes=False)
    with pytest.raises(UsageError, match=message):
        session.segment(picture("wide"), "the wide one", pixels=pixels)
    assert session.segment(picture("wide"), "the wide one", "answer").text == text_of("wide")


def test_the_command_line_reads_and_refuses(
    bundle: Bundle, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_png(picture("wide"), tmp_path / "wide.png", True)
    asked = [
        "run",
        str(tmp_path / "wide.png"),
        "the wide one",
        "--bundle",
        str(bundle.directory),
        "--variant",
        "answer",
    ]
    assert main([*asked, "--policy-backend", "llama", "--pixels", str(12 * UNIT**2), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"]["image"] == 12
    assert main([*asked, "--pixels", "700"]) == 2
    assert "700 pixels hold no image token of 28 x 28" in capsys.readouterr().err

    export = ["export", "--policy", str(checkpoint), "--sam", "embedded", "--out", str(tmp_path / "other")]
    assert main([*export, "--picture", "round"]) == 2
    assert "--picture round: pass square, square:SIDE, aspect" in capsys.readouterr().err
    assert main(["bundle", "show", str(bundle.directory)]) == 0
    assert "images of 4x4, 4x3, 3x4, 5x3, 3x5 tokens" in " ".join(capsys.readouterr().out.split())


def test_a_square_in_graphs_keeps_its_size() -> None:
    with pytest.raises(UsageError, match=r"take images stretched to 112 x 112 px, whatever pixels says; choose llama"):
        Session.from_bundle(policy_backend="onnx", pixels=84 * 84)
    with pytest.raises(UsageError, match=r"pixels is 20000, but the policy has room for 16 image tokens of 28 x 28 px"):
        Session.from_bundle(pixels=140 * 140 + 400)
