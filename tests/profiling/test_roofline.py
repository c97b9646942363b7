"""Estimates rest on correct shapes and peaks, and come close to published measurements."""

from __future__ import annotations

import json
from statistics import median

import pytest

from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.profiling.roofline import estimate, work
from wise_edge.profiling.roofline.published import PUBLISHED
from wise_edge.profiling.roofline.shapes import DEVICES, POLICIES, QUANTS, SEGMENTERS
from wise_edge.profiling.roofline.work import Work

POLICY = {policy.name: policy for policy in POLICIES}
QUANT = {quant.name: quant for quant in QUANTS}
DEVICE = {device.name: device for device in DEVICES}
SEGMENTER = {segmenter.name: segmenter for segmenter in SEGMENTERS}


@pytest.mark.parametrize(
    ("name", "billions"),  # of parameters, as the published checkpoints have them
    [("qwen2-vl-2b", 2.209), ("qwen2-vl-7b", 8.291), ("qwen2.5-vl-3b", 3.755), ("qwen2.5-vl-7b", 8.292)],
)
def test_shapes_have_the_published_number_of_parameters(name: str, billions: float) -> None:
    policy = POLICY[name]
    table = policy.vocabulary * policy.hidden * (1 if policy.tied else 2)
    counted = work.layer_parameters(policy) + work.vision_parameters(policy) + table
    assert counted / 1e9 == pytest.approx(billions, rel=0.002)
    assert work.resident_bytes(policy, QUANT["fp16"]) == pytest.approx(2 * counted)


def test_language_models_are_counted_as_torch_counts_them() -> None:
    """Qwen3's too: the layers that transformers builds from the same widths."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    for name in ("qwen3-vl-2b", "qwen3-vl-8b"):
        policy = POLICY[name]
        config = transformers.Qwen3Config(
            hidden_size=policy.hidden,
            num_hidden_layers=policy.layers,
            num_attention_heads=policy.heads,
            num_key_value_heads=policy.kv_heads,
            head_dim=policy.head_dim,
            intermediate_size=policy.feed_forward,
            vocab_size=policy.vocabulary,
        )
        with torch.device("meta"):
            model = transformers.Qwen3Model(config)
        matrices = sum(p.numel() for layer in model.layers for p in layer.parameters() if p.ndim == 2)
        assert work.layer_parameters(policy) == matrices


def test_vision_towers_are_counted_as_torch_counts_them() -> None:
    """With the mergers of DeepStack, without what embeds patches and places."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    for name, deepstack in (("qwen3-vl-2b", [5, 11, 17]), ("qwen3-vl-4b", [5, 11, 17]), ("qwen3-vl-8b", [8, 16, 24])):
        policy = POLICY[name]
        config = transformers.models.qwen3_vl.Qwen3VLVisionConfig(
            hidden_size=policy.vision_hidden,
            depth=policy.vision_layers,
            intermediate_size=policy.vision_feed_forward,
            out_hidden_size=policy.hidden,
            patch_size=policy.patch_px,
            deepstack_visual_indexes=deepstack,
        )
        with torch.device("meta"):
            model = transformers.Qwen3VLVisionModel(config)
        parts = (*model.blocks, model.merger, *model.deepstack_merger_list)
        assert work.vision_parameters(policy) == sum(
            p.numel() for part in parts for p in part.parameters() if p.ndim == 2
        )
        once_a_token = sum(
            p.numel() for part in parts[policy.vision_layers :] for p in part.parameters() if p.ndim == 2
        )
        one, two = (work.vision_work(policy, tokens).flops for tokens in (1, 2))
        attention = 2 * 4 * 4**2 * policy.vision_hidden * policy.vision_layers  # grows by the square
        layers = work.vision_parameters(policy) - once_a_token
        assert two - 2 * one == pytest.approx(attention)
        assert one == pytest.approx(2 * 4 * layers + 2 * once_a_token + attention / 2)


def test_sam_takes_the_published_multiplications() -> None:
    # EfficientViT-SAM (https://arxiv.org/abs/2402.05008): 2973 G multiply-accumulates for ViT-H.
    assert work.segmenter_work(SEGMENTER["sam-vit-h"]).flops / 2e9 == pytest.approx(2973, rel=0.005)


def test_a_picture_of_the_papers_size_has_its_tokens() -> None:
    assert work.image_tokens(POLICY["qwen2.5-vl-3b"]) == 900
    assert work.image_tokens(POLICY["qwen3-vl-4b"]) == 26**2
    with pytest.raises(UsageError, match="a multiple of 32 px"):
        work.image_tokens(POLICY["qwen3-vl-4b"], 840)


