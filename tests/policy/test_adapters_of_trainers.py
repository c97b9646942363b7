"""Adapters as Unsloth, ms-swift, LLaMA-Factory and verl leave them: their patterns, their names, their files.

The patterns are what `get_peft_regex` of unsloth_zoo 2026.10.9 and `get_multimodal_target_regex` of ms-swift 4.6.0
return for the tiny models here, those of ms-swift 2 are of published adapters, and LLaMA-Factory 0.9.5 lists the full
names of all modules. What PEFT computes with the adapter beside its base is the reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import safetensors.torch
import torch

from tiny_qwen import make_qwen, save_qwen
from wise_edge.policy.adapter import attach_adapter, merge_attached, probe
from wise_edge.policy.adapter_names import CONFIG, fit_adapter
from wise_edge.policy.architecture import load_config, normalize_name
from wise_edge.policy.checkpoint import load_policy

FILE = "adapter_model.safetensors"
LANGUAGE = "q_proj|v_proj|down_proj|gate_proj|k_proj|o_proj|up_proj"
_NAMES = "qkv|proj|gate_proj|up_proj|down_proj|q_proj|k_proj|v_proj|o_proj"
_PARTS = "self_attn|attention|attn|mixer|mlp|feed_forward|ffn|dense|mixer"
UNSLOTH = (
    rf"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:{_PARTS}).*?\.(?:{_NAMES}))|"
    rf"(?:\bmodel\.layers\.[\d]{{1,}}(?!.*\.experts\.\d)\..*?(?:{_PARTS}).*?\.(?:(?:{_NAMES})))"
)
UNSLOTH_OLDER = (
    rf"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    rf"(?:{_NAMES}).*?)|(?:\bmodel\.layers\.[\d]{{1,}}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\."
    rf"(?:(?:{_NAMES})))"
)
SWIFT_ALL = (
    rf"^(model\.language_model(?=\.).*\.({LANGUAGE})|(?!(model.visual.merger))model\.visual(?=\.).*\."
    r"(mlp.0|down_proj|mlp.2|gate_proj|qkv|attn.proj|up_proj)|model\.visual\.merger(?=\.).*\.(2|0))$"
)
LANGUAGE_ALONE = rf"model\.language_model\..*\.({LANGUAGE})"
BOTH = rf"{LANGUAGE_ALONE}|model\.visual\.blocks\..*\.(qkv|proj|gate_proj|up_proj|down_proj)"
WITH_MERGER = rf"{BOTH}|model\.visual\.merger\.mlp\.(0|2)"


@dataclass(frozen=True)
class Trainer:
    """What a trainer adapts and writes.

    Attributes:
        adapts: the modules, as a pattern of today's names.
        targets: `target_modules` in its config.
        older: whether names are those of transformers before 4.52.
        config: further entries of adapter_config.json.
        files: what it leaves beside the weights.
    """

    adapts: str
    targets: Any
    older: bool = False
    config: dict[str, Any] | None = None
    files: tuple[str, ...] = ()


def _full_names(pattern: str, rename: Callable[[str], str] = str) -> list[str]:
    names = (name for name, _ in make_qwen("qwen2_5_vl").named_modules())
    return [rename(name) for name in names if re.fullmatch(pattern, name)]


UNSLOTH_FILES = ("README.md", "chat_template.jinja", "special_tokens_map.json", "video_preprocessor_config.json")
SWIFT_FILES = ("args.json", "additional_config.json", "optimizer.pt", "training_args.bin", "zero_to_fp32.py", "latest")
FACTORY_FILES = (
    "training_args.yaml",
    "trainer_log.jsonl",
    "all_results.json",
    "training_args.bin",
    "training_loss.png",
)
TRAINERS = {
    "Unsloth": Trainer(
        BOTH, UNSLOTH,
        config={"auto_mapping": {"base_model_class": "Qwen2_5_VLForConditionalGeneration", "unsloth_fixed": True},
                "base_model_name_or_path": "unsloth/qwen2.5-vl-7b-instruct-unsloth-bnb-4bit", "task_type": "CAUSAL_LM"},
        files=UNSLOTH_FILES,
    ),
    "Unsloth, older": Trainer(BOTH, UNSLOTH_OLDER, older=True, files=UNSLOTH_FILES),
    "ms-swift": Trainer(
        LANGUAGE_ALONE, rf"^(model\.language_model(?=\.).*\.({LANGUAGE}))$", config={"modules_to_save": []},
        files=SWIFT_FILES,
    ),
    "ms-swift, all parts": Trainer(WITH_MERGER, SWIFT_ALL, config={"modules_to_save": []}, files=SWIFT_FILES),
    "ms-swift 3 on an older transformers": Trainer(
        LANGUAGE_ALONE, rf"^(model(?=\.).*\.({LANGUAGE}))$", older=True, files=SWIFT_FILES
    ),
    "ms-swift 2": Trainer(
        LANGUAGE_ALONE, "^(model)(?!.*(lm_head|output|emb|wte|shared)).*", older=True,
        files=("sft_args.json", "configuration.json", "generation_config.json", *SWIFT_FILES),
    ),
    "LLaMA-Factory": Trainer(LANGUAGE_ALONE, _full_names(LANGUAGE_ALONE), files=FACTORY_FILES),
    "LLaMA-Factory on an older transformers": Trainer(
        LANGUAGE_ALONE, _full_names(LANGUAGE_ALONE, normalize_name), older=True, files=FACTORY_FILES
    ),
    "LLaMA-Factory, older": Trainer(
        LANGUAGE_ALONE, rf"^(?!.*visual).*(?:{LANGUAGE}).*", older=True,
        files=(*FACTORY_FILES, "value_head.safetensors"),
    ),
    "verl": Trainer(LANGUAGE_ALONE, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                    config={"exclude_modules": ".*visual.*", "task_type": "CAUSAL_LM"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_qwen("qwen2_5_vl", max_position_embeddings=1024)
    return save_qwen(model, tmp_path_factory.mktemp("base") / "base", torch.float16)


@pytest.mark.parametrize("name", TRAINERS)
def test_an_adapter_of_each_trainer_is_merged_as_peft_computes_it(base: Path, tmp_path: Path, name: str) -> None:
    trainer, folder = TRAINERS[name], tmp_path / "adapter"
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=trainer.adapts, init_lora_weights=False)
    peft.get_peft_model(load_policy(base), config).save_pretrained(folder)
    expected = probe(peft.PeftModel.from_pretrained(load_policy(base), folder).eval())
    entries = json.loads((folder / CONFIG).read_text()) | {"target_modules": trainer.targets} | (trainer.config or {})
    (folder / CONFIG).write_text(json.dumps(entries))
    if trainer.older:
        weights = safetensors.torch.load_file(folder / FILE)
        prefix = "base_model.model."
        renamed = {prefix + normalize_name(name.removeprefix(prefix)): value for name, value in weights.items()}
        safetensors.torch.save_file(renamed, folder / FILE, metadata={"format": "pt"})
    for file in trainer.files:
        (folder / file).write_bytes(b"{}")

    fitted = fit_adapter(folder, load_config(base), base=base)
    merged = merge_attached(attach_adapter(load_policy(base), fitted, base=base))

    assert torch.allclose(probe(merged), expected, atol=1e-4)
    assert (probe(load_policy(base)) - expected).abs().max() > 1


@pytest.mark.parametrize("kind", [{}, {"use_dora": True}, {"use_rslora": True}, {"use_rslora": True, "use_dora": True}])
def test_every_weight_is_that_of_pefts_own_merge(base: Path, tmp_path: Path, kind: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=3, target_modules="all-linear", init_lora_weights=False, **kind)
    peft.get_peft_model(load_policy(base), config).save_pretrained(tmp_path)
    expected = peft.PeftModel.from_pretrained(load_policy(base), tmp_path).merge_and_unload().state_dict()

    fitted = fit_adapter(tmp_path, load_config(base), base=base)
    merged = merge_attached(attach_adapter(load_policy(base), fitted, base=base)).state_dict()

    assert merged.keys() == expected.keys()
    assert all(torch.allclose(merged[name], expected[name], rtol=1e-6, atol=1e-6) for name in expected)
    changed = {name for name, value in load_policy(base).state_dict().items() if not torch.equal(value, merged[name])}
    assert len(changed) == sum(name.endswith("lora_A.weight") for name in fitted.tensors)
