"""The table of GPUs: its names, and unsupported types and GPUs are rejected by name."""

from __future__ import annotations

import pytest

from wise_edge.bundle.devices import GPU_KINDS, TENSORRT_RTX, check_types, find_gpu_kind, parse_gpu_kinds
from wise_edge.errors import DeviceError, UsageError


def test_names_and_capabilities_are_unique() -> None:
    assert len({gpu.name for gpu in GPU_KINDS}) == len(GPU_KINDS)
    assert len({gpu.capability for gpu in GPU_KINDS}) == len(GPU_KINDS)


def test_a_list_of_names_keeps_its_order() -> None:
    assert [kind.name for kind in parse_gpu_kinds("sm89,orin,sm86")] == ["sm89", "orin", "sm86"]


def test_a_jetson_has_its_compute_capability_as_an_alias() -> None:
    assert parse_gpu_kinds("sm87") == parse_gpu_kinds("orin")
    assert parse_gpu_kinds("sm110") == parse_gpu_kinds("thor")


def test_this_is_the_gpu_of_the_machine() -> None:
    assert parse_gpu_kinds("this", (8, 9))[0].name == "sm89"
    with pytest.raises(DeviceError, match="no NVIDIA GPU was found"):
        parse_gpu_kinds("this")


@pytest.mark.parametrize(("names", "message"), [("sm99", "unknown device 'sm99'"), ("sm86,sm86", "names sm86 twice")])
def test_invalid_names_are_rejected(names: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_gpu_kinds(names)


def test_a_gpu_that_no_engine_is_built_for() -> None:
    with pytest.raises(DeviceError, match=r"compute capability 7\.0; use --target gguf"):
        find_gpu_kind((7, 0))


@pytest.mark.parametrize(
    ("number", "names"),
    [("fp8", "sm89,sm86"), ("bf16", "sm75"), ("fp8", "orin"), ("int4", "sm75"), ("fp4", "sm89"), ("fp32", "sm75")],
)
def test_a_type_that_one_of_the_gpus_lacks(number: str, names: str) -> None:
    with pytest.raises(DeviceError, match=f"computes with {number}, which {names.split(',')[-1]} .* lacks"):
        check_types({"float32", number}, parse_gpu_kinds(names), "a graph")


@pytest.mark.parametrize(
    ("number", "names"), [("fp8", "sm89,sm120,thor"), ("bf16", "orin,sm86"), ("float16", "sm75"), ("fp4", "sm120")]
)
def test_a_type_that_all_of_them_have(number: str, names: str) -> None:
    check_types({number, "int32"}, parse_gpu_kinds(names), "a graph")


def test_jetsons_build_on_the_device_and_geforces_anywhere() -> None:
    assert {kind.name for kind in GPU_KINDS if kind.jetpack} == {"orin", "thor"}
    for kind in GPU_KINDS:
        assert kind.builds_anywhere == (kind.builder == TENSORRT_RTX) == (kind.engine_set == "rtx")