def test_the_bound_is_the_slower_of_arithmetic_and_memory() -> None:
    device = DEVICE["thor"]
    assert Work(259e12, 1.0).bound_ms(device) == pytest.approx(1e3)
    assert Work(1.0, 273e9).bound_ms(device) == pytest.approx(1e3)
    assert Work(1035e12, 1.0, fp4=True).bound_ms(device) == pytest.approx(1e3)
    # A token of 3B in 16 bits reads 6.2 GB, 30 ms on AGX Orin: at most 33 a second (NVIDIA, Edge-LLM, issue 60).
    step = work.decode_work(POLICY["qwen2.5-vl-3b"], QUANT["fp16"], 0)
    assert 1e3 / step.bound_ms(DEVICE["agx-orin"]) == pytest.approx(33, abs=0.5)


def test_no_published_measurement_beats_its_bound_and_estimates_come_near() -> None:
    found = estimate.check_published()
    assert len(found) == len(PUBLISHED)
    for each in found:
        share = estimate._work_of(each.row).bound_ms(DEVICE[each.row.device]) / each.row.value_ms
        assert 0.05 < share < 1.0, each.row
    known = [abs(each.deviation) for each in found if each.deviation is not None]
    assert len(known) >= 45
    assert median(known) < 0.08
    assert max(known) < 0.3


def test_a_measurement_is_not_estimated_by_itself() -> None:
    alone = [each for each in estimate.check_published() if each.row.phase == "mask_encode"]
    assert [(each.estimate_ms, each.deviation) for each in alone] == [(None, None)]


def test_a_plan_has_every_phase_and_shorter_rationales_cost_less() -> None:
    parts = POLICY["qwen2.5-vl-3b"], QUANT["int4"], SEGMENTER["sam-vit-b"], DEVICE["orin-nx"]
    totals = {}
    for variant in estimate.RATIONALE_TOKENS:
        phases = {phase.phase: phase for phase in estimate.estimate_query(*parts, variant)}
        assert list(phases) == ["vision_encode", "prefill", "decode", "mask_encode"]
        for phase in phases.values():
            assert phase.estimate_ms is not None
            assert phase.low_ms is not None
            assert phase.high_ms is not None
            assert phase.bound_ms < phase.low_ms <= phase.estimate_ms <= phase.high_ms
        totals[variant] = sum(phase.estimate_ms or 0 for phase in phases.values())
    assert totals["verbose"] > totals["wise-infer"] > totals["wise-s"] > totals["answer"]
    with pytest.raises(UsageError, match="unknown variant 'loud'"):
        estimate.estimate_query(*parts, "loud")


def test_a_family_without_measurements_takes_the_others_and_says_so() -> None:
    phases = estimate.estimate_query(
        POLICY["qwen2.5-vl-3b"], QUANT["int4"], SEGMENTER["sam-vit-b"], DEVICE["rtx-4090"], "wise-s"
    )
    assert phases[0].share is not None
    assert phases[0].share.of == "agx-orin, orin-nano, orin-nx-super, thor"


def test_the_command_says_that_it_is_an_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "plan", "--device", "orin-nx", "--quant", "Q4_K_M"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "estimated, not measured: qwen2.5-vl-3b Q4_K_M on Jetson Orin NX 16 GB, MAXN, wise-s" in told
    assert f"{len(PUBLISHED)} published measurements, each estimated from the others" in told
    assert main(["profile", "plan", "--check"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "issue 60" in told
    assert "a100, sam-vit-h (precision not published), mask encode of 4096 tokens: 150.0 ms" in told
    assert main(["profile", "plan", "--device", "orin-nano", "--model", "qwen2.5-vl-7b", "--quant", "fp16"]) == 0
    assert "too large for the device" in capsys.readouterr().out

    assert main(["profile", "plan", "--device", "thor", "--quant", "nvfp4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["estimate"] is True
    assert set(document["variants"]) == set(estimate.RATIONALE_TOKENS)
    figures = document["variants"]["wise-s"]
    slowest_ms = sum(phase["high_ms"] for phase in figures["phases"])
    assert slowest_ms > figures["estimate_ms"]
    assert figures["energy_j_at_most"] == pytest.approx(slowest_ms / 1e3 * 130)
    assert len(document["published"]) == len(PUBLISHED)


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--device", "toaster"], 2, "unknown device 'toaster'; choose one of orin-nano, "),
        (["--model", "gpt"], 2, "unknown model 'gpt'"),
        (["--quant", "Q9"], 2, "unknown quant 'Q9'"),
        (["--sam", "sam3"], 2, "unknown segmenter 'sam3'"),
        (["--variant", "loud"], 2, "unknown variant 'loud'"),
        (["--side", "841"], 2, "a multiple of 28 px, not 841"),
        (["--quant", "nvfp4", "--device", "orin-nx"], 4, "has no 4-bit floating-point arithmetic"),
    ],
)
def test_what_is_unknown_is_one_line(
    options: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "plan", *options]) == code
    assert line in capsys.readouterr().err
