"""Every backend asks in the words of any template, alike, and what it keeps between queries changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from wise_edge.bundle.store import load, resolve_bundle, resolve_checkpoint
from wise_edge.policy.prompts import PromptSet, Template
from wise_edge.runtimes.base import Decoding, PolicyBackend, Request
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph
from wise_edge.runtimes.policy.graph import GraphPolicy
from wise_edge.runtimes.policy.torch_policy import TorchPolicy
from wise_edge.scenes import sample

BUNDLE = load(resolve_bundle("embedded"))
PROMPTS = PromptSet(
    "mine",
    "Find the object.",
    {
        "plain": Template("{image}{query} Think briefly, answer."),
        "quoted": Template("Please find '{query}', Think briefly, answer."),
        "other": Template('Please find "{query}", Answer only.', rationale=False),
        "behind": Template("In {image}: {query} Think briefly, answer."),
        "first": Template("{query} {image} Think briefly, answer."),
        "begun": Template("{query} Think briefly, answer.", prefill="<think>The"),
        "given": Template("{query} Answer only.", prefill="<think></think><answer>"),
        "stopped": Template("{query} Think briefly, answer.", stop=("</think>",)),
    },
)
SPEC = replace(BUNDLE.manifest.policy, prompts=PROMPTS, default_variant="plain")
IMAGES = [sample("test", place).scene.image for place in (0, 1)]
QUERIES = ("the red ring", "the large star")
FREE, FORCED = Decoding(forced=False), Decoding()
ASKED = [*((QUERIES[0], variant) for variant in PROMPTS.variants), (QUERIES[1], "quoted"), (QUERIES[1], "first")]


class Counted:
    """A graph that remembers how many tokens each run had."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.lengths: list[int] = []

    def run(self, arrays: Any) -> Any:
        self.lengths.append(next(iter(arrays.values())).shape[1])
        return self.graph.run(arrays)


def open_onnx() -> GraphPolicy:
    vision, decoder = (OnnxGraph(BUNDLE.file(role), threads=1) for role in ("policy.vision", "policy.decoder"))
    files = BUNDLE.file("policy.embedding"), BUNDLE.file("policy.tokenizer")
    return GraphPolicy("onnx", SPEC, {SPEC.grids[0]: vision}, Counted(decoder), *files)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "policy"
    shutil.copytree(resolve_checkpoint("embedded", "policy"), folder)
    (folder / "prompts.json").write_text(json.dumps(PROMPTS.to_dict()))
    return folder


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pytest.importorskip("llama_cpp")
    from wise_edge.export.to_gguf.convert import PolicyGguf

    folder = tmp_path_factory.mktemp("gguf")
    policy = PolicyGguf(resolve_checkpoint("embedded", "policy"))
    policy.write_text(folder / "text.gguf", "F32", lambda *_: None)
    policy.write_vision(folder / "vision.gguf", "F32", lambda *_: None)
    return folder / "text.gguf", folder / "vision.gguf"


@pytest.fixture(scope="module", params=["onnx", "llama"])
def opening(request: pytest.FixtureRequest) -> Callable[[], PolicyBackend[Any]]:
    if request.param == "onnx":
        return open_onnx
    files = request.getfixturevalue("gguf")
    from wise_edge.runtimes.policy.llama import LlamaPolicy

    return lambda: LlamaPolicy("llama", SPEC, *files, BUNDLE.file("policy.tokenizer"), threads=1)


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> dict[tuple[int, str, str, bool], str]:
    """What the checkpoint writes on torch, which runs each prompt as a whole."""
    policy = TorchPolicy(checkpoint)
    found = {}
    for place, image in enumerate(IMAGES):
        encoded = policy.encode(image)
        for query, variant in ASKED:
            for decoding in (FREE, FORCED):
                output = policy.generate(encoded, Request(query, variant, decoding))
                found[place, query, variant, decoding.forced] = output.text
    return found


def test_every_template_is_answered_as_by_the_checkpoint_whatever_was_asked_before(
    opening: Callable[[], PolicyBackend[Any]], expected: dict[tuple[int, str, str, bool], str]
) -> None:
    policy = opening()
    frames = [policy.encode(image) for image in IMAGES]
    for query, variant in ASKED:
        for decoding in (FREE, FORCED):
            for place, frame in enumerate(frames):
                output = policy.generate(frame, Request(query, variant, decoding))
                assert output.text == expected[place, query, variant, decoding.forced], (query, variant)


def test_the_templates_do_not_write_alike(expected: dict[tuple[int, str, str, bool], str]) -> None:
    of = {variant: expected[0, QUERIES[0], variant, False] for variant in PROMPTS.variants}
    forced = {variant: expected[0, QUERIES[0], variant, True] for variant in PROMPTS.variants}
    assert of["begun"].startswith("<think>The") and forced["begun"].startswith("<think>The")
    assert forced["given"].startswith('<think></think><answer>{"bbox": [')
    assert forced["other"].startswith('<answer>{"bbox": [')
    assert "</think>" not in of["stopped"] and "<think>" in of["stopped"]
    assert all(text.endswith("}</answer>") for text in forced.values())
    assert len(set(of.values())) > 4


