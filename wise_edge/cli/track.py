"""`wise-edge track`: follow what a sentence names through a video or a camera's frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from wise_edge.cli import options
from wise_edge.cli.options import flag, option
from wise_edge.errors import DeviceError, UsageError, WiseEdgeError
from wise_edge.files.documents import to_json
from wise_edge.policy.answers.reading import MAX_OBJECTS

if TYPE_CHECKING:
    from wise_edge.runtimes.tracking import NewestFrame, Stamped, Tracked
    from wise_edge.video.cameras import Live
    from wise_edge.video.reading import Recording
    from wise_edge.video.sources import CameraSettings

_GROUND_EVERY_S = 1.0
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_Write = Callable[["Tracked"], object]


def track(
    source: Annotated[
        str, typer.Argument(metavar="VIDEO|CAMERA", help="Video file, camera (0, /dev/video0) or address (rtsp://...).")
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to follow, for example 'the red ring'.")],
    out: Annotated[
        Path | None,
        option(
            "FILE",
            "Write the video, with what was found drawn in and without sound, as .mp4, .mov or .mkv.",
            panel=options.OUTPUT,
        ),
    ] = None,
    jsonl: Annotated[
        Path | None, option("FILE", "Write one line of JSON per frame to a file.", panel=options.OUTPUT)
    ] = None,
    as_json: Annotated[
        bool, flag("--json", "Print one line of JSON per frame instead of text.", panel=options.OUTPUT)
    ] = False,
    force: options.Force = False,
    ground_every: Annotated[
        float | None,
        option("S", "Ask the policy every S seconds of a file; 1 by default.", panel=options.ANSWER, min=0),
    ] = None,
    memory: options.Memory = False,
    realtime: Annotated[
        bool,
        flag("--realtime", "Play a file like a camera: frames that come too fast are dropped.", panel=options.ASKED),
    ] = False,
    size: Annotated[
        str | None, option("WxH", "Ask a camera for pictures of this size, such as 1280x720.", panel=options.ASKED)
    ] = None,
    fps: Annotated[
        float | None, option("N", "Ask a camera for N frames a second.", panel=options.ASKED, min=0.01)
    ] = None,
    coding: Annotated[
        str | None,
        option("NAME", "Ask a camera for a format, such as mjpeg or yuyv422.", "--format", panel=options.ASKED),
    ] = None,
    variant: options.Variant = None,
    deadline_ms: Annotated[
        float | None,
        option("MS", "Aim to answer within MS milliseconds; see 'wise-edge run -h'.", panel=options.ANSWER),
    ] = None,
    max_objects: options.MaxObjects = MAX_OBJECTS,
    pixels: options.Pixels = None,
    bundle: options.Bundle = None,
    policy_backend: options.PolicyBackend = "auto",
    mask_backend: options.MaskBackend = "auto",
) -> None:
    """Follow what a sentence means through a video or a camera's frames.

    The policy finds it, and the segmenter follows it from frame to frame until the policy is asked again. Every frame
    of a file is processed. Of a camera the newest one is, and the others are counted as dropped.

    Ctrl-C and SIGTERM end it in order: what was written until then is kept, and the video plays.
    """
    from wise_edge.bundle.store import load, resolve_bundle
    from wise_edge.cli.output.progress import ProgressLine
    from wise_edge.native.stopping import stop_signals_call
    from wise_edge.policy.prompts import normalize_query
    from wise_edge.runtimes.base import Decoding
    from wise_edge.runtimes.deadline import check_choice
    from wise_edge.runtimes.mask.calls import check_memory
    from wise_edge.runtimes.session import Session
    from wise_edge.video.cameras import Live
    from wise_edge.video.opening import open_video
    from wise_edge.video.sources import find_source

    normalize_query(query)
    camera = _camera_settings(size, fps, coding)
    found = find_source(source, camera)
    loaded = load(resolve_bundle(bundle))
    check_choice(loaded.manifest.policy.prompts.variants, variant, deadline_ms, loaded.manifest.evaluated)
    loaded.manifest.policy.within(pixels)
    if memory:
        check_memory(loaded.manifest.sam)
    _check_outputs(out, jsonl, [Path(source), *loaded.files] if found.kind == "file" else loaded.files, force)
    totals = _Totals()
    with closing(open_video(found, camera)) as video:
        _check_pace(video, realtime, ground_every)
        session = Session.from_bundle(
            loaded,
            policy_backend=policy_backend,
            mask_backend=mask_backend,
            decoding=Decoding(max_objects=max_objects),
            pixels=pixels,
        )
        frames, every_s = _choose_frames(video, realtime, ground_every)
        results = session.track(
            frames,
            query,
            variant,
            deadline_ms=deadline_ms,
            ground_every_s=every_s,
            memory=memory,
            cancel=totals.ended,
        )
        with stop_signals_call(totals.ended.set) as received:
            with ExitStack() as stack:
                sinks = [totals.add, *_open_sinks(stack, video, totals, out, jsonl, as_json, force)]
                show = stack.enter_context(ProgressLine())
                for tracked in _first_of_each_frame(totals.until_failure(results)):
                    if not totals.frames:
                        show("tracking")  # before the first line of results
                        if loaded.is_embedded:
                            _note_other_kind(tracked, query)
                        if not tracked.objects:
                            _note_nothing(tracked, every_s)
                    for write in sinks:
                        write(tracked)
                    show("tracking", None if video.frames is None else min(1.0, totals.passed / video.frames))
                if not totals.frames:  # so that no empty file takes a place
                    raise totals.failure or _explain_no_frame(received.number, found.name)
            if received.number is None and totals.failure is None:
                for line in video.describe_losses():
                    options.note(line)
            typer.echo(totals.describe(video.frames), err=as_json)
    if totals.failure is not None:
        raise totals.failure
    if received.number is not None and not isinstance(video, Live):
        options.note("stopped before the end; what was written so far is complete")
        raise typer.Exit(128 + received.number)


@dataclass
class _Totals:
    """What became of the frames.

    Attributes:
        ended: set, it ends the tracking.
        frames: those with a result.
        found: those with an object.
        dropped: those without a result.
        failure: what ended the tracking before the video.
    """

    ended: Event = field(default_factory=Event)
    frames: int = 0
    found: int = 0
    dropped: int = 0
    failure: Exception | None = None
    _begun_s: float = field(default_factory=perf_counter)

    def until_failure(self, results: Iterable[Tracked]) -> Iterator[Tracked]:
        """Yield results until the tracking fails; what was written of them is then kept."""
        self._begun_s = perf_counter()
        try:
            yield from results
        except WiseEdgeError as error:
            self.failure = error

    def add(self, tracked: Tracked) -> None:
        self.frames += 1
        self.found += bool(tracked.objects)
        self.dropped += tracked.dropped

    def print(self, line: str) -> None:
        """Print a line at once; if that fails, the tracking ends, and other outputs are kept."""
        try:
            options.say(line)
        except OSError as error:
            self.failure = error
            self.ended.set()

    @property
    def passed(self) -> int:
        """Frames that are over, with a result or without."""
        return self.frames + self.dropped

    def describe(self, expected: int | None) -> str:
        of = "" if expected is None or self.passed >= expected else f" of about {expected}"
        rate = self.frames / max(perf_counter() - self._begun_s, 1e-9)
        frames = "1 frame" if self.frames == 1 else f"{self.frames} frames"
        return f"{frames}{of}, {self.found} with an object, {self.dropped} dropped; {rate:.1f} frames/s"


def _camera_settings(size: str | None, fps: float | None, coding: str | None) -> CameraSettings:
    from wise_edge.video.sources import CameraSettings

    sides = None if size is None else _SIZE.fullmatch(size)
    if size is not None and sides is None:
        raise UsageError(f"--size is {size}; pass width and height, such as 1280x720")
    return CameraSettings(None if sides is None else (int(sides[1]), int(sides[2])), fps, coding)


def _check_outputs(out: Path | None, jsonl: Path | None, inputs: list[Path], force: bool) -> None:
    """Reject outputs that cannot be written before anything is computed."""
    from wise_edge.files.targets import check_target
    from wise_edge.video.writing import check_video_name, find_encoder

    if out is not None:
        check_video_name(out)
        find_encoder()
    for path in (out, jsonl):
        if path is not None:
            check_target(path, force=force, keep=inputs)
    if out is not None and jsonl is not None and out.resolve() == jsonl.resolve():
        raise UsageError(f"--out and --jsonl both name {out}; choose two files")


def _check_pace(video: Recording | Live, realtime: bool, ground_every: float | None) -> None:
    from wise_edge.video.cameras import Live

    live = isinstance(video, Live)
    if realtime and live:
        raise UsageError("a camera is always in real time; remove --realtime")
    if ground_every is not None and (live or realtime):
        raise UsageError("--ground-every is for files; for a camera, the policy is asked as often as it can answer")


def _choose_frames(
    video: Recording | Live, realtime: bool, ground_every: float | None
) -> tuple[Iterable[Stamped] | NewestFrame, float | None]:
    """Return what the tracking reads, and how often the policy is asked; None at its own pace."""
    from wise_edge.runtimes.tracking import at_recorded_pace
    from wise_edge.video.cameras import Live

    if isinstance(video, Live):
        return video.begin(), None
    if realtime:
        return at_recorded_pace(video), None
    return video, _GROUND_EVERY_S if ground_every is None else ground_every


def _open_sinks(
    stack: ExitStack,
    video: Recording | Live,
    totals: _Totals,
    out: Path | None,
    jsonl: Path | None,
    as_json: bool,
    force: bool,
) -> Iterator[_Write]:
    """Yield what each result is handed to; files take their places when the stack ends without an error."""
    from wise_edge.files.writing import replacing

    if out is not None:
        yield _video_sink(stack, video, out, stack.enter_context(replacing(out, force=force)))
    if jsonl is not None:
        fresh = stack.enter_context(replacing(jsonl, force=force))
        file = stack.enter_context(fresh.open("w", encoding="utf-8"))
        yield lambda tracked: file.write(f"{_json_line(tracked)}\n")
    if as_json:
        yield lambda tracked: totals.print(_json_line(tracked))
    elif out is None and jsonl is None:
        yield lambda tracked: totals.print(_text_line(tracked))


def _video_sink(stack: ExitStack, video: Recording | Live, out: Path, fresh: Path) -> _Write:
    from wise_edge.outputs.pictures import draw_result
    from wise_edge.video.reading import number_of
    from wise_edge.video.writing import PREFERRED, VideoWriter, check_video_name

    if video.has_audio:
        options.note(f"{out} is written without sound")
    writer = VideoWriter(fresh, check_video_name(out), video.rate, video.tick_s, video.aspect)
    if writer.codec != PREFERRED:
        options.note(f"this build of FFmpeg cannot write {PREFERRED}; {out} is encoded in {writer.codec}")
    stack.enter_context(writer)
    return lambda tracked: writer.write(draw_result(tracked, tracked.frame.image), number_of(tracked.frame).ticks)


def _note_other_kind(tracked: Tracked, query: str) -> None:
    """Say it if the embedded models see or are asked what they were not made for."""
    from wise_edge.scenes.recognition import explain_other_kind

    if line := explain_other_kind(tracked.frame.image, query):
        options.note(line)


def _note_nothing(tracked: Tracked, every_s: float | None) -> None:
    """Say what comes of a start at which there is nothing to follow."""
    from wise_edge.cli.output.result import printable
    from wise_edge.runtimes.results import NOTHING

    why = NOTHING if tracked.reason is None else f"the policy gave no answer ({printable(tracked.reason)})"
    often = "as often as it can answer" if every_s is None else f"every {every_s:g} s" if every_s else "on every frame"
    options.note(f"{why} at the start; nothing is followed until the policy, asked {often}, finds something")


def _json_line(tracked: Tracked) -> str:
    from wise_edge.video.records import frame_record

    return to_json(frame_record(tracked))


def _text_line(tracked: Tracked) -> str:
    from wise_edge.cli.output.result import printable
    from wise_edge.runtimes.results import NOTHING

    places = [(item, "{}, {} to {}, {}".format(*item.box)) for item in tracked.objects]
    lost = [(item, f"hidden for {item.hidden_s:.2f} s") for item in tracked.hidden or ()]
    found = "; ".join(f"{item.number}{f' {item.label}' if item.label else ''} {what}" for item, what in places + lost)
    found = found or (NOTHING if tracked.reason is None else f"no answer: {tracked.reason}")
    age = f"; {tracked.age_s:.2f} s after the policy saw it" if tracked.stale else ""
    dropped = f"; {tracked.dropped} dropped before" if tracked.dropped else ""
    return printable(f"{tracked.stamp_s:8.3f} s  {found}{age}{dropped}")


def _first_of_each_frame(results: Iterable[Tracked]) -> Iterator[Tracked]:
    """Leave out a second result for a frame, which the tracking gives when the frame's own grounding arrives."""
    last = None
    for tracked in results:
        if tracked.frame is not last:
            yield tracked
        last = tracked.frame


def _explain_no_frame(signal: int | None, name: str) -> Exception:
    """Return what to raise; a file that holds none was refused when it was opened."""
    return (
        DeviceError(f"{name} ended before its first frame was followed") if signal is None else typer.Exit(128 + signal)
    )
