"""Which tensors a checkpoint must hold: what differs is refused by name, what is harmless passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

from tiny_qwen import FAMILIES, make_qwen, save_qwen
from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.policy.architecture import CLASSES, build_skeleton
from wise_edge.policy.checkpoint import load_policy, read_policy_spec, stored_dtype
from wise_edge.policy.folder import check_policy_folder

Weights = dict[str, torch.Tensor]
LAYER = "model.layers.1.self_attn."


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A Qwen2.5-VL checkpoint with a head of its own, and one whose head is its embedding."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        tied: save_qwen(make_qwen("qwen2_5_vl", tied=tied), root / str(tied), torch.bfloat16) for tied in (False, True)
    }


def edited(source: Path, folder: Path, change: Callable[[Weights], object]) -> Path:
    """Copy a checkpoint with other weights; the names are those of the file."""
    shutil.copytree(source, folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    change(weights)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def set_each(part: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], object]:
    return lambda weights: weights.update({name: make(value) for name, value in weights.items() if part in name})


def drop(part: str) -> Callable[[Weights], object]:
    return lambda weights: [weights.pop(name) for name in list(weights) if part in name]


def longer(value: torch.Tensor) -> torch.Tensor:
    return torch.cat([value, value[:7]])


REFUSED: dict[str, tuple[Callable[[Weights], object], str]] = {
    "ZeRO-3 leftovers": (
        set_each(LAYER, lambda value: value.new_empty(0)),
        r"7 weights of shape \[0\] \(model\.layers\.1\.self_attn\.\w+\.\w+, .+ and 4 more\); .*zero_to_fp32",
    ),
    "a layer is missing": (drop("layers.2."), r"lacks 12 weights \(model\.layers\.2\..+ and 9 more\); .*complete"),
    "no vision tower": (drop("visual."), r"lacks 5\d weights \(visual\..* that is the whole vision tower"),
    "no head": (drop("lm_head"), r"lacks 1 weight \(lm_head\.weight\)"),
    "no embedding": (drop("embed_tokens"), r"lacks 1 weight \(model\.embed_tokens\.weight\)"),
    "a longer vocabulary": (
        lambda weights: [set_each(name, longer)(weights) for name in ("embed_tokens", "lm_head")],
        r"2 weights of another shape \(model.embed_tokens.weight \[284, 64\] instead of \[277, 64\].*vocab_size to 284",
    ),
    "other widths": (
        set_each("down_proj.weight", lambda value: value[:, :32].clone()),
        r"7 weights of another shape .* and 4 more\); config.json and weights must come from one model",
    ),
    "a layer too many": (
        lambda weights: weights.update(
            {n.replace("layers.2.", "layers.3."): v.clone() for n, v in list(weights.items()) if "layers.2." in n}
        ),
        r"12 weights without a place in the model \(model\.layers\.3\.",
    ),
    "a critic's head": (lambda weights: weights.update({"v_head.weight": torch.ones(1, 64)}), r"place.*v_head\.weight"),
    "an adapter that is not merged": (
        lambda weights: weights.update({f"{LAYER}q_proj.lora_A.default.weight": torch.ones(4, 64)}),
        "an adapter that is not merged",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_difference_is_refused_with_names_and_remedy(
    checkpoints: dict[bool, Path], tmp_path: Path, name: str
) -> None:
    change, words = REFUSED[name]
    folder = edited(checkpoints[False], tmp_path / "p", change)

    for judge in (check_policy_folder, read_policy_spec, load_policy):
        with pytest.raises(UsageError, match=words) as caught:
            judge(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["onnx", "gguf"])
@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
def test_export_writes_no_bundle_of_it(
    checkpoints: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, verify: str
) -> None:
    folder = edited(checkpoints[False], tmp_path / "p", REFUSED["ZeRO-3 leftovers"][0])

    options = ["--sam", "embedded", "--target", target, verify, "--out", str(tmp_path / "b")]

    assert main(["export", "--policy", str(folder), *options]) == 2
    assert "shape [0]" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


HARMLESS: dict[str, Callable[[Weights], object]] = {
    "nothing": lambda _: None,
    "rotary buffers of older versions": lambda weights: weights.update(
        {
            "model.rotary_emb.inv_freq": torch.ones(8),
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
            "visual.rotary_pos_emb.inv_freq": torch.ones(4),
        }
    ),
    "names of transformers 4.52 and later": lambda weights: [
        weights.update({n.replace("model.", "model.language_model.", 1).replace("visual.", "model.visual."): v})
        for n, v in [(n, weights.pop(n)) for n in list(weights)]
    ],
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("tied", [False, True])
def test_known_harmless_differences_pass(checkpoints: dict[bool, Path], tmp_path: Path, name: str, tied: bool) -> None:
    folder = edited(checkpoints[tied], tmp_path / "p", HARMLESS[name])

    assert check_policy_folder(folder)["model_type"] == "qwen2_5_vl"
    assert read_policy_spec(folder) == read_policy_spec(checkpoints[tied])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(checkpoints: dict[bool, Path], tmp_path: Path, value: float) -> None:
    folder = edited(checkpoints[False], tmp_path / "p", set_each("layers.1.mlp.up", lambda weight: weight * value))

    with pytest.raises(UsageError, match=r"layers\.1\.mlp\.up_proj\.weight holds values that are not finite"):
        load_policy(folder)


def test_layers_that_the_config_counts_in_two_ways_are_one_line(checkpoints: dict[bool, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints[False], tmp_path / "p")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 3}
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(UsageError, match=r"config\.json cannot be read: .*`num_hidden_layers` \(2\)") as caught:
        check_policy_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_tied_head_may_be_stored(checkpoints: dict[bool, Path], tmp_path: Path) -> None:
    store = lambda weights: weights.update({"lm_head.weight": weights["model.embed_tokens.weight"].clone()})  # noqa: E731

    check_policy_folder(edited(checkpoints[True], tmp_path / "p", store))


def test_one_tensor_under_two_names_is_refused(checkpoints: dict[bool, Path], tmp_path: Path) -> None:
    twice = lambda weights: weights.update(  # noqa: E731
        {"model.language_model.norm.weight": weights["model.norm.weight"].clone()}
    )

    with pytest.raises(UsageError, match=r"holds model\.\S*norm\.weight, and .* keep one"):
        check_policy_folder(edited(checkpoints[False], tmp_path / "p", twice))


@pytest.mark.parametrize(("part", "name"), [("text_config", "num_hidden_layers"), ("vision_config", "depth")])
def test_a_config_with_more_layers_than_any_model_builds_none(
    checkpoints: dict[bool, Path], tmp_path: Path, part: str, name: str
) -> None:
    folder = edited(checkpoints[False], tmp_path / "p", lambda _: None)
    config = json.loads((folder / "config.json").read_text())
    config[part][name] = 10**9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=rf"config\.json: {name} is 1000000000, at most 1000; copy the complete"):
        check_policy_folder(folder)


def test_a_config_that_contradicts_itself_is_refused_in_one_line(checkpoints: dict[bool, Path], tmp_path: Path) -> None:
    folder = edited(checkpoints[False], tmp_path / "p", lambda _: None)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_attention_heads"] = 0
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(UsageError, match=r"describes no model|cannot be read") as caught:
        check_policy_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_skeleton_has_the_names_and_shapes_of_a_real_model(family: str) -> None:
    model = make_qwen(family)

    skeleton = build_skeleton(model.config, source=family)

    assert type(skeleton) is getattr(transformers, CLASSES[family])
    assert {name: value.shape for name, value in skeleton.state_dict().items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    assert {value.device.type for value in skeleton.parameters()} == {"meta"}  # no memory, whatever the size


TYPES: dict[str, tuple[dict[str, object], str]] = {
    "dtype": ({"dtype": "float16"}, "float16"),
    "torch_dtype": ({"torch_dtype": "float32"}, "float32"),
    "with torch's prefix": ({"torch_dtype": "torch.float16"}, "float16"),
    "the text model's": ({"text_config": {"dtype": "float16"}}, "float16"),
    "auto": ({"torch_dtype": "auto"}, "bfloat16"),
    "none": ({}, "bfloat16"),
    "null": ({"dtype": None}, "bfloat16"),
}


@pytest.mark.parametrize("name", TYPES)
def test_the_type_of_weights_is_the_configs_or_their_own(
    checkpoints: dict[bool, Path], tmp_path: Path, name: str
) -> None:
    entries, expected = TYPES[name]
    folder = edited(checkpoints[False], tmp_path / "p", set_each("norm", lambda value: value.float()))
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part.pop("dtype", None)
    text = config["text_config"] | dict(entries.get("text_config") or {})  # type: ignore[call-overload]
    (folder / "config.json").write_text(json.dumps(config | entries | {"text_config": text}))

    assert stored_dtype(folder) == expected


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused(
    checkpoints: dict[bool, Path], tmp_path: Path
) -> None:
    folder = edited(checkpoints[False], tmp_path / "p", lambda _: None)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 277, "content": "<seg>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    with pytest.raises(UsageError, match=r"has the token 277, the model ends at 276; they do not belong together"):
        read_policy_spec(folder)
