"""The engines of a bundle: a plan, engines for RTX built at the export, a kit for the rest, and builds that go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shutil import copytree

import pytest
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("tensorrt_rtx")

import tensorrt_rtx as trt

from specs import POLICY
from wise_edge.bundle.devices import parse_gpu_kinds
from wise_edge.bundle.engines import BuildPlan, Sidecar
from wise_edge.bundle.roles import GRAPHS, engine_role
from wise_edge.bundle.store import EMBEDDED, load, resolve_bundle
from wise_edge.cli.main import main
from wise_edge.errors import BundleError, DeviceError, MissingExtraError, UsageError, WiseEdgeError
from wise_edge.export.options import ExportOptions
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.export.to_tensorrt import bundle as engine_bundle
from wise_edge.export.to_tensorrt import plan
from wise_edge.export.to_tensorrt.build import EngineRequest, build_engine
from wise_edge.export.to_tensorrt.bundle import build_engines
from wise_edge.export.to_tensorrt.target import add_engines, check_builders
from wise_edge.files.locks import holding
from wise_edge.native import cuda


def quiet(step: str, share: float | None = None) -> None:
    pass


def _roles(folder: Path) -> set[str]:
    return {artifact.role for artifact in load(folder, verify_hashes=True).manifest.artifacts}


def _engines(name: str) -> set[str]:
    return {engine_role(graph, name) for graph in GRAPHS}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The embedded bundle, to be changed."""
    return copytree(resolve_bundle(EMBEDDED), tmp_path / "bundle")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded bundle with engines for RTX."""
    folder = copytree(resolve_bundle(EMBEDDED), tmp_path_factory.mktemp("engines") / "bundle")
    add_engines(folder, parse_gpu_kinds("sm86,sm89,sm120"), quiet)
    return folder


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded bundle with engines for one RTX GPU, and a plan that names a Jetson too."""
    folder = copytree(resolve_bundle(EMBEDDED), tmp_path_factory.mktemp("kit") / "bundle")
    add_engines(folder, parse_gpu_kinds("orin,sm89"), quiet)
    return folder


@pytest.fixture
def started(kit: Path, tmp_path: Path) -> Path:
    """`kit`, to be changed."""
    return copytree(kit, tmp_path / "bundle")


def test_every_graph_of_the_embedded_bundle_becomes_an_engine_with_a_sidecar(built: Path) -> None:
    bundle = load(built, verify_hashes=True)
    assert _engines("rtx") | {f"{role}.json" for role in _engines("rtx")} | {"engines.plan"} <= _roles(built)
    for graph in GRAPHS:
        sidecar = Sidecar.read(bundle.file(f"{engine_role(graph, 'rtx')}.json"))
        assert sidecar.graph == graph
        assert sidecar.source_sha256 == bundle.artifact(graph).sha256
        assert sidecar.sha256 == bundle.artifact(engine_role(graph, "rtx")).sha256
        assert sidecar.capabilities == ("8.6", "8.9", "12.0")
    assert bundle.unlisted_files() == []


def test_the_plan_gives_room_for_a_whole_prompt_and_an_empty_past(built: Path) -> None:
    bundle = load(built)
    written = BuildPlan.read(bundle.file("engines.plan"))
    ranges = {graph.graph: graph.ranges for graph in written.graphs}
    context = bundle.manifest.policy.context_tokens
    assert written.targets == ("sm86", "sm89", "sm120")
    assert ranges["policy.vision"] == ranges["sam.encoder"] == {}
    assert ranges["policy.decoder"]["inputs_embeds"].largest[1] == context
    assert ranges["policy.decoder"]["past_key_0"].smallest[2] == 0
    assert ranges["policy.decoder"]["past_key_0"].largest[2] == context
    assert ranges["sam.decoder"]["point_coords"].largest == (1, 64, 2)  # the embedded graph takes one prompt


