"""`wise-edge track`: a video and a query in; lines of JSON, and a video that plays, out."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

import fake_session
import remembering_fakes
from mjpeg_server import begin_mjpeg, send_jpeg, serving
from movies import encode, pan, play
from wise_edge.bundle.store import Bundle
from wise_edge.cli import options
from wise_edge.cli.main import main
from wise_edge.cli.output.progress import _TimeLeft
from wise_edge.errors import WiseEdgeError
from wise_edge.geometry import mask_box
from wise_edge.metrics import mask_iou
from wise_edge.outputs import pictures
from wise_edge.policy.answers.form import BOX_LABEL_LIST
from wise_edge.rle import mask_of_runs
from wise_edge.runtimes import tracking
from wise_edge.runtimes.mask import calls
from wise_edge.scenes import sample
from wise_edge.video import writing

MOVIE = pan(3, 36)
RING = "the ring"


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Heed Ctrl-C, which is ignored where the tests run in the background."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return encode(tmp_path / "in.mp4", MOVIE.images[:8])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> fake_session.Opened:
    return fake_session.install(monkeypatch)


def raise_at_frame(last: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise a signal while a frame is drawn."""
    drawn, draw = count(1), pictures.draw_result

    def draw_and_stop(*arguments: Any) -> Any:
        if next(drawn) == last:
            signal.raise_signal(number)
        return draw(*arguments)

    monkeypatch.setattr(pictures, "draw_result", draw_and_stop)


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_mask_follows_the_object_of_a_known_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the embedded models: 36 frames of 1.2 s, of which the policy sees the first and the one at 1 s."""
    file, out, jsonl = encode(tmp_path / "in.mp4", MOVIE.images), tmp_path / "out.mp4", tmp_path / "out.jsonl"

    assert main(["track", str(file), MOVIE.query, "--out", str(out), "--jsonl", str(jsonl)]) == 0

    said = capsys.readouterr()
    assert said.out.startswith("36 frames, 36 with an object, 0 dropped; ")
    assert said.err == "tracking ...\n"
    lines = lines_of(jsonl.read_text())
    assert [line["frame"] for line in lines] == list(range(36))
    np.testing.assert_allclose([line["time_s"] for line in lines], np.arange(36) / 30, atol=1e-6)
    assert [line["grounded_frame"] for line in lines] == [0] * 30 + [30] * 6
    assert [line["stale"] for line in lines] == [line["frame"] not in (0, 30) for line in lines]
    assert {(line["status"], len(line["objects"]), line["dropped"]) for line in lines} == {("found", 1, 0)}
    masks = [mask_of_runs(line["objects"][0]["mask"]) for line in lines]
    ious = [mask_iou(mask, truth) for mask, truth in zip(masks, MOVIE.masks, strict=True)]
    assert min(ious) > 0.85 and np.mean(ious) > 0.92
    played = play(out)
    assert (played.codec, played.audio, played.rate) == ("h264", 0, 30)
    np.testing.assert_allclose(played.times_s, np.arange(36) / 30, atol=1e-6)
    for drawn, plain, mask in zip(played.images, play(file).images, masks, strict=True):
        changed = np.abs(drawn.astype(int) - plain).mean(axis=2)
        left, top, right, bottom = mask_box(mask)
        near = np.zeros_like(mask)
        near[max(0, top - 6) : bottom + 6, max(0, left - 6) : right + 6] = True
        assert changed[near].mean() > 15  # a contour and a fill
        assert changed[~near].mean() < 4  # and nothing elsewhere, but for coding


def test_a_variable_rate_and_the_turn_of_a_phone_are_kept(
    tmp_path: Path, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks, tick_s = [0, 3003, 6006, 30000, 30001, 90000], Fraction(1, 90_000)
    wide = [np.rot90(image[:120], -1) for image in MOVIE.images[:6]]
    file = encode(tmp_path / "in.mov", wide, ticks=ticks, tick_s=tick_s, rotation=90)

    assert main(["track", str(file), RING, "--out", str(tmp_path / "out.mkv"), "--json"]) == 0

    lines = lines_of(capsys.readouterr().out)
    assert [line["time_s"] for line in lines] == [round(tick / 90_000, 6) for tick in ticks]
    assert {tuple(line["image_size"]) for line in lines} == {(224, 120)}
    played = play(tmp_path / "out.mkv")
    np.testing.assert_allclose(played.times_s, [tick / 90_000 for tick in ticks], atol=1e-3)
    assert played.images[0].shape == (120, 224, 3)


def test_without_an_output_each_frame_is_a_line_of_text(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def name_two(image: np.ndarray, query: str, variant: str) -> str:
        return fake_session.list_boxes([(0, 0, 56, 56), (112, 112, 224, 224)], (224, 224), "cup")

    policy = fake_session.FakePolicy(name_two, form=BOX_LABEL_LIST)
    fake_session.install(monkeypatch, policy=policy)

    assert main(["track", str(video), "the cups"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "   0.000 s  1 cup 0, 0 to 56, 56; 2 cup 112, 112 to 224, 224"
    assert lines[1] == "   0.033 s  1 cup 0, 0 to 56, 56; 2 cup 112, 112 to 224, 224; 0.03 s after the policy saw it"
    assert lines[8].startswith("8 frames, 8 with an object, 0 dropped; ")


@pytest.mark.parametrize(("every", "grounded"), [("0", [0, 1, 2, 3, 4, 5, 6, 7]), ("0.1", [0, 0, 0, 3, 3, 3, 6, 6])])
def test_the_policy_is_asked_as_often_as_wished(
    video: Path, opened: fake_session.Opened, every: str, grounded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["track", str(video), RING, "--json", "--ground-every", every]) == 0

    lines = lines_of(capsys.readouterr().out)
    assert [line["grounded_frame"] for line in lines] == grounded
    assert opened.policy.encoded == len(set(grounded))


def test_a_memory_says_what_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A square passes behind a wall; lossless, because the fake knows it by its gray."""
    images = [remembering_fakes.draw({200: (8 + 4 * place, 50)}, (40, 0, 70, 112)) for place in range(16)]
    file = encode(tmp_path / "in.mkv", images, "ffv1", tick_s=Fraction(1, 10), rate=10, pix_fmt="bgr0")
    fake_session.install(monkeypatch, policy=remembering_fakes.NamingPolicy(), mask=remembering_fakes.GrayMask())
    monkeypatch.setattr(calls, "check_memory", lambda spec: None)  # the shipped bundles have none

    assert main(["track", str(file), RING, "--memory", "--json"]) == 0
    lines = lines_of(capsys.readouterr().out)
    assert main(["track", str(file), RING, "--memory"]) == 0
    text = capsys.readouterr().out.splitlines()

    assert [[item["number"] for item in line["objects"]] for line in lines] == [[1]] * 8 + [[]] * 3 + [[1]] * 5
    assert lines[0]["hidden"] == [] and lines[0]["objects"][0]["object_score"] == 5.0
    assert [item | {"hidden_s": round(item["hidden_s"], 3)} for item in lines[9]["hidden"]] == [
        {"number": 1, "box": [36, 50, 40, 70], "label": "square", "object_score": -5.0, "hidden_s": 0.2}
    ]
    assert lines[9]["status"] == "nothing"
    assert text[9] == "   0.900 s  1 square hidden for 0.20 s; 0.30 s after the policy saw it"
    assert text[-1].startswith("16 frames, 13 with an object, 0 dropped; ")