def lengths(policy: GraphPolicy, *asked: tuple[Any, str, str]) -> Iterator[list[int]]:
    """Yield how many tokens each run up to the first written token had, query by query."""
    decoder: Any = policy._decoder
    for frame, query, variant in asked:
        decoder.lengths.clear()
        output = policy.generate(frame, Request(query, variant, FREE))
        yield decoder.lengths[: len(decoder.lengths) - output.tokens.decode_steps]


def test_a_query_runs_only_what_the_last_one_did_not_leave() -> None:
    policy = open_onnx()
    text = policy._text
    first, second = (policy.encode(image) for image in IMAGES)
    suffix = {variant: len(text.prompt("the red ring", variant, (4, 4)).suffix) for variant in PROMPTS.variants}
    prefix = {variant: text.prompt("the red ring", variant, (4, 4)).prefix for variant in PROMPTS.variants}
    ask = [(first, "the red ring", variant) for variant in ("plain", "quoted", "quoted", "other", "plain", "behind")]

    found = list(lengths(policy, *ask))

    def image_run(variant: str) -> int:
        return 16 + len(prefix[variant].after)

    assert found[0] == [suffix["plain"]]
    assert found[1] == [len(prefix["quoted"].after) - 1, suffix["quoted"]]  # the words between picture and query
    assert found[2] == [suffix["quoted"]]
    between = len(prefix["other"].after) - len(common(prefix["other"].after, prefix["quoted"].after))
    assert found[3] == [*([between] if between else []), suffix["other"]]
    assert found[4] == [suffix["plain"]]  # the picture's keys and values are a part of those that were kept
    assert found[5] == [len(prefix["behind"].before), image_run("behind"), suffix["behind"]]

    policy.generate(second, Request("the red ring", "behind", FREE))
    decoder: Any = policy._decoder
    decoder.lengths.clear()
    third = policy.encode(IMAGES[0])  # prepared for the latest variant
    assert decoder.lengths == [image_run("behind")]
    (run,) = lengths(policy, (third, "the large star", "behind"))
    assert run == [len(text.prompt("the large star", "behind", (4, 4)).suffix)]


def common(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a for a, b in zip(left, right, strict=False) if a == b)


def test_queries_of_several_templates_are_answered_together_as_one_by_one(gguf: tuple[Path, Path]) -> None:
    from wise_edge.runtimes.policy.llama import LlamaPolicy

    policy = LlamaPolicy("llama", SPEC, *gguf, BUNDLE.file("policy.tokenizer"), threads=1)
    frame = policy.encode(IMAGES[0])
    requests = [Request(query, variant) for variant in PROMPTS.variants for query in QUERIES]
    single = [policy.generate(frame, request).text for request in requests]

    assert [output.text for output in policy.generate_many(frame, requests)] == single


def test_a_further_query_costs_llama_its_own_words(gguf: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from wise_edge.runtimes.policy.llama import LlamaPolicy

    policy = LlamaPolicy("llama", SPEC, *gguf, BUNDLE.file("policy.tokenizer"), threads=1)
    frame = policy.encode(IMAGES[0])
    run: list[int] = []
    append, append_image = policy._model.append_each, policy._model.append_image

    def counted(pieces: Any, **named: Any) -> npt.NDArray[np.float32]:
        run.extend(len(piece.tokens) for piece in pieces)
        return append(pieces, **named)

    def counted_image(*arguments: Any) -> int:
        run.append(0)
        return append_image(*arguments)

    monkeypatch.setattr(policy._model, "append_each", counted)
    monkeypatch.setattr(policy._model, "append_image", counted_image)

    def ask(query: str, variant: str) -> list[int]:
        run.clear()
        output = policy.generate(frame, Request(query, variant, FREE))
        return run[: len(run) - output.tokens.decode_steps]

    def suffix(query: str, variant: str) -> int:
        return len(policy._text.prompt(query, variant, (4, 4)).suffix)

    words = len(policy._text.prompt("a", "quoted", (4, 4)).prefix.after) - 1
    assert ask("the red ring", "plain") == [suffix("the red ring", "plain")]
    assert ask("the red ring", "quoted") == [words, suffix("the red ring", "quoted")]
    assert ask("the large star", "quoted") == [suffix("the large star", "quoted")]
    begun = ask("the large star", "first")
    assert begun[1] == 0 and begun[0] < len(policy._text.prompt("the large star", "first", (4, 4)).prefix.before)
    assert begun[2:] == [1, suffix("the large star", "first")]
