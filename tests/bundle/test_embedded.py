"""The committed models load, belong together, and answer scenes that they were not trained on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from wise_edge.bundle.store import SHIPPED, Bundle, load, resolve_bundle, resolve_checkpoint
from wise_edge.datasets import open_dataset
from wise_edge.evaluation.evaluate import evaluate_masks, evaluate_session, summarize
from wise_edge.files.hashing import hash_file
from wise_edge.runtimes.session import Session
from wise_edge.scenes import sample

SAMPLES = 40
LEAST_BOX_ACCURACY = 0.75
"""On these few scenes; docs/results.md has the figures on 500 test scenes."""
ASSETS = resolve_bundle(None).parent


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load(resolve_bundle(None), verify_hashes=True)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.from_bundle()


@pytest.mark.parametrize("shipped", SHIPPED)
def test_the_bundle_was_made_from_the_committed_checkpoints(shipped: str) -> None:
    bundle = load(resolve_bundle(shipped), verify_hashes=True)
    policy = resolve_checkpoint(shipped, "policy")
    for part, folder in (("policy", policy), ("sam", resolve_checkpoint("embedded", "sam"))):
        recorded = bundle.manifest.provenance[f"{part}_model.safetensors_sha256"]
        assert recorded == hash_file(folder / "model.safetensors")
    assert bundle.file("policy.tokenizer").read_bytes() == (policy / "tokenizer.json").read_bytes()
    assert all(figure.passed for figure in bundle.manifest.verification)


def test_it_is_known_as_embedded_wherever_it_lies(bundle: Bundle) -> None:
    assert all(load(resolve_bundle(shipped)).is_embedded for shipped in SHIPPED)
    provenance = bundle.manifest.provenance
    for other in ({"policy": "/models/embedded"}, {"policy_adapter": "/adapters/mugs"}, {"policy": ""}):
        changed = replace(bundle.manifest, provenance={**provenance, **other})
        assert not replace(bundle, manifest=changed).is_embedded, other


def test_the_assets_are_small() -> None:
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) < 45e6


@pytest.mark.parametrize(
    ("shipped", "variant", "tokens"), [("embedded-start", "verbose", (60, 130)), ("embedded", "wise-s", (8, 22))]
)
def test_the_policy_answers_and_finds(shipped: str, variant: str, tokens: tuple[int, int]) -> None:
    session, scenes = Session.from_bundle(shipped), open_dataset("scenes", None, "validation")
    figures = summarize(list(evaluate_session(session, scenes, range(SAMPLES), variant)))
    assert figures["valid_rate"] >= 0.99
    assert figures["box_accuracy"] >= LEAST_BOX_ACCURACY
    assert tokens[0] < figures["rationale_tokens_mean"] < tokens[1]


def test_the_segmenter_outlines_what_it_is_pointed_at(session: Session) -> None:
    scenes = open_dataset("scenes", None, "validation")
    assert summarize(list(evaluate_masks(session.mask, scenes, range(SAMPLES))))["giou"] >= 0.93


def test_torch_and_the_bundle_agree(session: Session) -> None:
    pytest.importorskip("torch")
    torch_session = Session.from_checkpoints(
        resolve_checkpoint("embedded", "policy"), resolve_checkpoint("embedded", "sam")
    )
    for index in range(5):
        labeled = sample("validation", index)
        ours, theirs = (s.segment(labeled.scene.image, labeled.request, "wise-s") for s in (session, torch_session))
        assert ours.text == theirs.text
        assert ours.mask is not None and theirs.mask is not None
        union = np.logical_or(ours.mask, theirs.mask).sum()
        assert np.logical_and(ours.mask, theirs.mask).sum() >= 0.99 * union


def test_transformers_loads_the_policy_as_an_ordinary_folder() -> None:
    transformers = pytest.importorskip("transformers")
    folder = resolve_checkpoint("embedded", "policy")
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    labeled = sample("validation", 0)
    image = np.asarray(labeled.scene.image)
    inputs = processor(images=[image], text=["<|vision_start|><|image_pad|><|vision_end|>"], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert model.config.model_type == "qwen2_5_vl"
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() == model.config.text_config.vocab_size


def test_an_altered_file_of_the_same_size_is_named(tmp_path: Path, bundle: Bundle) -> None:
    for file in bundle.directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    altered = tmp_path / bundle.artifact("sam.decoder").path
    data = bytearray(altered.read_bytes())
    data[len(data) // 2] ^= 1
    altered.write_bytes(data)
    image = tmp_path / "image.png"
    Image.fromarray(sample("validation", 0).scene.image).save(image)
    command = [sys.executable, "-m", "wise_edge", "run", str(image), "the ring", "--bundle", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert altered.name in ran.stderr and "Traceback" not in ran.stderr and ran.stderr.count("\n") == 1
