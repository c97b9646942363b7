"""A session maps answers to the image, reuses what it may, and chooses its backends as dispatch says."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_session import FakeImage, FakeMask, FakePolicy, completion
from specs import POLICY, SAM
from wise_edge import load_bundle
from wise_edge.bundle.manifest import Artifact, Manifest
from wise_edge.errors import DeviceError, MissingExtraError, QueryCancelledError, UsageError, WiseEdgeError
from wise_edge.policy.answers.form import BOX_LABEL_LIST, BOX_POINT_LIST
from wise_edge.rle import mask_of_runs
from wise_edge.runtimes.backends import BACKENDS
from wise_edge.runtimes.base import MaskOutput, MaskPrompt, PolicyOutput, Request
from wise_edge.runtimes.deadline_options import list_options
from wise_edge.runtimes.dispatch import DeviceCapabilities, list_candidates, list_rejected
from wise_edge.runtimes.image_cache import CachedImage, ImageCache
from wise_edge.runtimes.results import BackendChoice, Latencies
from wise_edge.runtimes.session import Session

PICTURE = np.random.default_rng(0).integers(0, 256, (56, 224, 3), np.uint8)
PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
ONNX = DeviceCapabilities(("onnxruntime",))
CUDA = DeviceCapabilities(("onnxruntime",), ("onnx-cuda",))
TORCH = DeviceCapabilities(("torch", "transformers", "segment_anything"))
EVERYTHING = DeviceCapabilities(("onnxruntime", "torch", "transformers", "segment_anything"), ("onnx-cuda",))
BARE = DeviceCapabilities(())
LLAMA = DeviceCapabilities(("llama_cpp",))
ROLES = {row.name: [role for support in row.parts.values() for role in support.roles] for row in BACKENDS}


def make_session(text: str | None = None) -> tuple[Session, FakePolicy]:
    policy = FakePolicy() if text is None else FakePolicy(lambda *_: text)
    choice = BackendChoice("fake", "the test asked for it")
    return Session(policy, FakeMask(), {"policy": choice, "mask": choice}), policy


def make_manifest(
    *, graphs: bool = True, checkpoints: bool = True, gguf: bool = False, precision: str = "fp16"
) -> Manifest:
    roles = {*(ROLES["onnx"] if graphs else ()), *(ROLES["llama"] if gguf else ())}
    artifacts = tuple(Artifact(role, "onnx", precision, role, 1, "0" * 64) for role in roles)
    provenance = {"policy": "embedded", "sam": "embedded"} if checkpoints else {}
    return Manifest("tiny", "", POLICY, SAM, artifacts, True, (), provenance)


def names(manifest: Manifest, device: DeviceCapabilities, requested: str = "auto") -> list[str]:
    return [row.name for row in list_candidates(manifest, device, "policy", requested)]


def test_answers_are_mapped_to_the_picture() -> None:
    session, _ = make_session()

    result = session.segment(PICTURE, "  the   ring ", "wise-s")

    assert result.query == "the ring"
    assert (result.box, result.points) == ((56, 14, 168, 42), ((101, 25), (121, 30)))
    assert result.mask is not None
    assert result.mask.shape == PICTURE.shape[:2]
    assert result.image_size == (224, 56)
    assert (result.status, result.answer_valid, result.reason) == ("found", True, None)
    assert [(item.box, item.points, item.label) for item in result.objects] == [(result.box, result.points, None)]


def test_phases_sum_up_and_a_known_picture_costs_nothing_again() -> None:
    session, policy = make_session()

    first = session.segment(PICTURE, "the ring").latency_ms
    again = session.segment(PICTURE.copy(), "the star").latency_ms

    assert (first.preprocess, first.vision_encode, first.prefill, first.mask_encode) == (2.0, 20.0, 12.0, 30.0)
    assert (again.preprocess, again.vision_encode, again.prefill, again.mask_encode) == (0.0, 0.0, 7.0, 0.0)
    assert policy.encoded == 1


def test_a_picture_is_encoded_for_the_segmenter_while_the_policy_writes() -> None:
    encoding, writing = threading.Event(), threading.Event()

    class Mask(FakeMask):
        def encode(self, image: npt.NDArray[np.uint8]) -> FakeImage:
            encoding.set()
            assert writing.wait(10), "the policy did not write meanwhile"
            return super().encode(image)

    def write(*_: object) -> str:
        if encoding.wait(10):
            writing.set()
        return completion()

    choice = BackendChoice("fake", "the test asked for it")
    session = Session(FakePolicy(write), Mask(), {"policy": choice, "mask": choice}, overlap_mask_encoding=True)

    first = session.segment(PICTURE, "the ring")
    again = session.segment(PICTURE, "the star")

    assert writing.is_set()
    assert (first.latency_ms.mask_encode, again.latency_ms.mask_encode) == (30.0, 0.0)
    assert first.mask is not None
    session.forget()
    assert session.segment(PICTURE, "the ring").latency_ms.mask_encode == 30.0


def test_a_session_that_forgot_is_as_new() -> None:
    policy = Drafted(lambda _, query, __: completion(query))
    session = Session(policy, FakeMask(), {}, frames=2)
    first = session.segment(PICTURE, "the ring").latency_ms
    options = list_options(["wise-s", "answer"], None, None)
    assert session.latency_history.choose(1e9, options).expected_ms is not None

    session.forget()

    assert session.latency_history.choose(1e9, options).expected_ms is None
    again = session.segment(PICTURE, "the ring")
    assert not again.frame_reused
    assert again.latency_ms.vision_encode == first.vision_encode == 20.0
    assert policy.drafts == ("", "")


def test_a_result_says_when_its_phases_ran() -> None:
    session, _ = make_session()
    first, again = session.segment(PICTURE, "the ring"), session.segment(PICTURE, "the star")

    phases = ["preprocess", "vision_encode", "prefill", "prefill", "decode", "preprocess", "mask_encode", "mask_decode"]
    assert [span.phase for span in first.spans] == phases
    assert [span.phase for span in again.spans] == ["prefill", "decode", "mask_decode"]
    for result in (first, again):
        assert Latencies.of(result.spans, result.latency_ms.total) == result.latency_ms
        assert "spans" not in result.to_dict()
    assert first.spans[1].start_s == first.spans[0].end_s == first.spans[0].start_s + 0.001


def test_queries_of_a_batch_are_laid_one_after_the_other() -> None:
    session, _ = make_session()
    first, second = session.segment_many(PICTURE, ["the ring", "the star"])
    starts = [next(s.start_s for s in result.spans if s.phase == "decode") for result in (first, second)]
    assert starts[0] < starts[1]


def test_a_loaded_bundle_is_opened_as_its_folder_is(tiny_bundle: Path) -> None:
    session = Session.from_bundle(load_bundle(tiny_bundle), policy_backend="onnx", threads=1)
    assert session.segment(PICTURE, "the ring").backends["policy"].name == "onnx"


def test_what_fails_beside_the_policy_is_raised() -> None:
    class Mask(FakeMask):
        def encode(self, image: npt.NDArray[np.uint8]) -> FakeImage:
            raise WiseEdgeError("the encoder failed")

    session = Session(FakePolicy(), Mask(), {}, overlap_mask_encoding=True)
    with pytest.raises(WiseEdgeError, match="the encoder failed"):
        session.segment(PICTURE, "the ring")


def test_another_picture_in_the_same_buffer_is_seen() -> None:
    session, policy = make_session()
    buffer = PICTURE.copy()
    session.segment(buffer, "the ring")
    buffer[0, 0, 0] ^= 1

    assert not session.segment(buffer, "the ring").frame_reused
    assert not session.segment(np.ascontiguousarray(buffer.reshape(224, 56, 3)), "the ring").frame_reused
    assert policy.encoded == 3


def test_a_picture_that_is_a_view_is_taken() -> None:
    session, _ = make_session()

    assert session.segment(PICTURE[::-1, ::2], "the ring").answer_valid
    assert session.segment(PICTURE[::-1, ::2].copy(), "the ring").frame_reused


@pytest.mark.parametrize("text", ["", "I see nothing.", "<answer></answer>", '<answer>{"bbox": []}</answer>'])
def test_an_answer_that_cannot_be_read_is_a_result(text: str) -> None:
    session, _ = make_session(text)

    result = session.segment(PICTURE, "the ring")

    assert (result.status, result.answer_valid, result.text) == ("unreadable", False, text)
    assert result.objects == ()
    assert (result.box, result.points, result.mask, result.score) == (None, None, None, None)
    assert result.reason
    assert json.loads(json.dumps(result.to_dict()))["mask"] is None


def test_every_object_of_an_answer_has_a_mask() -> None:
    boxes = [{"bbox_2d": [0, 0, 28, 56], "label": "cup"}, {"bbox_2d": [14, 28, 56, 84], "label": "mug"}]
    session, policy = make_session("```json\n" + json.dumps(boxes) + "\n```")
    policy.form = BOX_LABEL_LIST

    result = session.segment(PICTURE, "what one drinks from")

    assert (result.status, result.reason, result.mask_reason) == ("found", None, None)
    assert [item.box for item in result.objects] == [(0, 0, 56, 28), (28, 14, 112, 42)]
    assert [(item.label, item.points, item.score) for item in result.objects] == [("cup", (), 0.9), ("mug", (), 0.9)]
    assert [int(item.mask.sum()) for item in result.objects] == [56 * 28, 84 * 28]
    assert (result.box, result.points, result.score) == ((0, 0, 56, 28), (), 0.9)
    assert result.mask is not None
    np.testing.assert_array_equal(result.mask, result.objects[0].mask | result.objects[1].mask)
    assert result.latency_ms.mask_decode == 8.0
    data = json.loads(json.dumps(result.to_dict()))
    assert [(each["label"], each["mask_px"]) for each in data["objects"]] == [("cup", 1568), ("mug", 2352)]
    np.testing.assert_array_equal(mask_of_runs(data["objects"][1]["mask"]), result.objects[1].mask)
    assert (data["status"], data["mask_px"]) == ("found", 1568 + 2352 - 28 * 14)


def test_that_nothing_is_there_is_an_answer() -> None:
    session, policy = make_session("<answer>[]</answer>")
    policy.form = BOX_POINT_LIST

    result = session.segment(PICTURE, "the unicorn")

    assert (result.status, result.answer_valid, result.reason, result.objects) == ("nothing", True, None, ())
    assert (result.box, result.points, result.score) == (None, None, None)
    assert result.mask is not None
    assert (result.mask.shape, bool(result.mask.any())) == (PICTURE.shape[:2], False)
    assert result.latency_ms.mask_decode == 0.0
    data = json.loads(json.dumps(result.to_dict()))
    assert (data["status"], data["objects"], data["mask_px"], data["reason"]) == ("nothing", [], 0, None)
    assert data["mask_reason"] == "nothing that matches the query was found"


def test_what_was_mended_is_in_the_result() -> None:
    session, _ = make_session(completion(answer="{'bbox': [84, 84, 28, 28], 'points_1': [50, 50]}"))

    result = session.segment(PICTURE, "the ring")

    assert result.answer_valid
    assert "single quotes" in result.repairs


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)]
)
def test_an_array_that_is_no_picture_is_refused(image: npt.NDArray[np.uint8]) -> None:
    session, _ = make_session()

    with pytest.raises(UsageError, match="uint8 RGB"):
        session.segment(image, "the ring")


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_masks_round_trip_through_run_lengths(height: int, width: int, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(height, width)
    session, _ = make_session()
    found = session.segment(PICTURE, "the ring")
    result = replace(found, objects=(replace(found.objects[0], mask=mask),))

    data = json.loads(json.dumps(result.to_dict()))

    for coded in (data["mask"], data["objects"][0]["mask"]):
        assert isinstance(coded["counts"], str)
        np.testing.assert_array_equal(mask_of_runs(coded), mask)


def test_the_result_as_json_has_every_part() -> None:
    session, _ = make_session()

    data = json.loads(json.dumps(session.segment(PICTURE, "the ring").to_dict()))

    assert data["backends"]["mask"] == {"name": "fake", "reason": "the test asked for it", "rejected": []}
    assert data["energy_j"] is None
    assert data["energy_reason"]
    assert set(data["latency_ms"]) >= {"preprocess", "vision_encode", "prefill", "decode", "mask_encode", "total"}
    assert set(data["tokens"]) == {"prompt", "image", "rationale", "answer", "forced", "decode_steps"}


def test_auto_lists_what_can_run_best_first() -> None:
    assert names(make_manifest(), EVERYTHING) == ["onnx-cuda", "onnx", "torch"]
    assert names(make_manifest(), ONNX) == ["onnx"]
    assert names(make_manifest(), TORCH) == ["torch"]
    assert names(make_manifest(graphs=False), EVERYTHING) == ["torch"]


@pytest.mark.parametrize(
    ("requested", "device", "graphs", "checkpoints", "error", "words"),
    [
        ("onnx", BARE, True, True, MissingExtraError, r"pip install 'wise-edge\[onnx\]'"),
        ("onnx", TORCH, True, True, MissingExtraError, "onnxruntime"),
        ("onnx", ONNX, False, True, DeviceError, "--target onnx"),
        ("onnx-cuda", ONNX, True, True, DeviceError, r"pip install 'wise-edge\[gpu\]'"),
        ("torch", ONNX, True, True, MissingExtraError, r"pip install 'wise-edge\[export\]'"),
        ("torch", TORCH, True, False, DeviceError, "no checkpoint"),
        ("auto", BARE, True, True, MissingExtraError, r"pip install 'wise-edge\[onnx\]'"),
        ("openvino", ONNX, True, True, UsageError, "auto, tensorrt, edgellm, onnx-cuda, llama-gpu, onnx, llama, torch"),
        ("llama", LLAMA, True, True, DeviceError, "--target gguf"),
    ],
)
def test_a_wish_that_cannot_be_met_is_no_fallback(
    requested: str, device: DeviceCapabilities, graphs: bool, checkpoints: bool, error: type[WiseEdgeError], words: str
) -> None:
    with pytest.raises(error, match=words):
        list_candidates(make_manifest(graphs=graphs, checkpoints=checkpoints), device, "policy", requested)


@pytest.mark.parametrize(
    ("device", "graphs", "expected"),
    [
        (LLAMA, True, ["llama"]),
        (DeviceCapabilities(("llama_cpp",), ("llama-gpu",)), True, ["llama-gpu", "llama"]),
        (DeviceCapabilities(("llama_cpp", "onnxruntime"), ("llama-gpu",)), True, ["llama-gpu", "onnx", "llama"]),
        (DeviceCapabilities(("llama_cpp", "onnxruntime")), False, ["llama"]),
    ],
)
def test_gguf_files_are_run_where_llama_cpp_is(device: DeviceCapabilities, graphs: bool, expected: list[str]) -> None:
    assert names(make_manifest(graphs=graphs, gguf=True), device) == expected


def test_what_would_have_been_better_is_told_with_the_reason() -> None:
    passed = list_rejected(make_manifest(gguf=True), ONNX, "policy", "onnx")

    assert [line.split(":")[0] for line in passed] == ["tensorrt", "edgellm", "onnx-cuda", "llama-gpu"]
    assert "pip install 'wise-edge[gpu]'" in passed[2]
    assert "pip install 'wise-edge[llama]'" in passed[3]
    assert list_rejected(make_manifest(), ONNX, "mask", "tensorrt") == ()


def test_a_bundle_of_gguf_files_asks_for_llama_cpp() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'wise-edge\[llama\]'"):
        names(make_manifest(graphs=False, gguf=True), ONNX)

    with pytest.raises(DeviceError, match="built for the CPU"):
        names(make_manifest(gguf=True), LLAMA, "llama-gpu")


def test_graphs_in_bfloat16_are_left_to_tensorrt() -> None:
    manifest = make_manifest(precision="bf16")
    assert names(manifest, EVERYTHING) == ["torch"]
    with pytest.raises(DeviceError, match="policy is in bf16, which only TensorRT runs"):
        names(manifest, ONNX)


def test_a_wish_that_can_be_met_is_the_only_candidate() -> None:
    assert names(make_manifest(), CUDA, "onnx") == ["onnx"]


def test_the_tiny_bundle_opens_on_what_is_asked_for(tiny_bundle: Path) -> None:
    session = Session.from_bundle(tiny_bundle, policy_backend="onnx", mask_backend="torch", threads=1)

    result = session.segment(PICTURE, "the ring", "answer")

    assert {part: choice.name for part, choice in result.backends.items()} == {"policy": "onnx", "mask": "torch"}
    assert (session.policy.name, session.mask.name) == ("onnx", "torch")


def test_a_session_that_is_dropped_is_freed_at_once(tiny_bundle: Path) -> None:
    session = Session.from_bundle(tiny_bundle, policy_backend="onnx", mask_backend="onnx")
    result = session.segment(PICTURE, "the ring", "answer")
    session.segment_many(PICTURE, ["the ring", "the star"], "answer")
    held = [weakref.ref(part) for part in (session, session.policy, session.mask)]

    del session

    assert [part() for part in held] == [None, None, None]
    assert result.image is not None


def test_the_thread_of_a_dropped_session_ends() -> None:
    choice = BackendChoice("fake", "the test asked for it")
    before = set(threading.enumerate())
    session = Session(FakePolicy(), FakeMask(), {"policy": choice, "mask": choice}, overlap_mask_encoding=True)
    session.segment(PICTURE, "the ring")
    (worker,) = set(threading.enumerate()) - before

    del session

    worker.join(60)
    assert not worker.is_alive()


def test_auto_says_what_did_not_start(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    create = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: PROVIDERS)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *args, providers, **more: create(*args, providers=["CPUExecutionProvider"], **more),
    )

    session = Session.from_bundle(tiny_bundle, threads=1)

    assert session.choices["policy"].name == "onnx"
    assert "onnx-cuda did not start" in session.choices["policy"].reason
    with pytest.raises(DeviceError):
        Session.from_bundle(tiny_bundle, policy_backend="onnx-cuda")


def test_several_queries_share_the_picture_and_the_policys_time() -> None:
    session, policy = make_session()
    single = [make_session()[0].segment(PICTURE, query) for query in ("the ring", "the star")]

    results = session.segment_many(PICTURE, ["the ring", " the  star "])

    assert [result.query for result in results] == ["the ring", "the star"]
    assert [(r.box, r.points, r.text) for r in results] == [(r.box, r.points, r.text) for r in single]
    assert [result.frame_reused for result in results] == [False, True]
    assert [result.latency_ms.mask_encode for result in results] == [30.0, 0.0]
    assert policy.encoded == 1
    assert session.segment_many(PICTURE, []) == []
    assert session.segment_many(PICTURE, ["the ring"])[0].frame_reused
    with pytest.raises(UsageError, match="empty"):
        session.segment_many(PICTURE, ["the ring", " "])


def test_a_policy_that_batches_is_asked_once() -> None:
    class Batching(FakePolicy):
        asked: tuple[str, ...] = ()

        def generate_many(self, encoded: FakeImage, requests: Sequence[Request]) -> list[PolicyOutput]:
            self.asked += tuple(request.query for request in requests)
            return [self.generate(encoded, request).shared(len(requests)) for request in requests]

    policy = Batching()
    results = Session(policy, FakeMask(), {}).segment_many(PICTURE, ["the ring", "the star"], "wise-s")

    assert policy.asked == ("the ring", "the star")
    assert [result.latency_ms.prefill for result in results] == [5.0 + 3.5, 3.5]


def test_the_masks_of_several_queries_are_made_in_one_call() -> None:
    calls: list[int] = []

    class Counting(FakeMask):
        def decode_many(self, encoded: FakeImage, prompts: Sequence[MaskPrompt]) -> list[MaskOutput]:
            calls.append(len(prompts))
            return super().decode_many(encoded, prompts)

    queries = ["the ring", "the star", "the cross"]
    results = Session(FakePolicy(), Counting(), {}).segment_many(PICTURE, queries)

    assert calls == [3]
    single = make_session()[0]
    for result, query in zip(results, queries, strict=True):
        expected = single.segment(PICTURE, query)
        np.testing.assert_array_equal(result.mask, expected.mask)
        assert [span.phase for span in result.spans].count("mask_decode") == 1
        assert result.latency_ms.mask_decode == expected.latency_ms.mask_decode


@pytest.mark.parametrize(("frames", "encoded"), [(1, 4), (2, 2)])
def test_as_many_pictures_are_kept_as_asked_for(frames: int, encoded: int) -> None:
    policy = FakePolicy()
    session = Session(policy, FakeMask(), {}, frames=frames)

    for image in (PICTURE, PICTURE[::-1], PICTURE, PICTURE[::-1]):
        session.segment(image, "the ring")

    assert policy.encoded == encoded
    with pytest.raises(UsageError, match="at least 1"):
        Session(policy, FakeMask(), {}, frames=0)


def test_kept_pictures_are_bounded_by_bytes() -> None:
    cache, encoded = ImageCache(8), FakePolicy().encode(PICTURE)
    pictures = [np.broadcast_to(np.uint8(n), (4000 + n, 4000, 3)) for n in range(4)]  # 48 MB each, if they were
    for picture in pictures[:3]:
        cache.add(CachedImage(picture, (4, 4), encoded))
    assert [cache.find(picture) is not None for picture in pictures] == [False, True, True, False]
    largest = np.broadcast_to(np.uint8(0), (9000, 9000, 3))
    cache.add(CachedImage(largest, (4, 4), encoded))
    assert cache.find(largest) is not None
    assert cache.find(pictures[2]) is None


def test_a_picture_is_copied_unless_it_cannot_change() -> None:
    session, _ = make_session()
    picture = PICTURE.copy()
    assert not session.segment(picture, "the ring").frame_reused
    picture[0, 0] += 1  # as a camera that reuses its buffer
    assert not session.segment(picture, "the ring").frame_reused

    fixed, view = picture.copy(), picture.view()
    fixed.flags.writeable = view.flags.writeable = False
    for image, kept in ((fixed, True), (view, False)):
        session.forget()
        session.segment(image, "the ring")
        assert np.shares_memory(session._images._images[0].pixels, image) is kept


class Drafted(FakePolicy):
    """Remembers the drafts that it was given."""

    drafts: tuple[str, ...] = ()

    def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
        self.drafts += (request.draft,)
        return super().generate(encoded, request)


def test_the_last_completion_of_a_query_is_the_draft_on_the_next_picture() -> None:
    policy = Drafted(lambda _, query, __: completion(query))
    session = Session(policy, FakeMask(), {})
    for image, query in ((PICTURE, "ring"), (PICTURE[::-1], "ring"), (PICTURE, "star"), (PICTURE, "ring")):
        session.segment(image, query)

    assert policy.drafts == ("", completion("ring"), "", "")  # a known image is asked the same by who measures


def test_completions_that_keep_changing_are_no_drafts() -> None:
    said = iter(["red", "red", "It is something else.", "red", "red", "red"])
    policy = Drafted(lambda *_: completion(next(said)))
    session = Session(policy, FakeMask(), {})
    for number in range(6):
        session.segment(np.full((8, 8, 3), number, np.uint8), "the ring")

    assert policy.drafts == ("", completion("red"), completion("red"), "", "", completion("red"))


def test_threads_share_a_session() -> None:
    busy, most = [0], [0]

    class Watched(FakePolicy):
        def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
            threading.Event().wait(0.002)
            busy[0] -= 1
            return super().generate(encoded, request)

    def write(image: npt.NDArray[np.uint8], query: str, _: str) -> str:
        return completion(f"{query} on {int(image[0, 0, 0])}")

    session = Session(Watched(write), FakeMask(), {})
    wrong = []

    def ask(number: int) -> None:
        for place in range(10):
            image = np.full((8, 8, 3), place % 3, np.uint8)
            if session.segment(image, f"ring {number}").rationale != f"ring {number} on {place % 3}":
                wrong.append((number, place))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert most == [1]


def test_a_cancelled_query_leaves_the_session_usable() -> None:
    class Cancelled(FakePolicy):
        def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
            request.check_cancelled()
            return super().generate(encoded, request)

    session, cancel = Session(Cancelled(), FakeMask(), {}), threading.Event()
    cancel.set()
    with pytest.raises(QueryCancelledError):
        session.segment(PICTURE, "the ring", cancel=cancel)
    with pytest.raises(QueryCancelledError):
        session.segment_many(PICTURE, ["the ring"], cancel=cancel)
    assert session.segment(PICTURE, "the ring").answer_valid


@pytest.mark.parametrize("part", ["policy.encode", "policy.generate", "mask.encode", "mask.decode"])
@pytest.mark.parametrize("overlap_mask_encoding", [False, True])
def test_after_an_engine_failed_the_next_query_is_answered(
    part: str, overlap_mask_encoding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(FakePolicy(), FakeMask(), {}, overlap_mask_encoding=overlap_mask_encoding)
    owner, name = part.split(".")

    def fail(*_: object) -> None:
        raise WiseEdgeError("the engine failed")

    for image in (PICTURE, PICTURE[::-1]):
        with monkeypatch.context() as patch:
            patch.setattr(getattr(session, owner), name, fail)
            with pytest.raises(WiseEdgeError, match="the engine failed"):
                session.segment(image, "the ring")
        assert session.segment(image, "the ring").mask is not None
