"""Family x coordinates x geometry x form x backend: the box of a known answer is right within a pixel in every cell.

Tiny checkpoints know what to write (`policies.knowing_qwen`). A bundle is exported once for each family and geometry;
what its numbers count and the form of its answers are told to it as data, as to a user's bundle.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies.knowing_qwen import Lesson, make_knowing_qwen
from tiny_qwen import FAMILIES
from wise_edge.bundle.store import Bundle, load
from wise_edge.export.options import ExportOptions
from wise_edge.export.pipeline import export_bundle
from wise_edge.export.targets import OnnxTarget
from wise_edge.policy.answers.form import BOX_LABEL_LIST, BOX_POINT_LIST, BOX_POINTS
from wise_edge.policy.answers.frame import PER_MILLE, PIXELS, XY, YX, Coordinates
from wise_edge.runtimes.base import Decoding
from wise_edge.runtimes.session import Session

pytestmark = pytest.mark.slow
WIDTH, HEIGHT = 300, 200
IMAGE = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
VARIANTS = {BOX_POINTS.name: "wise-s", BOX_POINT_LIST.name: "answer", BOX_LABEL_LIST.name: "answer"}
NUMBERS = {
    BOX_POINTS.name: [[10, 20, 90, 70]],
    BOX_POINT_LIST.name: [[11, 21, 91, 71], [5, 6, 17, 28]],
    BOX_LABEL_LIST.name: [[12, 22, 92, 72]],
}
TEXTS = {
    BOX_POINTS.name: '<think>the left one</think><answer>{"bbox": [10, 20, 90, 70], "points_1": [30, 40], '
    '"points_2": [51, 62]}</answer>',
    BOX_POINT_LIST.name: '<answer>[{"bbox_2d": [11,21,91,71], "point_2d": [30,40]}, '
    '{"bbox_2d": [5,6,17,28], "point_2d": [9,10]}]</answer>',
    BOX_LABEL_LIST.name: '```json\n[\n\t{"bbox_2d": [12, 22, 92, 72], "label": "mug"}\n]\n```',
}
QUERIES = {name: f"thing {number}" for number, name in enumerate(TEXTS)}
COORDINATES = [Coordinates(PIXELS, XY), Coordinates(PER_MILLE, XY), Coordinates(PER_MILLE, YX)]
FORMS = [BOX_POINTS, BOX_POINT_LIST, BOX_LABEL_LIST]


@pytest.fixture(
    scope="module", params=[(family, kind) for family in FAMILIES for kind in ("square", "aspect")], ids="-".join
)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    family, kind = request.param
    folder = tmp_path_factory.mktemp(family)
    targets = ("onnx", "gguf") if family in OnnxTarget.families else ("gguf",)
    picture = "aspect:12544-32000" if kind == "aspect" else None
    options = ExportOptions(targets, quant="F32", vision_quant="F32", samples=1, picture=picture)
    lessons = [Lesson(IMAGE, QUERIES[name], VARIANTS[name], text) for name, text in TEXTS.items()]
    checkpoint = make_knowing_qwen(family, folder / "checkpoint", lessons, options.told)
    export_bundle(str(checkpoint), "embedded", folder / "bundle", options, verify=None, progress=lambda *_: None)
    return load(folder / "bundle")


def written_box(numbers: list[int], coordinates: Coordinates, picture: tuple[int, int]) -> list[float]:
    """Where four written numbers lie in the original image: in fractions of it, then in its pixels."""
    a, b, c, d = numbers
    x1, y1, x2, y2 = (a, b, c, d) if coordinates.order == XY else (b, a, d, c)
    across, down = picture if coordinates.unit == PIXELS else (1000, 1000)
    return [x1 / across * WIDTH, y1 / down * HEIGHT, x2 / across * WIDTH, y2 / down * HEIGHT]


@pytest.mark.parametrize("backend", ["torch", "onnx", "llama"])
def test_a_known_answer_lies_where_it_was_meant(bundle: Bundle, backend: str) -> None:
    if backend == "onnx" and bundle.manifest.policy.family not in OnnxTarget.families:
        pytest.skip("this family has no graphs")
    for form in FORMS:
        for coordinates in COORDINATES:
            policy = replace(bundle.manifest.policy, coordinates=coordinates, form=form)
            told = replace(bundle, manifest=replace(bundle.manifest, policy=policy))
            session = Session.from_bundle(told, policy_backend=backend, mask_backend="onnx", verify_hashes=False)
            for forced in (True, False):
                session.decoding = Decoding(forced=forced)
                result = session.segment(IMAGE, QUERIES[form.name], VARIANTS[form.name])
                assert result.text == TEXTS[form.name], (form.name, coordinates, forced)
                picture = policy.picture_size((WIDTH, HEIGHT))
                expected = [written_box(numbers, coordinates, picture) for numbers in NUMBERS[form.name]]
                found = [item.box for item in result.objects]
                assert np.abs(np.array(found) - np.array(expected)).max() <= 1, (form.name, coordinates, forced)
