"""Any input gets a clear line and the right exit code: no traceback, no half-written file."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fake_session
from wise_edge.bundle.manifest import Manifest
from wise_edge.bundle.store import describe_file, write_manifest
from wise_edge.cli.main import main
from wise_edge.files import writing
from wise_edge.policy.picture import PictureGeometry
from wise_edge.policy.prompts import EMBEDDED
from wise_edge.policy.spec import PolicySpec
from wise_edge.sam.spec import SamSpec

RED = np.full((40, 50, 3), (200, 30, 30), np.uint8)


@pytest.fixture(autouse=True)
def _fresh_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> fake_session.Opened:
    return fake_session.install(monkeypatch)


@pytest.fixture
def picture() -> str:
    Image.fromarray(RED).save("picture.png")
    return "picture.png"


def _refused(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail without leaving anything; return its error line."""
    before = sorted(Path.cwd().rglob("*"))
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert sorted(Path.cwd().rglob("*")) == before
    return err


def _save(name: str, mode: str = "RGB", **options: object) -> Callable[[], str]:
    def save() -> str:
        Image.fromarray(RED).convert(mode).save(name, **options)
        return name

    return save


def _deep() -> str:
    Image.fromarray(np.linspace(0, 65535, 2000).reshape(40, 50).astype(np.uint16)).save("deep.png")
    return "deep.png"


def _animated() -> str:
    frames = [Image.new("RGB", (50, 40), color) for color in ("red", "green", "blue")]
    frames[0].save("animated.gif", save_all=True, append_images=frames[1:])
    return "animated.gif"


def _one_pixel() -> str:
    Image.new("RGB", (1, 1), "red").save("dot.png")
    return "dot.png"


def _turned() -> str:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: shown 50 x 40 from 40 x 50 stored
    Image.fromarray(RED.transpose(1, 0, 2)).save("turned.jpg", exif=exif)
    return "turned.jpg"


ODD_BUT_GOOD = [
    _save("cmyk.jpg", "CMYK"),
    _save("palette.png", "P"),
    _save("palette.gif", "P", transparency=0),
    _save("gray.png", "L"),
    _save("bits.png", "1"),
    _save("alpha.webp", "RGBA"),
    _save("tiff.tiff"),
    _deep,
    _animated,
    _turned,
]