@pytest.mark.parametrize("memory", [[], ["--memory"]])
@pytest.mark.parametrize(
    ("said", "more", "note"),
    [
        ("", [], "nothing that matches the query was found at the start; nothing is followed until the policy, asked"),
        ("", ["--ground-every", "0"], "until the policy, asked on every frame, finds something"),
        ("I see it.", ["--ground-every", "2"], "note: the policy gave no answer ("),
    ],
)
def test_a_start_without_an_object_is_told(
    video: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    memory: list[str],
    said: str,
    more: list[str],
    note: str,
) -> None:
    policy = remembering_fakes.NamingPolicy(meant=(), text=said)
    fake_session.install(monkeypatch, policy=policy, mask=remembering_fakes.GrayMask())
    monkeypatch.setattr(calls, "check_memory", lambda spec: None)

    assert main(["track", str(video), RING, "--json", *more, *memory]) == 0

    said_too = capsys.readouterr()
    assert note in said_too.err
    assert said_too.err.count("note: ") == 1
    assert len(lines_of(said_too.out)) == 8


def test_the_step_is_told_before_its_results(
    video: Path, opened: fake_session.Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = io.StringIO()
    monkeypatch.setattr(sys, "stdout", both)
    monkeypatch.setattr(sys, "stderr", both)
    assert main(["track", str(video), RING]) == 0
    lines = both.getvalue().splitlines()
    assert lines[0] == "tracking ..."
    assert lines.count("tracking ...") == 1
    assert lines[1].startswith("   0.000 s")


def test_in_real_time_frames_are_dropped_and_counted(
    video: Path, opened: fake_session.Opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "at_recorded_pace", lambda frames: frames)  # at once

    assert main(["track", str(video), RING, "--json", "--realtime"]) == 0

    said = capsys.readouterr()
    lines = lines_of(said.out)
    frames = [line["frame"] for line in lines]
    assert frames == sorted(set(frames)) and frames[-1] == 7  # each once, and the last one for certain
    dropped = sum(line["dropped"] for line in lines)
    assert len(lines) + dropped == 8
    assert f", {len(lines)} with an object, {dropped} dropped" in said.err


def test_sound_is_left_out_and_told(
    tmp_path: Path, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    import av

    file = tmp_path / "in.mp4"
    with av.open(str(file), "w") as out:
        pictures, sound = out.add_stream("libx264", rate=30), out.add_stream("aac", rate=8000)
        pictures.width = pictures.height = 224
        pictures.pix_fmt = "yuv420p"
        for image in MOVIE.images[:3]:
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(pictures.encode(None))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        samples.rate = 8000
        out.mux([*sound.encode(samples), *sound.encode(None)])

    assert main(["track", str(file), RING, "--out", str(tmp_path / "out.mp4")]) == 0

    assert f"note: {tmp_path}/out.mp4 is written without sound\n" in capsys.readouterr().err
    assert play(tmp_path / "out.mp4").audio == 0


def test_without_h264_the_codec_is_told(
    video: Path,
    tmp_path: Path,
    opened: fake_session.Opened,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(writing, "_CODECS", {"mpeg4": writing._CODECS["mpeg4"]})

    assert main(["track", str(video), RING, "--out", str(tmp_path / "out.mp4")]) == 0

    assert "this build of FFmpeg cannot write H.264; " in capsys.readouterr().err
    assert play(tmp_path / "out.mp4").codec == "mpeg4"


def test_a_video_of_something_else_is_told_once(
    tmp_path: Path,
    opened: fake_session.Opened,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Bundle, "is_embedded", True)  # the fakes stand for models that know everything
    noise = [np.random.default_rng(place).integers(0, 255, (96, 96, 3), np.uint8) for place in range(3)]

    assert main(["track", str(encode(tmp_path / "in.mp4", noise)), RING, "--json"]) == 0

    assert capsys.readouterr().err.count("built-in demo model: ") == 1

    scenes = [sample("test", 0).scene.image] * 3
    for query, notes in ((RING, 0), ("the elephant", 1)):
        assert main(["track", str(encode(tmp_path / "scene.mp4", scenes)), query, "--json"]) == 0
        assert capsys.readouterr().err.count("built-in demo model: ") == notes


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["no.mp4", RING], 2, "cannot read no.mp4: No such file or directory; pass a file, a camera"),
        (["in.mp4", " "], 2, "query"),
        (["in.mp4", RING, "--out", "out.avi"], 2, "out.avi is not the name of a video; use one that ends in .mp4"),
        (["in.mp4", RING, "--out", "in.mp4", "--force"], 2, "would replace what this command reads"),
        (["in.mp4", RING, "--out", "there.mp4"], 2, "there.mp4 exists; use --force to replace it"),
        (["in.mp4", RING, "--jsonl", "there.mp4"], 2, "there.mp4 exists; use --force to replace it"),
        (["in.mp4", RING, "--out", "a.mp4", "--jsonl", "a.mp4"], 2, "--out and --jsonl both name a.mp4"),
        (["in.mp4", RING, "--realtime", "--ground-every", "2"], 2, "--ground-every is for files"),
        (["in.mp4", RING, "--fps", "30"], 2, "in.mp4 is not a camera; remove --size, --fps and --format"),
        (["0", RING, "--size", "big"], 2, "--size is big; pass width and height, such as 1280x720"),
        (["in.mp4", RING, "--variant", "short"], 2, "short"),
        (
            ["in.mp4", RING, "--memory", "--out", "out.mp4"],
            2,
            "this segmenter has no memory of earlier frames; export ",
        ),
        (["/dev/null", RING], 4, "/dev/null is not a camera; "),
        (["7213", RING], 4, "cannot open /dev/video7213: No such file or directory; "),
        (["empty.mp4", RING, "--out", "out.mp4"], 2, "empty.mp4 is not a readable video"),
    ],
)
def test_what_cannot_be_is_one_line_before_the_work(
    video: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    line: str,
) -> None:
    monkeypatch.chdir(video.parent)
    opened = fake_session.install(monkeypatch)
    Path("there.mp4").write_bytes(b"there")
    Path("empty.mp4").touch()
    before = sorted(Path().iterdir())

    assert main(["track", *arguments]) == code

    out, err = capsys.readouterr()
    assert (out, len(err.splitlines()), opened.calls) == ("", 1, [])
    assert line in err
    assert sorted(Path().iterdir()) == before
    assert Path("there.mp4").read_bytes() == b"there"


