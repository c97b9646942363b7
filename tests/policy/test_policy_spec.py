"""What a policy's processor, tokenizer, prompts and generation config say, in the forms that versions write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tiny_qwen import make_qwen, save_qwen
from wise_edge.errors import UsageError
from wise_edge.policy.answers.conventions import Told
from wise_edge.policy.checkpoint import load_policy, read_policy_spec
from wise_edge.policy.spec import PolicySpec


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_qwen(
        make_qwen("qwen2_5_vl", max_position_embeddings=2048), tmp_path_factory.mktemp("spec") / "whole", torch.bfloat16
    )
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps(processor | {"image_processor_type": "Qwen2VLImageProcessor"})
    )
    return folder


@pytest.fixture
def policy(whole: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    shutil.copytree(whole, folder)
    return folder


def edit(folder: Path, name: str, **entries: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    file = folder / name
    content = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_the_processor_that_transformers_saves_is_read(policy: Path) -> None:
    spec = read_policy_spec(policy)
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.AutoImageProcessor.from_pretrained(policy),
        tokenizer=transformers.AutoTokenizer.from_pretrained(policy),
        video_processor=transformers.Qwen2VLVideoProcessor(),
    )
    (policy / "preprocessor_config.json").unlink()
    processor.save_pretrained(policy)
    assert not (policy / "preprocessor_config.json").exists()
    assert read_policy_spec(policy) == spec


def test_of_two_image_processors_the_one_of_transformers_counts(policy: Path) -> None:
    settings = json.loads((policy / "preprocessor_config.json").read_text())
    pixels = {"shortest_edge": 224 * 224, "longest_edge": 224 * 224}
    (policy / "processor_config.json").write_text(json.dumps({"image_processor": settings | {"size": pixels}}))
    assert transformers.AutoImageProcessor.from_pretrained(policy).size["longest_edge"] == 224 * 224
    assert read_policy_spec(policy).picture.side == 224


PIXELS = {"min_pixels": 3136, "max_pixels": 12845056}
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "fixed": ({"size": {"shortest_edge": 112 * 112, "longest_edge": 112 * 112}}, 112),
    "no-square": ({"size": {"shortest_edge": 100352, "longest_edge": 100352}}, 308),
    "entries-of-their-own": (PIXELS, 840),
    "own-entries-win": ({"min_pixels": 28 * 28, "max_pixels": 224 * 224}, 224),
    "null": (PIXELS | {"size": None}, 840),
    "both": (PIXELS | {"size": PIXELS}, 840),
    "default": ({"size": None}, 840),
    "small": ({"size": {"shortest_edge": 3136, "longest_edge": 512 * 28 * 28}}, 616),
    "large": ({"size": {"shortest_edge": 1000 * 1000, "longest_edge": 4000 * 4000}}, 1008),
}


@pytest.mark.parametrize("case", SIZES)
def test_the_input_square_is_what_the_processor_makes_of_a_square_image(policy: Path, case: str) -> None:
    entries, side = SIZES[case]
    edit(policy, "preprocessor_config.json", **entries)
    assert read_policy_spec(policy, told=Told(picture="square")).picture.side == side
    processor = transformers.AutoImageProcessor.from_pretrained(policy)
    image = torch.zeros(3, max(side, 840), max(side, 840), dtype=torch.uint8)
    _, rows, columns = processor(image, return_tensors="pt")["image_grid_thw"][0].tolist()
    assert (14 * rows, 14 * columns) == (side, side)


def test_an_image_that_leaves_no_position_for_a_query_is_refused(policy: Path) -> None:
    edit(policy, "preprocessor_config.json", size={"shortest_edge": 1400 * 1400, "longest_edge": 1400 * 1400})
    with pytest.raises(
        UsageError, match=r"an image takes up to 2500 positions and the model has 2048; lower max_pixels"
    ):
        read_policy_spec(policy)


def drop_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


def config_entry(**entries: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "config.json", **entries)


def generation_entry(**entries: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "generation_config.json", **entries)


END, TEXT_END = "<|im_end|>", "<|endoftext|>"
ENDS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "whole": (lambda _: None, (END,)),
    "no-file": (drop_generation_config, (END,)),
    "no-eos": (generation_entry(eos_token_id=None), (END,)),
    "empty-list": (generation_entry(eos_token_id=[]), (END,)),
    "list": (generation_entry(eos_token_id=[256 + 4, 256 + 6]), (TEXT_END, END)),
    "text-end-alone": (generation_entry(eos_token_id=256 + 4), (TEXT_END, END)),
    "sampling": (generation_entry(do_sample=True, temperature=0.6, top_k=20), (END,)),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_completion_ends_where_the_folder_or_the_markup_says(policy: Path, case: str) -> None:
    change, ends = ENDS[case]
    change(policy)
    assert read_policy_spec(policy).eos_tokens == ends


def test_a_slow_tokenizer_is_refused_with_the_command_that_writes_the_fast_one(policy: Path) -> None:
    spec = read_policy_spec(policy)
    content = json.loads((policy / "tokenizer.json").read_text())
    pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"])
    added = {str(token.pop("id")): token for token in content["added_tokens"]}
    (policy / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    (policy / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]))
    edit(policy, "tokenizer_config.json", added_tokens_decoder=added)
    (policy / "tokenizer.json").rename(policy / "kept.json")

    with pytest.raises(UsageError, match=r"no tokenizer\.json.* write it: python -c ") as caught:
        read_policy_spec(policy)
    code = str(caught.value).partition("python -c ")[2].strip('"')
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    assert read_policy_spec(policy) == spec
    text = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>in the <tool><|im_end|>"
    written, kept = (
        transformers.PreTrainedTokenizerFast(tokenizer_file=str(policy / name))(text)["input_ids"]
        for name in ("tokenizer.json", "kept.json")
    )
    assert written == kept


def place_query(folder: Path) -> None:
    content = {"name": "n", "system": "", "variants": {"wise-s": "Please find '{Question}' with bbox and points."}}
    (folder / "prompts.json").write_text(json.dumps(content))


def drop_token(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<|vision_end|>", "<|other|>"))


def processor_entry(**entries: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "preprocessor_config.json", **entries)


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no-processor": (lambda f: (f / "preprocessor_config.json").unlink(), "neither preprocessor_config.json nor"),
    "patch": (processor_entry(patch_size=16), "patch_size is 16, but the model's patch_size is 14"),
    "merge": (processor_entry(merge_size=1), "merge_size is 1, but the model's spatial_merge_size is 2"),
    "time": (processor_entry(temporal_patch_size=1), "temporal_patch_size is 1, but"),
    "zero": (processor_entry(patch_size=0), "patch_size is 0"),
    "mean": (processor_entry(image_mean=None), "image_mean is None, not three numbers"),
    "gray": (processor_entry(image_std=[0.5]), r"image_std is \[0\.5\], not three numbers"),
    "no-std": (processor_entry(image_std=[0.5, 0, 0.5]), "image_std holds 0"),
    "raw": (processor_entry(do_normalize=False), "do_normalize is false"),
    "scale": (processor_entry(rescale_factor=0.5), "rescale_factor is 0.5"),
    "size-list": (processor_entry(size=[112, 112]), r"size is \[112, 112\]"),
    "tiny": (processor_entry(min_pixels=1, max_pixels=100), "1 to 100 pixels cannot be cut"),
    "turned": (processor_entry(min_pixels=50000, max_pixels=40000), "50000 to 40000 pixels"),
    "image-token": (config_entry(image_token_id=256 + 5), r"image_token_id is \d+, which is '<\|im_start\|>'"),
    "no-image-token": (config_entry(image_token_id=None), "lacks the entry 'image_token_id'"),
    "eos": (generation_entry(eos_token_id=151645), "lacks the token 151645"),
    "markup": (drop_token, r"lacks the token <\|vision_end\|>"),
    "no-tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"cannot read .*tokenizer\.json"),
    "no-vocabulary": (lambda f: (f / "tokenizer.json").write_text("{}"), "not a tokenizer with a vocabulary"),
    "numbers-as-text": (
        lambda f: (f / "tokenizer.json").write_text('{"model": {"vocab": {"a": "1", "b": 2}}}'),
        "not a tokenizer with a vocabulary",
    ),
    "no-prompts": (
        lambda f: (f / "prompts.json").unlink(),
        r"prompts\.json is missing.*python -c .* > \S+prompts\.json",
    ),
    "place": (place_query, r"prompts\.json.*variants\.wise-s: has the place \{Question\}"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_does_not_fit_is_one_line_that_names_file_and_entry(policy: Path, case: str) -> None:
    change, words = ODD[case]
    change(policy)
    with pytest.raises(UsageError, match=words) as caught:
        read_policy_spec(policy)
    assert "\n" not in str(caught.value)


def test_sizes_that_the_processor_leaves_out_are_the_models(policy: Path) -> None:
    spec = read_policy_spec(policy)
    edit(policy, "preprocessor_config.json", patch_size=None, merge_size=None, temporal_patch_size=None)
    changed: PolicySpec = read_policy_spec(policy)
    assert changed == spec


def test_a_qwen3_folder_is_read_as_its_publishers_wrote_it(tmp_path: Path) -> None:
    """Qwen3-VL and Cosmos-Reason2, with transformers 4: rope_scaling beside rope_theta, a dtype in each part."""
    folder = save_qwen(make_qwen("qwen3_vl"), tmp_path / "policy", torch.bfloat16)
    spec = read_policy_spec(folder)
    rotary = load_policy(folder).model.language_model.rotary_emb
    assert (spec.family, spec.deepstack_layers, spec.token_side, spec.head_dim) == ("qwen3_vl", 2, 32, 24)

    config = json.loads((folder / "config.json").read_text())
    rope = config["text_config"].pop("rope_parameters")
    text = config["text_config"] | {
        "model_type": "qwen3_vl_text",
        "dtype": "bfloat16",
        "rope_theta": rope.pop("rope_theta"),
        "rope_scaling": rope,
    }
    vision = {key: value for key, value in config["vision_config"].items() if key != "rope_parameters"}
    published = {"architectures": ["Qwen3VLForConditionalGeneration"], "transformers_version": "4.57.0.dev0"}
    edit(folder, "config.json", text_config=text, vision_config=vision | {"model_type": "qwen3_vl"}, **published)

    assert read_policy_spec(folder) == spec
    again = load_policy(folder).model.language_model.rotary_emb
    assert torch.equal(again.inv_freq, rotary.inv_freq)
    assert again.mrope_section == rotary.mrope_section


def test_a_list_has_room_for_more_than_one_object(policy: Path) -> None:
    def room(form: str, positions: int) -> int:
        spec = replace(read_policy_spec(policy, told=Told(form=form)), max_positions=positions)
        return spec.context_tokens - spec.max_image_tokens

    assert room("box-points", 128_000) == 2048
    assert room("box-point-list", 128_000) == 4096
    assert read_policy_spec(policy, told=Told(form="box-point-list")).context_tokens == 2048, "all that the model has"


def test_features_for_more_layers_than_there_are_are_refused(tmp_path: Path) -> None:
    folder = save_qwen(make_qwen("qwen3_vl", num_hidden_layers=1), tmp_path / "policy")
    with pytest.raises(UsageError, match=r"config.json: deepstack_layers: 2, but num_layers is 1"):
        read_policy_spec(folder)