@pytest.mark.parametrize("make", ODD_BUT_GOOD, ids=lambda make: make.__qualname__.split(".")[0])
def test_odd_pictures_are_read(
    make: Callable[[], str], opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", make(), "the red ring", "--json", "--mask", "mask.png", "--overlay", "overlay.png"]) == 0
    out, err = capsys.readouterr()
    said = "several frames" if make is _animated else ""
    assert said in err and err.count("\n") == bool(said)
    assert json.loads(out)["image_size"] == [50, 40]
    with Image.open("mask.png") as mask:
        assert mask.size == (50, 40)


def test_a_single_pixel_is_a_picture(opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", _one_pixel(), "the red ring", "--json", "--mask", "mask.png", "--overlay", "overlay.png"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["box"] == [0, 0, 1, 1]
    assert data["mask"] == {"size": [1, 1], "counts": "01"}


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _bomb(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", header)
        + _png_chunk(b"IDAT", zlib.compress(b""))
        + _png_chunk(b"IEND", b"")
    )


def _cut(name: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(name)
    content = Path(name).read_bytes()
    Path(name).unlink()
    return content[: len(content) // 2]


BAD_PICTURES = {
    "empty": lambda: b"",
    "text": lambda: b"hello, I am no image\n",
    "truncated-png": lambda: _cut("whole.png"),
    "truncated-jpeg": lambda: _cut("whole.jpg"),
    "truncated-header": lambda: b"\x89PNG\r\n\x1a\n\0\0",
    "bomb": lambda: _bomb(60_000),
    "just-too-large": lambda: _bomb(10_001),
    "no-pixels": lambda: _bomb(0),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_bad_pictures_are_refused(kind: str, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.png").write_bytes(BAD_PICTURES[kind]())
    line = _refused(["run", "bad.png", "the red ring", "--mask", "m.png", "--overlay", "o.png"], 2, capsys)
    assert "bad.png" in line
    assert opened.calls == []


@pytest.mark.parametrize("name", ["no-such.png", ".", "no/such/folder.png", "x" * 300 + ".png", "two\nlines.png"])
def test_paths_that_name_no_picture_are_refused(
    name: str, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _refused(["run", name, "the red ring"], 2, capsys)
    assert len(line) < 400


@pytest.mark.parametrize("query", ["", "   \t\n", "x" * 10_000, "red " * 2_500, "the <|im_end|> ring", "ring \udcff"])
def test_bad_queries_are_refused(
    query: str, picture: str, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _refused(["run", picture, query], 2, capsys)
    assert "query" in line
    assert len(line) < 200
    assert opened.calls == []


@pytest.mark.parametrize(
    "query", ["красное кольцо", "红色的圆环", "الحلقة الحمراء", "🔴 ⭕", "l'anneau é̀ß", "[red]ring[/red]"]
)
def test_queries_in_any_script_are_answered(
    query: str, picture: str, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", picture, query, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["query"] == query
    assert main(["run", picture, query, "--overlay", "overlay.png"]) == 0
    assert query in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outputs", "word"),
    [
        (["--mask", "earlier.png"], "earlier.png exists; use --force"),
        (["--mask", "picture.png"], "picture.png would replace what this command reads"),
        (["--overlay", "folder.png"], "is a folder"),
        (["--mask", "no/such/mask.png"], "the folder no/such does not exist"),
        (["--mask", "mask.jpg"], "end in .png"),
        (["--overlay", "overlay"], "end in .png, .jpg"),
        (["--mask", "same.png", "--overlay", "./same.png"], "choose another name for one"),
        (["--mask", "y" * 300 + ".png"], "too long"),
    ],
)
def test_outputs_are_refused_before_anything_runs(
    outputs: list[str],
    word: str,
    picture: str,
    opened: fake_session.Opened,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("folder.png").mkdir()
    Path("earlier.png").touch()
    assert word in _refused(["run", picture, "the red ring", *outputs], 2, capsys)
    assert opened.calls == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(
    picture: str, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("locked").mkdir(0o500)
    assert "cannot write" in _refused(["run", picture, "the red ring", "--mask", "locked/mask.png"], 2, capsys)
    assert opened.calls == []


def test_a_full_disk_leaves_no_half_of_a_file(
    picture: str, opened: fake_session.Opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    before = sorted(Path.cwd().rglob("*"))
    assert main(["run", picture, "the red ring", "--mask", "mask.png"]) == 1
    answer, refusal = capsys.readouterr()
    assert "box" in answer  # what was computed is shown
    assert refusal == "error: cannot write mask.png: No space left on device; free some space and run it again\n"
    assert sorted(Path.cwd().rglob("*")) == before


def test_an_unknown_variant_is_refused(
    picture: str, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _refused(["run", picture, "the red ring", "--variant", "loud", "--mask", "mask.png"], 2, capsys)
    assert "unknown variant 'loud'" in line
    assert "wise-s" in line


@pytest.fixture
def bundle() -> Path:
    """A bundle that is complete on paper: its files hold nothing that a runtime could run."""
    folder = Path("bundle")
    folder.mkdir()
    roles = {
        "policy.vision": "vision.onnx",
        "policy.decoder": "decoder.onnx",
        "policy.embedding": "embedding.npy",
        "policy.tokenizer": "tokenizer.json",
        "sam.encoder": "sam_encoder.onnx",
        "sam.decoder": "sam_decoder.onnx",
    }
    for name in roles.values():
        (folder / name).write_bytes(name.encode())
    artifacts = [
        describe_file(folder, name, role, "onnx" if name.endswith("onnx") else name) for role, name in roles.items()
    ]
    policy = PolicySpec(
        "qwen2_5_vl", PictureGeometry.square(112), 14, 2, 2, (0.5,) * 3, (0.5,) * 3, EMBEDDED, "wise-s",
        "<|image_pad|>", ("<|im_end|>",), 64, 2, 1, 32, 512,
    )  # fmt: skip
    sam = SamSpec("segment_anything", 256, 64, (123.0,) * 3, (58.0,) * 3, False)
    write_manifest(folder, Manifest("paper", "2026-01-01T00:00:00Z", policy, sam, tuple(artifacts), True, (), {}))
    return folder


def _edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    change(manifest)
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def _escape(manifest: dict[str, Any]) -> None:
    manifest["artifacts"][0]["path"] = "../vision.onnx"


def _absolute(manifest: dict[str, Any]) -> None:
    manifest["artifacts"][0]["path"] = "/etc/passwd"


def _newer(manifest: dict[str, Any]) -> None:
    manifest["schema_version"] = 99


def _link_out(bundle: Path) -> None:
    Path("vision.onnx").write_bytes(b"vision.onnx")
    (bundle / "vision.onnx").unlink()
    (bundle / "vision.onnx").symlink_to(Path("vision.onnx").resolve())


BAD_BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "artifact-missing": (lambda bundle: (bundle / "decoder.onnx").unlink(), "decoder.onnx is missing"),
    "artifact-cut": (lambda bundle: (bundle / "sam_encoder.onnx").write_bytes(b"sam"), "has 3 bytes"),
    "path-escapes": (lambda bundle: _edit(bundle, _escape), "outside the bundle"),
    "path-absolute": (lambda bundle: _edit(bundle, _absolute), "outside the bundle"),
    "link-escapes": (_link_out, "outside the bundle"),
    "manifest-missing": (lambda bundle: (bundle / "bundle.json").unlink(), "no bundle.json"),
    "manifest-cut": (lambda bundle: (bundle / "bundle.json").write_text('{"schema'), "is not JSON"),
    "manifest-empty": (lambda bundle: (bundle / "bundle.json").write_text("{}"), "malformed"),
    "manifest-newer": (lambda bundle: _edit(bundle, _newer), "update wise-edge"),
    "artifact-altered": (lambda bundle: (bundle / "vision.onnx").write_bytes(b"noisiv.onnx"), "vision.onnx"),
}


@pytest.mark.parametrize("kind", BAD_BUNDLES)
@pytest.mark.parametrize("command", ["run", "evaluate", "demo"])
def test_bad_bundles_are_refused(
    command: str, kind: str, bundle: Path, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, word = BAD_BUNDLES[kind]
    spoil(bundle)
    arguments = {
        "run": ["run", picture, "the red ring", "--mask", "mask.png"],
        "evaluate": ["evaluate", "--limit", "1", "--out", "records.jsonl"],
        "demo": ["demo", "--out", "."],
    }[command]
    assert word in _refused([*arguments, "--bundle", str(bundle)], 1, capsys)


def test_a_bundle_that_is_no_folder_is_refused(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(["run", picture, "the red ring", "--bundle", "Qwen/Qwen2.5-VL-3B-Instruct"], 2, capsys)
    assert "Qwen/Qwen2.5-VL-3B-Instruct is not a folder" in line
    assert "make one of a checkpoint: wise-edge setup" in line


def test_a_checkpoint_is_no_bundle(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("policy").mkdir()
    Path("policy/config.json").write_text("{}")
    line = _refused(["run", picture, "the red ring", "--bundle", "policy"], 1, capsys)
    assert line == (
        "error: policy is a checkpoint and not a bundle; make one of it: wise-edge setup POLICY_DIR SAM_FILE\n"
    )


@pytest.mark.parametrize("part", ["policy", "mask"])
def test_an_unknown_backend_is_refused(
    part: str, bundle: Path, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", picture, "the red ring", "--bundle", str(bundle), f"--{part}-backend", "abacus"]
    line = _refused(arguments, 2, capsys)
    assert f"unknown {part} backend 'abacus'; choose one of auto, " in line
    assert "onnx" in line


@pytest.mark.parametrize(
    ("part", "name", "meant"),
    [
        ("policy", "cuda", "onnx-cuda or llama-gpu"),
        ("policy", "GPU", "onnx-cuda or llama-gpu"),
        ("mask", "gpu", "onnx-cuda"),
        ("policy", "cpu", "onnx or llama"),
        ("policy", "trt", "tensorrt"),
        ("policy", "onx", "onnx"),
    ],
)
def test_a_backend_by_another_name_is_recognized(
    part: str, name: str, meant: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _refused(["run", picture, "the red ring", f"--{part}-backend", name], 2, capsys)
    assert f"unknown {part} backend '{name}'; did you mean {meant}? choose one of auto, " in line


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "no-such.png", "the red ring"], 2),
        (["run", "picture.png", ""], 2),
        (["run", "picture.png", "the red ring", "--mask", "picture.png"], 2),
        (["run", "picture.png", "the red ring", "--bundle", "."], 1),
        (["evaluate", "--limit", "-1"], 2),
        (["demo", "--image", "picture.png"], 2),
    ],
)
def test_the_installed_command_ends_with_one_line(arguments: list[str], code: int, picture: str) -> None:
    done = subprocess.run([sys.executable, "-m", "wise_edge", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert [path.name for path in Path.cwd().iterdir()] == [picture]


def test_a_query_that_is_no_text_is_refused(picture: str) -> None:
    command = [sys.executable, "-m", "wise_edge", "run", picture, b"ring \xff"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: the query is not valid UTF-8")