def test_without_the_extra_the_line_that_installs_it_is_printed(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)

    for more in ([], ["--out", str(video.with_name("out.mp4"))]):
        assert main(["track", str(video), RING, *more]) == 3
        assert capsys.readouterr().err == "error: av is not installed; run: pip install 'wise-edge[video]'\n"


def test_a_video_without_frames_takes_no_place(
    tmp_path: Path, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    file = encode(tmp_path / "in.mp4", MOVIE.images[:2], container={"movflags": "faststart"})
    data = file.read_bytes()
    file.write_bytes(data[: data.index(b"mdat") + 4])  # the index alone

    assert main(["track", str(file), RING, "--out", str(tmp_path / "out.mp4")]) == 2

    assert "has no frame that can be read" in capsys.readouterr().err
    assert opened.calls == []  # no model was loaded for it
    assert sorted(tmp_path.iterdir()) == [file]


def test_what_was_written_until_a_failure_is_kept(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def fail_at_the_third(image: np.ndarray, query: str, variant: str) -> str:
        asked.append(query)
        if len(asked) == 3:
            raise WiseEdgeError("the engine failed")
        return fake_session.completion()

    fake_session.install(monkeypatch, fail_at_the_third)
    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"

    arguments = ["track", str(video), RING, "--ground-every", "0.1", "--out", str(out), "--jsonl", str(jsonl)]
    assert main(arguments) == 1

    assert capsys.readouterr().err.splitlines()[-1] == "error: the engine failed"
    assert len(lines_of(jsonl.read_text())) == len(play(out).images) == 6


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_a_reader_that_is_gone_or_a_full_disk_costs_no_other_output(
    video: Path,
    tmp_path: Path,
    opened: fake_session.Opened,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """As `| head -2`, or a program that crashes; or `> FILE` on another disk than the video's."""
    say, lines = options.say, count(1)

    def refuse(line: str, *, err: bool = False) -> None:
        if not err and next(lines) == 3:
            raise OSError(number, os.strerror(number))
        say(line, err=err)

    monkeypatch.setattr(options, "say", refuse)

    assert main(["track", str(video), RING, "--json", "--out", str(tmp_path / "out.mp4")]) == 1

    assert len(play(tmp_path / "out.mp4").images) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(
    tmp_path: Path,
    opened: fake_session.Opened,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """The signal comes while the fifth frame is drawn."""
    file, out, jsonl = encode(tmp_path / "in.mp4", MOVIE.images), tmp_path / "out.mp4", tmp_path / "out.jsonl"
    raise_at_frame(5, number, monkeypatch)
    before = signal.getsignal(number)

    assert main(["track", str(file), RING, "--out", str(out), "--jsonl", str(jsonl)]) == 128 + number

    assert signal.getsignal(number) is before
    said = capsys.readouterr()
    assert said.out.startswith("5 frames of about 36, ")
    assert said.err.splitlines()[1:] == ["note: stopped before the end; what was written so far is complete"]
    assert len(lines_of(jsonl.read_text())) == len(play(out).images) == 5


def test_lines_go_to_stdout_and_the_bar_to_the_terminal(video: Path, tmp_path: Path) -> None:
    """Rich, left to itself, takes what is printed while a bar is drawn to where the bar is."""
    ours, theirs = pty.openpty()
    lines = tmp_path / "lines.jsonl"
    command = [sys.executable, "-m", "wise_edge", "track", str(video), MOVIE.query, "--json"]
    with lines.open("wb") as stdout:
        process = subprocess.Popen(command, stdout=stdout, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
    os.close(ours)

    assert process.wait(30) == 0
    assert [line["frame"] for line in lines_of(lines.read_text())] == list(range(8))
    assert b"tracking" in shown and b'"frame"' not in shown


def test_a_camera_is_followed_until_a_signal_ends_it(
    tmp_path: Path,
    opened: fake_session.Opened,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Over HTTP; a camera's normal end is Ctrl-C, so that the exit code is 0."""
    over = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin_mjpeg(request)
        for image in cycle(MOVIE.images):
            if over.wait(0.02):
                return
            send_jpeg(request, image)

    out, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    raise_at_frame(5, signal.SIGINT, monkeypatch)
    with serving(answer) as address:
        assert main(["track", address, RING, "--out", str(out), "--jsonl", str(jsonl)]) == 0
        over.set()

    said = capsys.readouterr()
    lines = lines_of(jsonl.read_text())
    dropped = sum(line["dropped"] for line in lines)
    assert said.out.startswith(f"5 frames, 5 with an object, {dropped} dropped; ")
    assert len(lines) == 5 and lines[0]["time_s"] < 30
    played = play(out)
    np.testing.assert_allclose(played.times_s, [line["time_s"] for line in lines], atol=1e-3)


def test_the_bar_says_how_long_it_will_still_take() -> None:
    now_s = 0.0
    bars = Progress(_TimeLeft(), get_time=lambda: now_s, console=Console(file=io.StringIO()))
    task = bars.add_task("tracking", total=1.0)
    said = [str(_TimeLeft().render(bars.tasks[0]))]
    for share in (0.1, 0.2):
        now_s += 10
        bars.update(task, completed=share)
        said.append(str(_TimeLeft().render(bars.tasks[0])))
    bars.update(task, completed=1.0)

    assert [*said, str(_TimeLeft().render(bars.tasks[0]))] == ["", "", "0:01:20 left", ""]