def test_engines_of_new_exports_take_several_prompts(tiny_checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    SamSource(tiny_checkpoints[1]).export(tmp_path, "fp32", False, [], quiet)
    graph = tmp_path / "sam.decoder.onnx"
    ranges = plan.find_ranges(graph, POLICY)
    request = EngineRequest("sam.decoder", graph, "source", ranges, parse_gpu_kinds("sm86,sm120"))

    sidecar = build_engine(request, tmp_path / "engine", lambda share: None)

    assert {name: (given.typical, given.largest) for name, given in sidecar.ranges.items()} == {
        "image_embeddings": ((1, 32, 8, 8),) * 2,
        "point_coords": ((1, 4, 2), (16, 64, 2)),
        "point_labels": ((1, 4), (16, 64)),
        "mask_input": ((1, 1, 32, 32), (16, 1, 32, 32)),
        "has_mask_input": ((1,), (16,)),
    }
    assert [spec.shape for spec in sidecar.outputs] == [(-1, 4, 32, 32), (-1, 4)]


def test_a_jetson_gets_a_kit_and_is_told_to_build_it_there(bundle: Path) -> None:
    add_engines(bundle, parse_gpu_kinds("orin"), quiet)
    assert "engines.plan" in _roles(bundle)
    assert not any(".engine." in role for role in _roles(bundle))
    with pytest.raises(DeviceError, match=r"engines for orin are built on the device itself.*wise-edge build bundle"):
        build_engines(bundle, quiet)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorRT for RTX wants no timing cache, TensorRT does
def test_on_the_device_a_kit_becomes_engines_and_timings_are_kept(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT for RTX, which has the same interface, stands in for TensorRT on an Orin."""
    add_engines(bundle, parse_gpu_kinds("orin"), quiet)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(engine_bundle, "find_capability", lambda: (8, 7))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert set(build_engines(bundle, quiet).built) == _engines("orin")
    (timings,) = (tmp_path / "caches" / "wise-edge").iterdir()
    assert timings.name == f"timings-orin-{trt.__version__}.cache"
    assert Sidecar.read(load(bundle).file("sam.decoder.engine.orin.json")).capabilities == ("8.7",)
    again = build_engines(bundle, quiet, devices="this", force=True)  # reads the timings
    assert set(again.built) == _engines("orin")


def test_what_can_be_built_here_is_built_and_the_rest_is_left(kit: Path) -> None:
    assert _engines("rtx") <= _roles(kit)
    assert not _engines("orin") & _roles(kit)
    result = build_engines(kit, quiet)
    assert (result.built, set(result.kept), result.left) == ((), _engines("rtx"), ("orin",))


def test_a_build_that_was_stopped_goes_on_with_the_next_engine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine_bundle.build_engine

    def stop_at_third(request: engine_bundle.EngineRequest, *rest: object) -> Sidecar:
        if request.graph == "sam.encoder":
            raise KeyboardInterrupt
        return real(request, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_bundle, "build_engine", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        add_engines(bundle, parse_gpu_kinds("sm89"), quiet)
    assert _roles(bundle) & _engines("rtx") == {"policy.vision.engine.rtx", "policy.decoder.engine.rtx"}
    monkeypatch.undo()
    result = build_engines(bundle, quiet)
    assert result.kept == ("policy.vision.engine.rtx", "policy.decoder.engine.rtx")
    assert result.built == ("sam.encoder.engine.rtx", "sam.decoder.engine.rtx")
    assert build_engines(bundle, quiet, force=True).kept == ()


def test_an_engine_that_no_longer_fits_is_built_again(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_engines(started, quiet).built == ()
    assert len(build_engines(started, quiet, devices="sm89,sm120").built) == len(GRAPHS)  # they lacked one GPU
    monkeypatch.setattr(trt, "__version__", "99.0")
    assert len(build_engines(started, quiet).built) == len(GRAPHS)
    assert Sidecar.read(load(started).file("sam.decoder.engine.rtx.json")).builder_version == "99.0"


def test_a_build_that_fails_keeps_what_was_built(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def fail(*_: object) -> Sidecar:
        raise WiseEdgeError("out of memory")

    monkeypatch.setattr(engine_bundle, "build_engine", fail)
    with pytest.raises(WiseEdgeError, match="out of memory"):
        build_engines(started, quiet, force=True)
    assert _roles(started) & _engines("rtx") == _engines("rtx") - {"policy.vision.engine.rtx"}


def test_bundles_without_a_plan_and_devices_that_cannot_be_built_for(bundle: Path, built: Path) -> None:
    with pytest.raises(BundleError, match="has no plan of engines; export it with --target tensorrt"):
        build_engines(bundle, quiet)
    with pytest.raises(DeviceError, match="engines for thor are built on the device itself"):
        build_engines(built, quiet, devices="sm89,thor")
    with pytest.raises(DeviceError, match="no NVIDIA GPU was found"):
        build_engines(built, quiet, devices="this")


def test_a_missing_builder_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wise-edge\[rtx\]'"):
        check_builders(parse_gpu_kinds("sm89"), ("fp32",))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--target", "tensorrt"), 2, "--target tensorrt and edgellm need --device"),
        (("--target", "onnx", "--device", "sm89"), 2, "--target tensorrt and edgellm need --device"),
        (("--target", "tensorrt", "--device", "sm99"), 2, "unknown device 'sm99'"),
        (("--target", "tensorrt", "--device", "sm75", "--onnx-precision", "int8"), 4, "sm75 (compute capability 7.5)"),
        (("--target", "tensorrt", "--device", "this"), 4, "no NVIDIA GPU was found"),
    ],
)
def test_exports_that_cannot_be(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", "--policy", "embedded", "--sam", "embedded", "--out", str(out), *arguments]) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_the_command_says_what_it_built_and_what_is_left(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(built)]) == 0
    kept = [f"kept   {engine_role(graph, 'rtx')}" for graph in GRAPHS]
    assert capsys.readouterr().out.splitlines() == [*kept, f"bundle.json sha256:{load(built).sha256}"]
    assert main(["build", str(built), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == []


@pytest.mark.slow
def test_an_export_ends_with_engines_or_a_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["export", "--policy", "embedded", "--sam", "embedded", "--target", "tensorrt", "--samples", "1"]
    precisions = ["--onnx-precision", "int4", "--sam-precision", "int8"]
    assert main([*common, *precisions, "--device", "sm86,sm89,orin", "--out", str(tmp_path / "b")]) == 0
    assert "engines for orin are built on the device" in capsys.readouterr().err
    bundle = load(tmp_path / "b", verify_hashes=True)
    types = {graph: Sidecar.read(bundle.file(f"{graph}.engine.rtx.json")).types for graph in GRAPHS}
    assert "int4" in types["policy.decoder"]
    assert "int8" in types["policy.vision"]
    assert "int8" in types["sam.encoder"]
    assert all("float16" in found for found in types.values())  # what is not rounded further computes in half precision
    assert bundle.artifact("sam.decoder").precision == "fp16"
    assert bundle.manifest.verified


@pytest.mark.slow
def test_bfloat16_is_verified_by_float32_rounded_as_often(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["export", "--policy", "embedded", "--sam", "embedded", "--target", "tensorrt", "--samples", "1"]
    precisions = ["--onnx-precision", "bf16", "--sam-precision", "bf16"]
    assert main([*common, *precisions, "--device", "sm86", "--out", str(tmp_path / "b")]) == 0
    bundle = load(tmp_path / "b", verify_hashes=True)
    assert {bundle.artifact(graph).precision for graph in GRAPHS} == {"bf16"}
    assert all("bf16" in Sidecar.read(bundle.file(f"{graph}.engine.rtx.json")).types for graph in GRAPHS)
    figures = {figure.what: figure for figure in bundle.manifest.verification}
    assert figures["onnx: mask IoU with torch, mean"].at_least == 0.95
    assert 1e-3 < figures["policy.vision"].value < 0.05  # it was rounded, and not more often than that
    assert bundle.unlisted_files() == []
    capsys.readouterr()
    picture = str(tmp_path / "picture.png")
    Image.new("RGB", (64, 64)).save(picture)
    assert main(["run", picture, "the ring", "--bundle", str(tmp_path / "b"), "--policy-backend", "onnx"]) == 4
    assert "in bf16, which only TensorRT runs" in capsys.readouterr().err


def test_the_cuda_runtime_of_this_machine_says_what_is_wrong() -> None:
    if cuda.find_capability() is not None:
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match=r"no NVIDIA GPU can be used|no CUDA runtime"):
        cuda.open_cuda()
    with pytest.raises(DeviceError, match="the CUDA runtime cannot be loaded"):
        cuda.Cuda("libcudart.of.nobody.so")


def test_an_export_option_names_tensorrt_with_a_device() -> None:
    with pytest.raises(UsageError, match="need --device"):
        ExportOptions(targets=("tensorrt",))
    with pytest.raises(UsageError, match="bf16 graphs run on TensorRT alone; add --target tensorrt"):
        ExportOptions(sam_precision="bf16")


def test_a_bundle_in_which_another_process_builds_is_refused(started: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (started / "bundle.json").read_bytes()
    with holding(started):
        assert main(["build", str(started), "--force"]) == 2
    assert f"error: {started} is being written by another process" in capsys.readouterr().err
    assert (started / "bundle.json").read_bytes() == before
