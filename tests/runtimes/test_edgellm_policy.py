"""The policy backend of TensorRT Edge-LLM, on a stand-in of its Python interface."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from dataclasses import fields as fields_of
from io import BytesIO
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_session import FakeMask
from wise_edge.bundle.store import EMBEDDED, load, resolve_bundle
from wise_edge.errors import DeviceError, MissingExtraError, QueryCancelledError, UsageError, WiseEdgeError
from wise_edge.policy.answers.form import BOX_POINTS
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.pattern import answer_pattern
from wise_edge.policy.image import resize
from wise_edge.policy.prompts import PromptSet, Template
from wise_edge.runtimes.backends import find_backend
from wise_edge.runtimes.base import Decoding, Request
from wise_edge.runtimes.dispatch import DeviceCapabilities, list_candidates
from wise_edge.runtimes.policy.edgellm import EdgellmPolicy
from wise_edge.runtimes.session import Session

ANSWER = '<answer>{"bbox": [1, 20, 112, 40], "points_1": [5, 30], "points_2": [0, 31]}</answer>'
THOUGHT = f"<think>The red ring.</think>{ANSWER}"
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


@dataclass
class SamplingParams:
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    max_tokens: int = 2048
    guided_decoding: tuple[str, str] | None = None
    skip_special_tokens: bool = True


@dataclass
class StreamDelta:
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None


class Stream:
    def __init__(self, deltas: list[StreamDelta]) -> None:
        self._deltas = iter(deltas)
        self.closed = False

    def __iter__(self) -> Iterator[StreamDelta]:
        return self._deltas

    def close(self) -> None:
        self.closed = True


class LLM:
    """Answers with what the test says, two characters a token."""

    made: LLM
    answer = THOUGHT
    reason = "stop"
    failure: Exception | None = None

    def __init__(self, **options: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.options = options
        LLM.made = self

    def generate_stream(self, messages: list[dict[str, Any]], parameters: SamplingParams) -> Stream:
        self.messages, self.parameters = messages, parameters
        if self.answer == "boom":
            raise AssertionError
        pieces = [self.answer[place : place + 2] for place in range(0, len(self.answer), 2)]
        deltas = [StreamDelta(piece, [7]) for piece in pieces]
        deltas.append(StreamDelta(finish_reason=self.reason))
        self.stream = Stream(deltas)
        return self.stream


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> EdgellmPolicy:
    server = ModuleType("experimental.server")
    server.__dict__.update(LLM=LLM, SamplingParams=SamplingParams)
    monkeypatch.setitem(sys.modules, "experimental", ModuleType("experimental"))
    monkeypatch.setitem(sys.modules, "experimental.server", server)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return _open()


def _open() -> EdgellmPolicy:
    bundle = load(resolve_bundle(EMBEDDED))
    checkpoint, tokenizer = Path("policy.edgellm"), bundle.file("policy.tokenizer")
    return EdgellmPolicy("edgellm", bundle.manifest.policy, checkpoint, tokenizer)


def test_a_template_with_a_prefill_is_refused_and_its_stop_text_ends_a_completion(policy: EdgellmPolicy) -> None:
    variants = {
        "begun": Template("{query}", prefill="<think>"),
        "stopped": Template("In {image}: {query}", stop=("ring.",)),
    }
    policy._spec = policy._text._spec = replace(
        policy._spec, prompts=PromptSet("mine", "", variants), default_variant="begun"
    )
    with pytest.raises(UsageError, match="cannot begin the assistant's turn, which the variant 'begun' asks for"):
        _generate(policy, "begun")
    output = _generate(policy, "stopped", decoding=Decoding(forced=False))
    assert output.finish == "end" and "ring." not in output.text and output.text
    (message,) = LLM.made.messages
    assert [part["type"] for part in message["content"]] == ["text", "image", "text"]


def _generate(policy: EdgellmPolicy, variant: str = "wise-s", **asked: Any) -> Any:
    return policy.generate(policy.encode(IMAGE), Request("the red ring", variant, **asked))


def test_the_engine_has_room_for_the_picture_and_a_whole_prompt(policy: EdgellmPolicy, tmp_path: Path) -> None:
    options = LLM.made.options
    assert options["model"] == "policy.edgellm"
    assert options["cache_dir"] == str(tmp_path / "wise-edge" / "edgellm")
    assert options["max_image_tokens"] == options["max_image_tokens_per_image"] == 16
    assert options["max_input_len"] == 1024 < options["max_kv_cache_capacity"]


def test_the_policy_gets_its_prompt_and_the_picture_in_its_size(policy: EdgellmPolicy) -> None:
    _generate(policy)
    system, user = LLM.made.messages
    assert system == {"role": "system", "content": "Find the object."}
    picture, words = user["content"]
    assert words == {"type": "text", "text": "the red ring Think briefly, answer."}
    assert picture["do_resize"] is False
    data = base64.b64decode(picture["image"].removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(data))), resize(IMAGE, (112, 112)))


def test_a_query_may_show_it_fewer_pixels(policy: EdgellmPolicy) -> None:
    encoded = policy.encode(IMAGE, 84 * 84)
    sent = Image.open(BytesIO(base64.b64decode(encoded.url.partition(",")[2])))
    assert (encoded.grid, sent.size) == ((3, 3), (84, 84))
    assert policy.encode(IMAGE).grid == policy.grid((300, 200)) == (4, 4)


def test_it_writes_greedily_and_in_the_form(policy: EdgellmPolicy) -> None:
    output = _generate(policy)
    parameters = LLM.made.parameters
    assert (parameters.top_k, parameters.skip_special_tokens) == (1, False)
    assert parameters.max_tokens <= 512
    assert parameters.guided_decoding is not None
    kind, pattern = parameters.guided_decoding
    assert kind == "regex"
    assert re.fullmatch(pattern, THOUGHT)
    assert (output.text, output.finish) == (THOUGHT, "answer")
    assert output.tokens.decode_steps == -(-len(THOUGHT) // 2)
    assert output.tokens.image == 16
    assert output.prefill_ms >= 0
    assert output.decode_ms > 0
    assert LLM.made.stream.closed


def test_free_decoding_ends_behind_the_answer(policy: EdgellmPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LLM, "answer", f"{THOUGHT}<d_think>At length.</d_think>")
    output = _generate(policy, decoding=Decoding(forced=False))
    assert LLM.made.parameters.guided_decoding is None
    assert (output.text, output.finish) == (THOUGHT, "answer")
    assert LLM.made.stream.closed


@pytest.mark.parametrize(("reason", "finish"), [("stop", "end"), ("length", "length")])
def test_an_answer_that_does_not_come(
    policy: EdgellmPolicy, reason: str, finish: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LLM, "answer", "<think>Hm.<|im_end|>")
    monkeypatch.setattr(LLM, "reason", reason)
    output = _generate(policy)
    assert (output.text, output.finish) == ("<think>Hm.", finish)


def test_what_it_cannot_do_is_refused(policy: EdgellmPolicy) -> None:
    with pytest.raises(UsageError, match="edgellm cannot limit the rationale's tokens"):
        _generate(policy, decoding=Decoding(max_rationale_tokens=5))
    with pytest.raises(UsageError, match="unknown variant"):
        _generate(policy, variant="loud")


def test_a_cancelled_query_ends_what_is_being_written(policy: EdgellmPolicy) -> None:
    cancel = Event()
    cancel.set()
    with pytest.raises(QueryCancelledError):
        _generate(policy, cancel=cancel)
    assert LLM.made.stream.closed
    assert _generate(policy, cancel=Event()).finish == "answer"


def test_a_deadline_chooses_the_variant_alone(policy: EdgellmPolicy) -> None:
    session = Session(policy, FakeMask(), {})
    assert session.segment(IMAGE, "the red ring", deadline_ms=1e6).variant == "answer"
    chosen = session.segment(IMAGE, "the red ring", deadline_ms=1e6)
    assert chosen.variant == "wise-infer"
    assert chosen.deadline is not None
    assert chosen.deadline.max_rationale_tokens is not None


def test_failures_are_passed_on(policy: EdgellmPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Stream:
        stream = Stream([])
        monkeypatch.setattr(stream, "_deltas", _raise(RuntimeError("CUDA out of memory\nmore")))
        return stream

    monkeypatch.setattr(LLM, "generate_stream", fail)
    with pytest.raises(WiseEdgeError, match=r"TensorRT Edge-LLM failed: CUDA out of memory$"):
        _generate(policy)
    monkeypatch.setattr(LLM, "failure", RuntimeError("no compatible payload"))
    with pytest.raises(DeviceError, match=r"does not start with policy\.edgellm: no compatible payload"):
        _open()


def _raise(error: Exception) -> Iterator[StreamDelta]:
    raise error
    yield


def test_the_stand_in_has_the_names_of_the_real_interface() -> None:
    pytest.importorskip("tensorrt_edgellm")
    import inspect

    engine = pytest.importorskip("experimental.server.runtime.engine")
    real = {entry.name for entry in fields_of(engine.SamplingParams)}
    assert {entry.name for entry in fields_of(SamplingParams)} <= real
    assert {entry.name for entry in fields_of(StreamDelta)} <= {entry.name for entry in fields_of(engine.StreamDelta)}
    options = {"model", "cache_dir", "max_input_len", "max_kv_cache_capacity", "max_image_tokens"}
    assert options | {"max_image_tokens_per_image"} <= inspect.signature(engine.LLM.__init__).parameters.keys()
    assert list(inspect.signature(engine.LLM.generate_stream).parameters)[:3] == ["self", "messages", "sampling_params"]
    assert "regex" in engine._GUIDE_TYPE_NAMES


@pytest.mark.parametrize(
    ("text", "rationale", "fits"),
    [
        (THOUGHT, True, True),
        (ANSWER, False, True),
        (ANSWER, True, False),
        (THOUGHT.replace("20", "020"), True, False),
        (THOUGHT.replace("112", "1120"), True, False),
        (THOUGHT.replace("ring.", "ring.</think>"), True, False),
    ],
)
def test_the_pattern_takes_the_form_alone(text: str, rationale: bool, fits: bool) -> None:
    assert bool(re.fullmatch(answer_pattern(BOX_POINTS, AnswerFrame((112, 112)), rationale=rationale), text)) == fits


def test_dispatch_names_what_is_missing() -> None:

    from wise_edge.bundle.manifest import Artifact

    manifest = load(resolve_bundle(EMBEDDED)).manifest
    role = find_backend("edgellm").parts["policy"].roles[0]
    checkpoint = Artifact(role, "edgellm", "fp16", role, 1, "0" * 64)
    whole = replace(manifest, artifacts=(*manifest.artifacts, checkpoint))

    def ask(of: Any, device: DeviceCapabilities) -> str:
        return list_candidates(of, device, "policy", "edgellm")[0].name

    assert ask(whole, DeviceCapabilities(("tensorrt_edgellm",), gpu=(8, 7))) == "edgellm"
    with pytest.raises(DeviceError, match=r"no policy\.edgellm/config\.json for .*; export it with --target edgellm"):
        ask(manifest, DeviceCapabilities(("tensorrt_edgellm",), gpu=(8, 7)))
    with pytest.raises(DeviceError, match="TensorRT Edge-LLM needs an NVIDIA GPU"):
        ask(whole, DeviceCapabilities(("tensorrt_edgellm",)))
    with pytest.raises(MissingExtraError, match=r"pip install 'wise-edge\[edgellm\]'"):
        ask(whole, DeviceCapabilities((), gpu=(8, 7)))
