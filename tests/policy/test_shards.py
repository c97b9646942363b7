"""The shards that verl's FSDP training saves: joined they are the checkpoint, and what is amiss is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import safetensors.torch
import torch

from policies.fsdp_shards import save_actor, save_shards
from tiny_qwen import FAMILIES, make_qwen, save_qwen
from wise_edge.bundle.store import load
from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.export.source.shards import join_shards
from wise_edge.policy.adapter import probe
from wise_edge.policy.checkpoint import load_policy
from wise_edge.policy.folder import check_policy_folder
from wise_edge.policy.shards import ShardedPolicy


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_qwen("qwen2_5_vl", max_position_embeddings=1024)
    return save_qwen(model, tmp_path_factory.mktemp("shards") / "whole", torch.bfloat16)


@pytest.fixture
def actor(whole: Path, tmp_path: Path) -> Path:
    return save_actor(whole, tmp_path / "global_step_20" / "actor")


def export(policy: Path, out: Path, *options: str) -> int:
    return main(["export", "--policy", str(policy), "--target", "hf", "--out", str(out), *options])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: value
        for file in folder.glob("*.safetensors")
        for name, value in safetensors.torch.load_file(file).items()
    }


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(value, expected[name]) and value.dtype == expected[name].dtype for name, value in found.items()
    )


@pytest.mark.parametrize("place", ["actor", "actor/huggingface"])
@pytest.mark.parametrize("mesh", [(2,), (2, 3)])
def test_joined_shards_are_the_checkpoint(whole: Path, tmp_path: Path, place: str, mesh: tuple[int, ...]) -> None:
    save_actor(whole, tmp_path / "actor", mesh)

    assert export(tmp_path / place, tmp_path / "joined") == 0

    assert equal(weights_of(tmp_path / "joined"), weights_of(whole))
    assert check_policy_folder(tmp_path / "joined")["model_type"] == "qwen2_5_vl"
    for name in ("config.json", "prompts.json", "tokenizer.json", "preprocessor_config.json"):
        assert (tmp_path / "joined" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_shards_of_every_family_keep_type_and_head(family: str, tied: bool, tmp_path: Path) -> None:
    base = save_qwen(make_qwen(family, tied=tied), tmp_path / "base")
    joined = tmp_path / "joined"
    joined.mkdir()

    join_shards(ShardedPolicy(save_actor(base, tmp_path / "actor", (3,))), joined, lambda *_: None)

    assert equal(weights_of(joined), weights_of(base))
    assert torch.equal(probe(load_policy(joined)), probe(load_policy(base)))


def test_large_policies_are_written_in_files_of_bounded_size(actor: Path, whole: Path, tmp_path: Path) -> None:
    joined = tmp_path / "joined"
    joined.mkdir()

    join_shards(ShardedPolicy(actor), joined, lambda *_: None, file_bytes=100_000)

    files = list(joined.glob("model-*.safetensors"))
    assert len(files) > 3 and all(file.stat().st_size < 120_000 for file in files)
    assert equal(weights_of(joined), weights_of(whole))
    assert load_policy(joined)


def test_a_bundle_is_exported_from_shards_as_they_are(actor: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    options = ["--sam", "embedded", "--target", "gguf", "--no-verify", "--out", str(out)]

    assert main(["export", "--policy", str(actor), *options]) == 0

    manifest = load(out).manifest
    assert manifest.provenance["policy"] == str(actor)
    assert manifest.policy.family == "qwen2_5_vl"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "global_step_20"]


def test_an_adapter_on_shards_is_merged(actor: Path, whole: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(load_policy(whole), config).save_pretrained(tmp_path / "adapter")
    expected = probe(peft.PeftModel.from_pretrained(load_policy(whole), tmp_path / "adapter").eval())

    assert export(actor, tmp_path / "merged", "--adapter", str(tmp_path / "adapter")) == 0

    assert (probe(load_policy(tmp_path / "merged")) - expected).abs().max() < 0.02 * expected.abs().max()


def damage_rank(folder: Path) -> None:
    file = folder / "model_world_size_2_rank_1.pt"
    file.write_bytes(file.read_bytes()[:-2000])


def save_adapter_shards(folder: Path) -> None:
    names = [f"base_model.model.layers.0.q_proj.{part}.weight" for part in ("base_layer", "lora_A.default")]
    save_shards(dict.fromkeys(names, torch.ones(4, 4)), folder)


def save_half(folder: Path) -> None:
    save_shards({"model.visual.merger.ln_q.weight": torch.ones(32)}, folder)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a rank is missing": (
        lambda folder: (folder / "model_world_size_2_rank_1.pt").unlink(),
        r"model_world_size_2_rank_1\.pt is missing; every rank saves its own",
    ),
    "two trainings": (
        lambda folder: torch.save({}, folder / "model_world_size_4_rank_0.pt"),
        "shards of 2 and of 4 ranks; move those that are old",
    ),
    "a cut file": (damage_rank, r"rank_1\.pt holds no weights that can be read safely"),
    "a pointer": (
        lambda folder: (folder / "model_world_size_2_rank_0.pt").write_bytes(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 39686\n"
        ),
        "is a Git LFS pointer",
    ),
    "nothing in them": (
        lambda folder: [torch.save({}, folder / f"model_world_size_2_rank_{rank}.pt") for rank in range(2)],
        r"rank_0\.pt holds no tensors; copy it again",
    ),
    "another state in one rank": (
        lambda folder: torch.save({"a": torch.ones(1)}, folder / "model_world_size_2_rank_1.pt"),
        r"rank_1\.pt and model_world_size_2_rank_0\.pt do not hold the same tensors \(a\)",
    ),
    "another model": (
        save_half,
        r"global_step_20/actor lacks \d+ weights .*config.json and weights must come from one",
    ),
    "no config": (lambda folder: shutil.rmtree(folder / "huggingface"), "has no huggingface/config.json"),
    "a LoRA": (save_adapter_shards, r"a LoRA adapter and its base; pass the base .* python -m verl.model_merger merge"),
    "a LoRA that is saved alone": (
        lambda folder: (save_adapter_shards(folder), (folder / "lora_adapter").mkdir()),
        r"pass the base that it was trained on with --policy and --adapter \S+/actor/lora_adapter$",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_amiss_is_one_line_and_nothing_is_written(
    case: str, actor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = WRONG[case]
    change(actor)

    with pytest.raises(UsageError, match=words):
        ShardedPolicy(actor)
    assert export(actor, tmp_path / "joined") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["global_step_20"]


def test_words_that_are_missing_are_named_before_the_shards_are_joined(
    actor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (actor / "huggingface" / "prompts.json").unlink()
    monkeypatch.setattr("wise_edge.export.pipeline.join_shards", None)

    options = ["--sam", "embedded", "--target", "gguf", "--out", str(tmp_path / "bundle")]

    assert main(["export", "--policy", str(actor), *options]) == 2
    assert "global_step_20/actor/huggingface/prompts.json" in capsys.readouterr().err


def test_a_config_with_weights_beside_it_is_used_as_it_is(actor: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / "model.safetensors", actor / "huggingface")
    (actor / "model_world_size_2_rank_1.pt").unlink()

    assert check_policy_folder(actor / "huggingface")
    assert export(actor / "huggingface", tmp_path / "out") == 2  # nothing to merge: use it as it is


def test_the_index_of_an_older_copy_is_not_copied(actor: Path, tmp_path: Path) -> None:
    index = actor / "huggingface" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))

    assert export(actor, tmp_path / "joined") == 0
    assert not (tmp_path / "joined" / index.name).exists()
