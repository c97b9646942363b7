"""Adapters as trainers leave them: every tensor finds its place, the merged policy is base plus adapter, or a refusal.

What PEFT computes with the adapter beside its base is the reference throughout.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import safetensors.torch
import torch

from tiny_qwen import FAMILIES, make_qwen, make_tokenizer, save_qwen
from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.policy import adapter as adapter_module
from wise_edge.policy.adapter import attach_adapter, merge_attached, probe
from wise_edge.policy.adapter_names import CONFIG, fit_adapter, read_adapter_config
from wise_edge.policy.architecture import load_config
from wise_edge.policy.checkpoint import load_policy

Weights = dict[str, torch.Tensor]
FILE = "adapter_model.safetensors"
PLAIN: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}

pytestmark = pytest.mark.filterwarnings(  # PEFT's advice to those who train
    "ignore:Model has `tie_word_embeddings=True`:UserWarning",
    "ignore:Setting `save_embedding_layers`:UserWarning",
    "ignore:.*weight_tying:UserWarning",
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """Return a checkpoint of a family, its head tied or not."""
    root = tmp_path_factory.mktemp("bases")

    def base(family: str = "qwen2_5_vl", tied: bool = False) -> Path:
        folder = root / f"{family}-{tied}"
        if not folder.exists():
            save_qwen(make_qwen(family, tied=tied, max_position_embeddings=1024), folder, torch.float16)
        return folder

    return base


def train(base: Path, folder: Path, **options: Any) -> torch.Tensor:
    """Save a "trained" adapter of a base; return PEFT's logits with it beside the base."""
    torch.manual_seed(0)
    model = peft.get_peft_model(load_policy(base), peft.LoraConfig(r=4, **({"init_lora_weights": False} | options)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name or "trainable_tokens_delta" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return probe(peft.PeftModel.from_pretrained(load_policy(base), folder).eval())


def edit(folder: Path, rename: Callable[[str], str] = str, **config: Any) -> Path:
    """Rename an adapter's tensors, without those that become "", and change its config."""
    weights = safetensors.torch.load_file(folder / FILE)
    renamed = {rename(name): value for name, value in weights.items() if rename(name)}
    safetensors.torch.save_file(renamed, folder / FILE, metadata={"format": "pt"})
    entries = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(entries | config))
    return folder


def merge(base: Path, adapter: Path) -> Any:
    fitted = fit_adapter(adapter, load_config(base), base=base)
    return merge_attached(attach_adapter(load_policy(base), fitted, base=base))


def export(base: Path, adapter: Path, out: Path, *options: str) -> int:
    return main(
        ["export", "--policy", str(base), "--adapter", str(adapter), "--target", "hf", "--out", str(out), *options]
    )


def older(name: str) -> str:
    """Return a name as transformers before 4.52 gave it."""
    return name.replace("model.model.language_model.", "model.model.").replace("model.model.visual.", "model.visual.")


NAMES: dict[str, Callable[[str], str]] = {
    "today's": str,
    "older": older,
    "without PEFT's prefix": lambda name: name.removeprefix("base_model.model."),
    "older, without PEFT's prefix": lambda name: older(name).removeprefix("base_model.model."),
    "PEFT's prefix twice": lambda name: f"base_model.model.{name}",
    "of a wrapper": lambda name: f"module._orig_mod.{name}",
    "with the adapter's name": lambda name: name.replace(".weight", ".default.weight"),
}


@pytest.mark.parametrize("names", NAMES)
def test_names_of_every_origin_find_their_place(bases: Callable[..., Path], tmp_path: Path, names: str) -> None:
    expected = train(bases(), tmp_path / "a", **PLAIN)

    merged = merge(bases(), edit(tmp_path / "a", NAMES[names]))

    assert torch.allclose(probe(merged), expected, atol=1e-4)
    assert (probe(load_policy(bases())) - expected).abs().max() > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_older_names_of_vision_and_language_are_mapped_in_every_family(
    bases: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    base = bases(family)
    expected = train(base, tmp_path / "a", target_modules="all-linear", modules_to_save=["visual.merger"])

    assert torch.allclose(probe(merge(base, edit(tmp_path / "a", older))), expected, atol=1e-4)


PATTERNS: dict[str, dict[str, Any]] = {
    "a pattern of older names": {"target_modules": r"^(model\.layers(?=\.).*\.(q_proj|v_proj))$"},
    "a pattern of both": {"target_modules": r"^(model)(?!.*(lm_head|output|emb|wte|shared)).*(q_proj|v_proj)"},
    "a layer by its number": {
        "target_modules": ["q_proj", "v_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "model.layers",
    },
    "ranks by older names": {
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {r"^model\.layers\.1\.self_attn\.q_proj": 7},
        "alpha_pattern": {r"^model\.layers\.2\.self_attn\.v_proj": 3},
    },
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("rename", [str, older])
def test_patterns_for_older_names_mean_what_they_meant(
    bases: Callable[..., Path], tmp_path: Path, name: str, rename: Callable[[str], str]
) -> None:
    pattern = PATTERNS[name]
    todays = json.loads(json.dumps(pattern).replace("model\\\\.layers", "model\\\\.language_model\\\\.layers"))
    if "layers_pattern" in todays:
        todays["layers_pattern"] = "language_model.layers"
    expected = train(bases(), tmp_path / "a", **todays)

    merged = merge(bases(), edit(tmp_path / "a", rename, **pattern))

    assert torch.allclose(probe(merged), expected, atol=1e-4)


def test_weights_as_a_pickle_are_read(bases: Callable[..., Path], tmp_path: Path) -> None:
    expected = train(bases(), tmp_path / "a", **PLAIN)
    torch.save(safetensors.torch.load_file(tmp_path / "a" / FILE), tmp_path / "a" / "adapter_model.bin")
    (tmp_path / "a" / FILE).unlink()

    assert torch.allclose(probe(merge(bases(), tmp_path / "a")), expected, atol=1e-4)


KINDS: dict[str, dict[str, Any]] = {
    "DoRA": {**PLAIN, "use_dora": True},
    "rsLoRA": {**PLAIN, "use_rslora": True},
    "PiSSA": {**PLAIN, "init_lora_weights": "pissa"},
    "biases": {**PLAIN, "bias": "all"},
    "the patches' convolution": {"target_modules": ["proj", "qkv"]},
    "tokens": {**PLAIN, "trainable_token_indices": [3, 5]},
    "a head saved": {**PLAIN, "modules_to_save": ["lm_head"]},
    "an embedding saved": {**PLAIN, "modules_to_save": ["embed_tokens"]},
    "both saved": {**PLAIN, "modules_to_save": ["lm_head", "embed_tokens"]},
    "both saved and tied": {**PLAIN, "modules_to_save": ["lm_head", "embed_tokens"], "ensure_weight_tying": True},
    "LoRA on the head": {"target_modules": ["q_proj", "lm_head"]},
    "LoRA on the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "LoRA on both": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "LoRA on both, tied": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "DoRA on the head": {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
    "other tokens in embedding and head": {**PLAIN, "trainable_token_indices": {"embed_tokens": [3], "lm_head": [4]}},
}
STAY_TIED = {"DoRA", "rsLoRA", "PiSSA", "biases", "the patches' convolution", "tokens", "both saved and tied",
             "LoRA on both, tied"}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "tied"), [*((kind, True) for kind in KINDS), ("both saved", False), ("LoRA on both", False)]
)
def test_a_merged_policy_read_again_is_base_plus_adapter(
    bases: Callable[..., Path], tmp_path: Path, kind: str, tied: bool
) -> None:
    base = bases(tied=tied)
    expected = train(base, tmp_path / "a", **KINDS[kind])

    merged = merge(base, tmp_path / "a")
    merged.save_pretrained(tmp_path / "m")

    scale = float(expected.abs().max())
    assert (probe(load_policy_of(tmp_path / "m", base)) - expected).abs().max() < 1e-5 * scale
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    stays = tied and kind in STAY_TIED
    assert {config["tie_word_embeddings"], config["text_config"].get("tie_word_embeddings", stays)} == {stays}
    assert ("lm_head.weight" in safetensors.torch.load_file(tmp_path / "m" / "model.safetensors")) is not stays


def load_policy_of(folder: Path, base: Path) -> Any:
    shutil.copy(base / "tokenizer.json", folder)
    return load_policy(folder)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "half of the layers": (
        lambda folder: edit(folder, lambda name: name * ("layers.0." in name)),
        r"lacks 8 weights \(model\.layers\.1\.self_attn\.q_proj\.lora_A\.weight, .+ and 5 more\); name the base",
    ),
    "only A": (lambda folder: edit(folder, lambda name: name * ("lora_A" in name)), r"lacks 6 weights \(.*lora_B"),
    "names of nothing": (
        lambda folder: edit(folder, lambda name: name.replace("layers", "blocks")),
        r"lacks 12 weights .* and has 12 weights without a place in the model \(model\.blocks",
    ),
    "more layers": (
        lambda folder: edit(folder, lambda name: name.replace("layers.2.", "layers.9.")),
        r"without a place in the model \(model\.layers\.9\.",
    ),
    "no such modules": (lambda folder: edit(folder, target_modules=["c_attn"]), r"Target modules .*c_attn.* not found"),
    "a whole part of the model": (
        lambda folder: edit(folder, target_modules=["q_proj", "visual"]),
        r"Target module Qwen2_5_VisionTransformer\S+ .*is not supported\. Currently, only .*Linear",
    ),
    "another rank": (
        lambda folder: edit(folder, r=8),
        r"12 weights of another shape \(\S+q_proj\.lora_A\.weight \[4, 64\] instead of \[8, 64\]",
    ),
    "another kind": (
        lambda folder: edit(folder, peft_type="PROMPT_TUNING", num_virtual_tokens=4),
        r"is a PROMPT_TUNING adapter, and only LORA .* train a LoRA",
    ),
    "AdaLoRA": (lambda folder: edit(folder, peft_type="ADALORA"), "is a ADALORA adapter"),
    "no kind": (lambda folder: (folder / CONFIG).write_text("{}"), "is a NONE adapter"),
    "no weights": (lambda folder: (folder / FILE).unlink(), "holds no weights of an adapter; it needs adapter_model"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), "holds no adapter: it has no adapter_config.json"),
    "a malformed entry": (lambda folder: edit(folder, r=-1), "is not the config|does not fit"),
    "no targets": (
        lambda folder: edit(folder, target_modules=None),
        "does not fit .*: Please specify `target_modules`",
    ),
    "a random start": (
        lambda folder: edit(folder, init_lora_weights="pissa_niter_4"),
        "random part out of the base.* path_initial_model_for_weight_conversion",
    ),
    "parts trained whole, as a pickle": (
        lambda folder: torch.save({"visual.merger.ln_q.weight": torch.ones(32)}, folder / "non_lora_state_dict.bin"),
        r"non_lora_state_dict\.bin holds weights that belong to no LoRA and would be lost; merge adapter and file",
    ),
    "parts trained whole": (
        lambda folder: safetensors.torch.save_file({"a": torch.ones(1)}, folder / "vit.safetensors"),
        r"vit\.safetensors holds weights that belong to no LoRA",
    ),
    "a folder above": (
        lambda folder: [shutil.copytree(folder, folder / "default"), (folder / CONFIG).unlink()],
        r"holds no adapter: .*; pass the folder of one in it, for example \S+/a/default$",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_the_base_is_loaded(
    bases: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    change, words = REFUSED[name]
    train(bases(), tmp_path / "a", **PLAIN)
    change(tmp_path / "a")
    monkeypatch.setattr("wise_edge.export.source.adapter.load_policy", None)

    with pytest.raises(UsageError, match=words):
        fit_adapter(tmp_path / "a", load_config(bases()), base=bases())
    capsys.readouterr()  # what saving the base printed, in the first of these tests

    assert export(bases(), tmp_path / "a", tmp_path / "m") == 2
    line = capsys.readouterr().err.strip()
    assert len(line.splitlines()) == 1
    assert str(tmp_path / "m") not in line and f".{tmp_path.name}" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
def test_an_entry_that_peft_follows_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA", "monteclora_config": {"a": 1}}))
    with pytest.raises(UsageError, match="is not the config of a LoRA adapter"):
        read_adapter_config(tmp_path)


def test_what_a_training_leaves_beside_an_adapter_is_no_part_of_it(bases: Callable[..., Path], tmp_path: Path) -> None:
    train(bases(), tmp_path / "a", **PLAIN)
    for name in ("training_args.bin", "optimizer.bin", "optimizer.pt", "value_head.safetensors", "trainer_state.json"):
        (tmp_path / "a" / name).write_bytes(b"{}")
    (tmp_path / "a" / "critic").mkdir()

    assert fit_adapter(tmp_path / "a", load_config(bases()), base=bases()).tensors


def test_an_adapter_with_values_that_are_not_finite_is_named(
    bases: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(bases(), tmp_path / "a", **PLAIN)
    weights = safetensors.torch.load_file(tmp_path / "a" / FILE)
    next(iter(weights.values()))[0, 0] = float("nan")
    safetensors.torch.save_file(weights, tmp_path / "a" / FILE)

    options = ["--adapter", str(tmp_path / "a"), "--target", "hf", "--no-verify", "--out", str(tmp_path / "m")]

    assert main(["export", "--policy", str(bases()), *options]) == 2
    assert "lora_A.weight holds values that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_empty_tensors_are_refused_as_what_zero3_leaves(bases: Callable[..., Path], tmp_path: Path) -> None:
    train(bases(), tmp_path / "a", **PLAIN)
    empty = {name: torch.empty(0) for name in safetensors.torch.load_file(tmp_path / "a" / FILE)}
    safetensors.torch.save_file(empty, tmp_path / "a" / FILE)

    with pytest.raises(UsageError, match=r"12 weights of shape \[0\] .* ZeRO-3"):
        fit_adapter(tmp_path / "a", load_config(bases()), base=bases())


def test_an_adapter_of_another_base_is_refused_by_its_shapes(bases: Callable[..., Path], tmp_path: Path) -> None:
    train(bases(), tmp_path / "a", **PLAIN)
    other = save_qwen(make_qwen("qwen2_5_vl", hidden_size=32, num_attention_heads=2), tmp_path / "other")

    with pytest.raises(
        UsageError, match=r"weights of another shape \(\S+lora_A\.weight \[4, 64\] instead of \[4, 32\]"
    ):
        fit_adapter(tmp_path / "a", load_config(other), base=other)


def test_added_tokens_are_refused_with_the_way_out(bases: Callable[..., Path], tmp_path: Path) -> None:
    model = load_policy(bases())
    model.resize_token_embeddings(model.get_input_embeddings().num_embeddings + 3, mean_resizing=False)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "a")

    with pytest.raises(UsageError, match=r"2 weights of another shape .*added tokens: resize the base's vocabulary"):
        fit_adapter(tmp_path / "a", load_config(bases()), base=bases())


def test_entries_of_a_newer_peft_pass_if_empty_and_are_named_if_not(bases: Callable[..., Path], tmp_path: Path) -> None:
    expected = train(bases(), tmp_path / "a", **PLAIN)

    assert torch.allclose(probe(merge(bases(), edit(tmp_path / "a", made_up=None, other={}))), expected, atol=1e-4)
    with pytest.warns(UserWarning, match="'made_up'"):
        merge(bases(), edit(tmp_path / "a", made_up={"x": 1}))


def test_the_merged_policy_has_the_bases_type_and_the_adapters_words(
    bases: Callable[..., Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases(), base)
    config = json.loads((base / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")  # as older versions of transformers write it
    (base / "config.json").write_text(json.dumps(config))
    train(base, tmp_path / "a", **PLAIN)
    prompts = json.loads((base / "prompts.json").read_text())
    (tmp_path / "a" / "prompts.json").write_text(json.dumps(prompts | {"name": "of-the-adapter"}))
    make_tokenizer().save(str(tmp_path / "a" / "tokenizer.json"), pretty=False)

    assert export(base, tmp_path / "a", tmp_path / "m") == 0

    weights = safetensors.torch.load_file(tmp_path / "m" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert json.loads((tmp_path / "m" / "prompts.json").read_text())["name"] == "of-the-adapter"
    for name, source in (("tokenizer.json", tmp_path / "a"), ("generation_config.json", base)):
        assert (tmp_path / "m" / name).read_bytes() == (source / name).read_bytes()


def test_a_merge_that_goes_wrong_is_found_and_nothing_written(
    bases: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = bases(tied=True)
    train(base, tmp_path / "a", target_modules=["q_proj", "lm_head"])
    monkeypatch.setattr(adapter_module, "_inner", lambda layer: layer)  # PEFT's own way: one matrix for both

    assert export(base, tmp_path / "a", tmp_path / "m") != 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert "merged adapter: logits" in capsys.readouterr().err
