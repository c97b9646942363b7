"""Graphs run like the checkpoints they came from, and what is wrong with a graph or a query is said in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from tiny_models import SAM, SPECIAL, make_policy, make_sam, make_tokenizer
from wise_edge.bundle.store import Bundle, load
from wise_edge.errors import BundleError, DeviceError, UsageError, WiseEdgeError
from wise_edge.metrics import mask_iou
from wise_edge.native.onnxruntime_session import CUDA
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.checkpoint import load_policy
from wise_edge.policy.image import patchify, resize
from wise_edge.policy.prompts import Template
from wise_edge.runtimes.base import Decoding, Graph, MaskPrompt, Request
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph
from wise_edge.runtimes.mask.graph import Area, GraphMask, find_area, find_steps, upsample
from wise_edge.runtimes.policy.graph import GraphPolicy
from wise_edge.runtimes.policy.prompt import Prefix, Prompt, image_positions, text_positions
from wise_edge.runtimes.policy.text import PolicyText
from wise_edge.runtimes.policy.torch_policy import TorchPolicy
from wise_edge.runtimes.policy.writing import Writer
from wise_edge.runtimes.session import Session
from wise_edge.sam.spec import SamSpec
from wise_edge.scenes import sample

FREE = Decoding(forced=False)
QUERIES = ("the red ring", "la estrella pequeña", "左边的三角形")


@dataclass
class CountingGraph:
    """A graph that remembers how many tokens each run had."""

    graph: Graph
    lengths: list[int] = field(default_factory=list)

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        self.lengths.append(next(iter(arrays.values())).shape[1])
        return self.graph.run(arrays)

    def largest(self, name: str, axis: int) -> int | None:
        return self.graph.largest(name, axis)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load(tiny_bundle)


@pytest.fixture(scope="module")
def decoder(bundle: Bundle) -> CountingGraph:
    return CountingGraph(OnnxGraph(bundle.file("policy.decoder"), threads=1))


@pytest.fixture
def policy(bundle: Bundle, decoder: CountingGraph) -> GraphPolicy:
    decoder.lengths.clear()
    vision = OnnxGraph(bundle.file("policy.vision"), threads=1)
    files = bundle.file("policy.embedding"), bundle.file("policy.tokenizer")
    return GraphPolicy("onnx", bundle.manifest.policy, {bundle.manifest.policy.grids[0]: vision}, decoder, *files)


@pytest.fixture(scope="module")
def reference(tiny_checkpoints: tuple[Path, Path]) -> Session:
    return Session.from_checkpoints(*tiny_checkpoints)


@pytest.fixture(scope="module")
def scene() -> npt.NDArray[np.uint8]:
    return sample("test", 0).scene.image


@pytest.mark.parametrize("processor", [Qwen2VLImageProcessor, Qwen2VLImageProcessorPil])
def test_patches_are_those_of_transformers(processor: Any) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 112, 140, 3), np.uint8)

    stock = processor(min_pixels=56 * 56, max_pixels=140 * 140)(images=list(pictures), return_tensors="np")

    np.testing.assert_allclose(patchify(pictures), stock["pixel_values"], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(patchify(pictures[1]), patchify(pictures)[80:])


def test_a_square_of_the_right_size_is_not_resized(scene: npt.NDArray[np.uint8]) -> None:
    assert resize(scene, (scene.shape[0], scene.shape[0])) is scene
    assert resize(np.zeros((1, 700, 3), np.uint8), (112, 112)).shape == (112, 112, 3)


def test_pictures_that_patches_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 28"):
        patchify(np.zeros((112, 100, 3), np.uint8))


def test_positions_are_those_of_transformers() -> None:
    tokenizer = make_tokenizer()
    model = make_policy(tokenizer).model
    ids = torch.tensor([[5] * 7 + [tokenizer.token_to_id("<|image_pad|>")] * 16 + [6] * 9])
    is_image = (ids == tokenizer.token_to_id("<|image_pad|>")).int()
    stock, _ = model.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=torch.tensor([[1, 8, 8]]))

    ours = np.concatenate([text_positions(0, 7), image_positions(7, (4, 4)), text_positions(7 + 4, 9)], axis=2)

    np.testing.assert_array_equal(ours, stock.numpy())


@pytest.mark.parametrize("query", QUERIES)
def test_graphs_write_what_the_checkpoint_writes(
    policy: GraphPolicy, reference: Session, scene: npt.NDArray[np.uint8], query: str
) -> None:
    expected = reference.policy.generate(reference.policy.encode(scene), Request(query, "verbose", FREE))

    output = policy.generate(policy.encode(scene), Request(query, "verbose", FREE))

    assert (output.text, output.finish, output.tokens) == (expected.text, expected.finish, expected.tokens)
    assert output.tokens.decode_steps > 100


@pytest.mark.parametrize("variant", ["wise-s", "answer"])
def test_forced_answers_are_those_of_the_checkpoint(
    policy: GraphPolicy, reference: Session, scene: npt.NDArray[np.uint8], variant: str
) -> None:
    decoding = Decoding(max_rationale_tokens=20)
    expected = reference.policy.generate(reference.policy.encode(scene), Request(QUERIES[0], variant, decoding))

    output = policy.generate(policy.encode(scene), Request(QUERIES[0], variant, decoding))

    assert (output.text, output.tokens) == (expected.text, expected.tokens)
    assert output.tokens.forced > 60  # one token a byte
    assert output.tokens.rationale <= 20


def test_the_reference_writes_what_transformers_generates(
    reference: Session, tiny_checkpoints: tuple[Path, Path], scene: npt.NDArray[np.uint8], bundle: Bundle
) -> None:
    spec = bundle.manifest.policy
    tokenizer = make_tokenizer()
    ids = tokenizer.encode(spec.prompts.render(QUERIES[0], "answer", 16), add_special_tokens=False).ids
    tokens = torch.tensor([ids])
    generated = load_policy(tiny_checkpoints[0]).generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        mm_token_type_ids=(tokens == tokenizer.token_to_id("<|image_pad|>")).int(),
        pixel_values=torch.from_numpy(patchify(resize(scene, (112, 112)))),
        image_grid_thw=torch.tensor([[1, 8, 8]]),
        max_new_tokens=40,
        do_sample=False,
    )

    output = reference.policy.generate(reference.policy.encode(scene), Request(QUERIES[0], "answer", FREE))

    assert output.text.startswith(tokenizer.decode(generated[0, len(ids) :].tolist(), skip_special_tokens=False)[:-1])


def test_a_further_query_prefills_its_own_words_only(
    policy: GraphPolicy, decoder: CountingGraph, bundle: Bundle, scene: npt.NDArray[np.uint8]
) -> None:
    text = PolicyText(bundle.file("policy.tokenizer"), bundle.manifest.policy)
    frame = policy.encode(scene)
    prefix = text.prefix("wise-s", (4, 4))
    assert prefix is not None and decoder.lengths == [len(prefix.before), 16 + len(prefix.after)]

    for query in QUERIES[:2]:
        decoder.lengths.clear()
        output = policy.generate(frame, Request(query, "wise-s", FREE))
        assert decoder.lengths[0] == len(text.prompt(query, "wise-s", (4, 4)).suffix)
        assert decoder.lengths[1:] == [1] * output.tokens.decode_steps
        assert output.tokens.prompt == prefix.length + decoder.lengths[0]


def test_a_second_picture_prefills_no_system_message(
    policy: GraphPolicy, decoder: CountingGraph, scene: npt.NDArray[np.uint8]
) -> None:
    first = policy.encode(scene)
    before = policy.generate(first, Request(QUERIES[0], "wise", FREE)).text
    decoder.lengths.clear()

    second = policy.encode(scene[::-1].copy())

    assert len(decoder.lengths) == 1
    assert policy.generate(second, Request(QUERIES[0], "wise", FREE)).text != before
    assert policy.generate(first, Request(QUERIES[0], "wise", FREE)).text == before


def test_writing_ends_at_the_answer_at_an_end_token_and_at_the_limit(bundle: Bundle) -> None:
    text = PolicyText(bundle.file("policy.tokenizer"), bundle.manifest.policy)
    tokenizer = make_tokenizer()
    written: list[int] = []

    prompt = text.prompt(QUERIES[0], "wise-s", (4, 4))
    finishes = [text.accept(written, token, prompt, 100) for token in tokenizer.encode("<answer>{}</answer>").ids]

    assert finishes == [None] * (len(finishes) - 1) + ["answer"]
    assert text.accept(written, tokenizer.token_to_id("<|im_end|>"), prompt, 100) == "end"
    assert text.decode(written) == "<answer>{}</answer>"
    assert text.accept([1, 2], 3, prompt, 3) == "length"


def test_rationale_and_answer_are_counted_without_their_tags(bundle: Bundle) -> None:
    text = PolicyText(bundle.file("policy.tokenizer"), bundle.manifest.policy)

    counts = text.count(
        split_completion("<think>abc</think><answer>{12}</answer>"), text.prompt(QUERIES[0], "wise-s", (4, 4)), 0, 7
    )

    assert (counts.rationale, counts.answer, counts.image, counts.decode_steps) == (3, 4, 16, 7)


def test_a_query_that_leaves_no_room_for_an_answer_is_refused(
    policy: GraphPolicy, scene: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(UsageError, match="room for"):
        policy.generate(policy.encode(scene), Request("x" * 200, "wise", FREE))


@pytest.mark.parametrize("spare", [0, 1, 20])
def test_a_forced_answer_fits_into_the_least_room(bundle: Bundle, spare: int) -> None:
    text = PolicyText(bundle.file("policy.tokenizer"), bundle.manifest.policy)  # a token a byte: the longest answers
    prefix = Prefix((5,) * 9, (4, 4), (5,))
    rest = bundle.manifest.policy.max_positions - prefix.length - text.room_for_answer((4, 4)) - spare
    prompt = Prompt(prefix, [5] * rest, Template("{query}"))
    rng = np.random.default_rng(spare)

    def noise(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        return rng.standard_normal(256, np.float32)

    for _ in range(20):
        written = Writer(text, bundle.manifest.policy).write(noise, prompt, Request("the ring", "wise-s"))
        assert written.finish == "answer"
        assert len(written.tokens) <= text.token_limit(prompt)


@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (90, 41), (30, 50), (1, 1), (3, 400), (500, 2)])
def test_graphs_segment_what_the_checkpoint_segments(
    bundle: Bundle, reference: Session, shape: tuple[int, int]
) -> None:
    session = Session.from_bundle(bundle.directory, policy_backend="onnx", mask_backend="onnx", threads=1)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    height, width = shape
    box = (width // 4, height // 4, width // 2 + 1, height // 2 + 1)
    prompt = MaskPrompt(box, ((width // 3, height // 3),) * 2)
    if min(shape) * SAM.input_size < max(shape) / 2:  # segment-anything itself cannot resize to a side of 0
        assert session.mask.decode(session.mask.encode(image), prompt).mask.shape == shape
        return

    ours = session.mask.decode(session.mask.encode(image), prompt)
    stock = reference.mask.decode(reference.mask.encode(image), prompt)

    assert ours.mask.shape == shape
    assert mask_iou(ours.mask, stock.mask) >= 0.995
    assert ours.score == pytest.approx(stock.score, abs=1e-4)


@pytest.mark.parametrize("multimask", [False, True])
def test_points_alone_prompt_as_in_segment_anything(
    reference: Session, bundle: Bundle, scene: npt.NDArray[np.uint8], multimask: bool
) -> None:
    prompts = [MaskPrompt(points=((x, 70), (x, 90))[:count]) for x in (40, 90) for count in (1, 2)]
    predictor = reference.mask.encode(scene).predictor
    stock = [
        predictor.predict(np.array(each.points), np.ones(len(each.points)), None, None, multimask) for each in prompts
    ]

    for mask in (reference.mask, Session.from_bundle(bundle, mask_backend="onnx", threads=1).mask):
        found = list(mask.decode_raw(mask.encode(scene), prompts, multimask))

        assert [call.logits.shape[:2] for call in found] == [(1, 3 if multimask else 1)] * 4
        for (_, scores, logits), call in zip(stock, found, strict=True):
            np.testing.assert_allclose(call.logits[0], logits, atol=1e-3)
            np.testing.assert_allclose(call.scores[0], scores, atol=1e-4)


def test_an_earlier_mask_prompts_the_next(reference: Session, bundle: Bundle, scene: npt.NDArray[np.uint8]) -> None:
    prompt = MaskPrompt((40, 40, 160, 170), ((90, 100),))
    outputs = []
    for mask in (reference.mask, Session.from_bundle(bundle.directory, mask_backend="onnx").mask):
        frame = mask.encode(scene)
        first = mask.decode(frame, prompt)
        outputs.append((first, mask.decode(frame, replace(prompt, previous=first.logits))))

    (stock_first, stock_second), (first, second) = outputs
    np.testing.assert_allclose(first.logits, stock_first.logits, atol=1e-3)
    np.testing.assert_allclose(second.logits, stock_second.logits, atol=1e-3)
    assert np.abs(first.logits - second.logits).max() > 0.01


@pytest.mark.parametrize(("kind", "calls"), [("torch", None), ("graphs", 4), ("graphs of one prompt", 24)])
def test_several_prompts_get_the_masks_of_single_ones(
    reference: Session, bundle: Bundle, scene: npt.NDArray[np.uint8], kind: str, calls: int | None
) -> None:
    mask = reference.mask
    counted = None
    if kind != "torch":  # the embedded bundle's decoder takes one prompt, as those of earlier versions
        mask = Session.from_bundle(bundle if kind == "graphs" else None, mask_backend="onnx", threads=1).mask
        assert isinstance(mask, GraphMask)
        counted = mask._decoder = CountingGraph(mask._decoder)
    corners = np.random.default_rng(0).integers(0, 100, (24, 2)).tolist()
    prompts = [MaskPrompt((x, y, x + 90, y + 70), ((x + 40, y + 30),) * 2) for x, y in corners]
    frame = mask.encode(scene)
    prompts[3] = replace(prompts[3], previous=mask.decode(frame, prompts[2]).logits)
    prompts[22:] = [replace(prompt, points=prompt.points[:1]) for prompt in prompts[22:]]
    single = [mask.decode(frame, prompt) for prompt in prompts]
    before = len(counted.lengths) if counted else 0

    together = mask.decode_many(frame, prompts)

    assert counted is None or len(counted.lengths) - before == calls
    for one, of_many in zip(single, together, strict=True):
        np.testing.assert_allclose(one.logits, of_many.logits, atol=1e-3)
        assert mask_iou(one.mask, of_many.mask) >= 0.999
        assert one.score == pytest.approx(of_many.score, abs=1e-4)
    assert len({output.score for output in together}) == 24
    assert mask.decode_many(frame, []) == []


SHAPES = [(64, 64), (224, 224), (41, 90), (50, 30), (7, 64), (301, 123), (16_384, 128), (128, 16_384)]


@pytest.mark.parametrize("size", SHAPES)
def test_upsampling_is_that_of_segment_anything(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).standard_normal((32, 32), np.float32)
    scale = SAM.input_size / max(size)
    resized = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    ours = upsample_whole(logits, SamSpec("segment_anything", SAM.input_size, 32, (), (), False), resized, size)

    stock = make_sam().postprocess_masks(torch.from_numpy(logits)[None, None], resized[::-1], size[::-1])
    np.testing.assert_allclose(ours, stock[0, 0].numpy(), atol=1e-4)


@pytest.mark.parametrize("size", SHAPES)
def test_upsampling_is_that_of_sam2(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).standard_normal((32, 32), np.float32)

    ours = upsample_whole(logits, SamSpec("sam2", 64, 32, (), (), False), (64, 64), size)

    logits_4d = torch.from_numpy(logits)[None, None]
    stock = torch.nn.functional.interpolate(logits_4d, size[::-1], mode="bilinear", align_corners=False)
    np.testing.assert_allclose(ours, stock[0, 0].numpy(), atol=1e-4)


def upsample_whole(logits: Any, spec: SamSpec, resized: tuple[int, int], size: tuple[int, int]) -> Any:
    parts = list(upsample(logits, find_steps(spec, resized, size), Area(slice(0, size[1]), slice(0, size[0]))))
    assert [rows.start for rows, _ in parts] == [0, *(rows.stop for rows, _ in parts[:-1])]
    whole = np.concatenate([part for _, part in parts])
    assert whole.shape == size[::-1]
    return whole


@pytest.mark.parametrize("family", ["segment_anything", "sam2"])
@pytest.mark.parametrize("size", SHAPES[:6])
def test_only_where_the_mask_may_be_is_upsampled(size: tuple[int, int], family: str) -> None:
    """The mask is that of the whole image, bit for bit; what is upsampled is little more than its box."""
    rng = np.random.default_rng(1)
    spec = SamSpec(family, SAM.input_size, 32, (), (), False)
    scale = SAM.input_size / max(size)
    resized = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    for top, left, bottom, right in ((0, 0, 0, 0), (0, 0, 4, 4), (9, 13, 20, 15), (0, 0, 32, 32), (31, 31, 32, 32)):
        logits = -np.abs(rng.standard_normal((32, 32), np.float32)) * rng.choice([1e-30, 1, 1e6], (32, 32))
        logits = logits.astype(np.float32)
        logits[top:bottom, left:right] *= -1
        steps = find_steps(spec, resized, size)
        whole = upsample_whole(logits, spec, resized, size) > 0
        area = find_area(logits > 0, steps)
        mask = np.zeros_like(whole)
        for rows, enlarged in upsample(logits, steps, area):
            mask[rows, area.columns] = enlarged > 0

        np.testing.assert_array_equal(mask, whole)
        if bottom == right == 4:
            assert (area.columns.stop - area.columns.start) < size[0] / 2 + 4


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    file = tmp_path / "policy.onnx"
    file.write_bytes(b"not a graph")

    with pytest.raises(BundleError, match=r"policy\.onnx cannot be loaded"):
        OnnxGraph(file)


def test_a_missing_array_is_one_line(bundle: Bundle) -> None:
    with pytest.raises(WiseEdgeError, match=r"sam\.encoder\.onnx failed: .*image") as caught:
        OnnxGraph(bundle.file("sam.encoder")).run({})
    assert "\n" not in str(caught.value)


def test_a_provider_that_is_not_there_is_no_fallback(bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
        OnnxGraph(bundle.file("sam.encoder"), CUDA)


def test_a_provider_that_drops_to_the_cpu_in_silence_is_found(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    loaded: list[bool] = []

    def preload_dlls() -> None:
        loaded.append(True)
        print("Failed to load libcudnn.so.9")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload_dlls)
    OnnxGraph(bundle.file("sam.encoder"))
    assert not loaded
    create = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *args, providers, **more: create(*args, providers=["CPUExecutionProvider"], **more),
    )

    with pytest.raises(DeviceError, match=r"CPUExecutionProvider would run instead.*onnxruntime-gpu\[cuda,cudnn\]"):
        OnnxGraph(bundle.file("sam.encoder"), CUDA)
    assert loaded
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("role", ["policy.embedding", "policy.tokenizer"])
def test_other_damaged_artifacts_are_named(bundle: Bundle, decoder: CountingGraph, tmp_path: Path, role: str) -> None:
    files = {name: bundle.file(name) for name in ("policy.embedding", "policy.tokenizer")}
    files[role] = tmp_path / "damaged.file"
    files[role].write_bytes(b"{}")

    with pytest.raises(BundleError, match=r"damaged\.file"):
        GraphPolicy("onnx", bundle.manifest.policy, {}, decoder, *files.values())


ARRAYS = {
    "rows": np.zeros((3, 64), np.float32),
    "columns": np.zeros((5000, 3), np.float32),
    "flat": np.zeros(64, np.float32),
    "text": np.full((5000, 64), "a"),
    "numbers": np.zeros((5000, 64), np.int32),
}
HEADERS = {
    "longer": "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 64)}",
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 64)}",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (5000, 64)}",
    "nested": "(" * 9000,
    "huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1" * 60_000 + ", 64)}",
    "code": "{'descr': __import__('os'), 'fortran_order': False, 'shape': (5000, 64)}",
}


@pytest.mark.parametrize("case", [*ARRAYS, *HEADERS, "archive"])
def test_an_embedding_of_another_kind_is_named(
    bundle: Bundle, decoder: CountingGraph, tmp_path: Path, case: str
) -> None:
    file = tmp_path / "table.npy"
    if case in ARRAYS:
        np.save(file, ARRAYS[case])
    elif case == "archive":
        with file.open("wb") as stream:
            np.savez(stream, a=ARRAYS["rows"])
    else:
        header = HEADERS[case].encode() + b"\n"
        file.write_bytes(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(1000))
    with pytest.raises(BundleError, match=r"table\.npy (is not an array|has ).*export the bundle again") as caught:
        GraphPolicy("onnx", bundle.manifest.policy, {}, decoder, file, bundle.file("policy.tokenizer"))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_neither_pads_nor_cuts(bundle: Bundle, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.enable_padding(length=1 << 30)
    tokenizer.enable_truncation(2)
    (tmp_path / "a.json").write_text(tokenizer.to_str())
    found, expected = (
        PolicyText(file, bundle.manifest.policy) for file in (tmp_path / "a.json", bundle.file("policy.tokenizer"))
    )
    assert found.prompt("a ring", "wise-s", (4, 4)) == expected.prompt("a ring", "wise-s", (4, 4))


def test_a_graph_without_an_output_is_named(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"sam\.encoder\.onnx lacks the output nothing; export the bundle again"):
        OnnxGraph(bundle.file("sam.encoder")).check_outputs(["nothing"])


def test_a_graph_whose_names_are_no_text_is_named_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "na\xffme".encode("latin-1")  # of an output, where Python expects UTF-8
    node = b"\x0a\x01a\x12" + bytes([len(name)]) + name + b"\x22\x08Identity"
    value = b"\x12\x08\x0a\x06\x08\x01\x12\x02\x0a\x00"
    inner, output = b"\x0a\x01a" + value, b"\x0a" + bytes([len(name)]) + name + value
    graph = b"".join(
        tag + bytes([len(part)]) + part
        for tag, part in ((b"\x0a", node), (b"\x12", b"g"), (b"\x5a", inner), (b"\x62", output))
    )
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08\x3a" + bytes([len(graph)]) + graph + b"\x42\x02\x10\x0d")
    with pytest.raises(BundleError, match=r"a\.onnx cannot be loaded"):
        OnnxGraph(tmp_path / "a.onnx")
    assert capfd.readouterr().out == ""


def test_a_tokenizer_of_another_policy_is_named(bundle: Bundle, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    text = tokenizer.to_str().replace(SPECIAL[5], "<|picture|>")
    (tmp_path / "other.json").write_text(text)

    with pytest.raises(BundleError, match=r"other\.json has no token '<\|image_pad\|>'"):
        PolicyText(tmp_path / "other.json", bundle.manifest.policy)


def test_the_torch_policy_names_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.safetensors is missing, .*; copy the whole checkpoint"):
        TorchPolicy(tmp_path)
