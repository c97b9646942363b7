"""The arithmetic of memory against what was measured: sizes of files and engines of 3B, and the peak of a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from locations import ROOT
from policies.sparse_models import save_sparse_qwen, save_sparse_sam
from wise_edge.bundle.store import EMBEDDED, resolve_checkpoint
from wise_edge.planning.memory import building, cache_bytes, policy_bytes, running
from wise_edge.planning.sizes import PolicySize, measure_policy, measure_sam
from wise_edge.planning.weights import FLOAT32, GGUF, LADDERS, Weights

FP16, INT8, INT4 = LADDERS["tensorrt"]
PEAK = """
import re, sys
from wise_edge.cli.main import main
code = main(sys.argv[1:])
print(code, re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def qwen_3b(tmp_path_factory: pytest.TempPathFactory) -> PolicySize:
    return measure_policy(save_sparse_qwen(tmp_path_factory.mktemp("models") / "3b", "3b"))


@pytest.mark.parametrize(
    ("weights", "measured_gb"),
    [
        (
            GGUF[2],
            1.93 + 1.34,
        ),  # docs/results.md: the language model in Q4_K_M; the vision tower has 0.67 billion weights
        (FP16, 6.19 + 1.35),  # docs/results.md: engines
        (INT4, 1.76 + 0.69),
    ],
)
def test_weights_take_what_files_and_engines_of_3b_took(
    weights: Weights, measured_gb: float, qwen_3b: PolicySize
) -> None:
    assert policy_bytes(qwen_3b, weights) / 1e9 == pytest.approx(measured_gb, rel=0.03)


@pytest.mark.parametrize(("weights", "measured_gb"), [(FP16, 11.1), (INT4, 5.6)])
def test_building_takes_what_it_took(weights: Weights, measured_gb: float, qwen_3b: PolicySize) -> None:
    assert building(qwen_3b, weights) / 1e9 == pytest.approx(measured_gb, rel=0.15)


def test_a_policy_of_3b_is_counted_from_its_headers(qwen_3b: PolicySize) -> None:
    assert qwen_3b.weights == pytest.approx(3.75e9, rel=0.01)
    assert (qwen_3b.spec.max_image_tokens, qwen_3b.patches, qwen_3b.own_head) == (900, 3600, False)
    row = 2 * 36 * 2 * 128 * 2  # keys and values, layers, heads, width, half precision
    assert cache_bytes(qwen_3b, GGUF[0]) == row * (900 + 2048 + 7 * (128 + 512))


def test_a_segmenter_is_counted_from_its_headers(tmp_path: Path) -> None:
    sam = measure_sam(save_sparse_sam(tmp_path / "sam.safetensors"))
    assert (sam.weights, sam.largest) == (93_735_728, 12 * 64**4)


def test_the_embedded_models_take_about_what_is_planned() -> None:
    policy, sam = (resolve_checkpoint(EMBEDDED, part) for part in ("policy", "sam"))
    parts = running(measure_policy(policy), measure_sam(sam), FLOAT32, "fp32", policy_gpu=False, mask_gpu=False)
    line = ["run", str(ROOT / "docs/scene.png"), "the small dotted object", "--policy-backend", "onnx"]
    done = subprocess.run([sys.executable, "-c", PEAK, *line], capture_output=True, text=True, check=True)
    code, peak_kb = map(int, done.stderr.split()[-2:])
    assert code == 0
    assert 0.6 < sum(part.bytes for part in parts) / (1024 * peak_kb) < 1.6
