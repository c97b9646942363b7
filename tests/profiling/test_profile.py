"""A profile reports latency by phase, accuracy, and energy, or the reason why there is no energy."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import jsonschema
import numpy as np
import pytest

import fake_session
from fake_session import FakeImage, FakeMask, FakePolicy
from profile_documents import make_run
from virtual_time import TimedMask, TimedPolicy, VirtualTime
from wise_edge.cli.main import main
from wise_edge.datasets.base import Example, ExampleObject
from wise_edge.errors import DeviceError, UsageError
from wise_edge.files.cache import cache_folder
from wise_edge.images import save_png
from wise_edge.power import find as sources
from wise_edge.power.sources import PowerSource
from wise_edge.profiling import conditions
from wise_edge.profiling.document import to_csv
from wise_edge.profiling.measure import ENERGY_EXAMPLES, profile_session
from wise_edge.profiling.meter import Meter
from wise_edge.profiling.page import render_page
from wise_edge.profiling.readings import PARTS
from wise_edge.profiling.schema import SCHEMA
from wise_edge.profiling.windows import Window
from wise_edge.runtimes.base import PolicyOutput, Request
from wise_edge.runtimes.results import BackendChoice
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.spans import PHASES, Span, covered_s

MASK = np.zeros((20, 30), np.bool_)
MASK[5:15, 8:23] = True
TARGET = ExampleObject((8, 5, 23, 15), ((8, 8), (9, 9)), MASK)
EXAMPLES = [
    Example(f"{n}", "the ring", np.full((20, 30, 3), n, np.uint8), (TARGET,), MASK, None, None) for n in range(3)
]
CONSTANT = PowerSource("a load", "power", ("in",), (0,), None, None, lambda: (10.0,), (None,))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of its own, so that tests that run at once do not lock each other out."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    """The time that sessions and profiles live in."""
    world = VirtualTime()
    world.install(monkeypatch)
    return world


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, world: VirtualTime) -> fake_session.Opened:
    """What commands open: fakes that take the time that they report."""
    return fake_session.install(monkeypatch, policy=TimedPolicy(world), mask=TimedMask(world))


def test_phases_overlap_and_the_rest_make_the_total(world: VirtualTime) -> None:
    mask_encoded = Event()

    class WaitingPolicy(TimedPolicy):
        def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
            assert mask_encoded.wait(30), "the segmenter did not encode the image meanwhile"
            mask_encoded.clear()
            return super().generate(encoded, request)

    class InstantMask(TimedMask):  # its 31 ms pass while the policy writes
        def encode(self, image: np.ndarray) -> FakeImage:
            mask_encoded.set()
            return FakeMask.encode(self, image)

    session = Session(WaitingPolicy(world), InstantMask(world), {}, overlap_mask_encoding=True)
    (measured,) = profile_session(session, EXAMPLES, ["wise-s"], 2, Meter([], "no sensor"))

    assert (measured.variant, measured.policy, measured.mask, measured.warm_up) == ("wise-s", "fake", "fake", 3)
    assert [reading.example for reading in measured.readings] == ["0", "1", "2"] * 2
    for reading in measured.readings:
        spent, decode_ms = reading.latency_ms, 3.0 * reading.decode_steps
        phases_ms = {"preprocess": 1 + 1, "vision_encode": 20, "prefill": 5 + 7, "decode": decode_ms}
        phases_ms |= {"mask_encode": 30, "mask_decode": 4}
        assert {name: spent[name] for name in PHASES} == pytest.approx(phases_ms)
        assert (spent["overlap"], spent["other"]) == pytest.approx((31, 0))
        assert (spent["first_token"], spent["total"]) == pytest.approx((26 + 7, 26 + 7 + decode_ms + 4))
    assert set(measured.windows.values()) == {None}
    assert measured.step_ms == pytest.approx(3.0)
    assert {span.phase for span in measured.median.spans} == set(PHASES)


def test_time_that_is_covered_counts_once() -> None:
    spans = [Span("decode", 0, 2000), Span("mask_encode", 1, 500), Span("prefill", 1.5, 1500), Span("decode", 4, 1000)]
    assert covered_s(spans) == 4.0
    assert covered_s([]) == 0.0


def test_accuracy_is_reported_if_the_ground_truth_is_known() -> None:
    session = Session(FakePolicy(), FakeMask(), {})
    accuracy = next(profile_session(session, EXAMPLES, ["wise-s"], 1, Meter())).accuracy
    assert accuracy is not None
    assert (accuracy.ciou, accuracy.giou) == pytest.approx((1.0, 1.0))
    assert accuracy.ciou_interval == pytest.approx((1.0, 1.0))

    unlabeled = [replace(EXAMPLES[0], mask=None), *EXAMPLES[1:]]
    assert next(profile_session(session, unlabeled, ["wise-s"], 1, Meter())).accuracy is None


def test_repeats_make_no_interval_narrower() -> None:
    half = np.zeros_like(MASK)
    half[5:10, 8:23] = True
    examples = [*EXAMPLES, replace(EXAMPLES[0], id="half", mask=half)]
    session = Session(FakePolicy(), FakeMask(), {})
    once, often = (next(profile_session(session, examples, ["wise-s"], times, Meter())).accuracy for times in (1, 20))
    assert once is not None
    assert once == often
    assert once.ciou_interval[1] - once.ciou_interval[0] > 0.1


def test_an_empty_mask_where_nothing_is_to_be_found_is_right_and_weighs_nothing() -> None:
    def write(image: np.ndarray, query: str, variant: str) -> str:
        return "nothing is there" if query == "the ghost" else fake_session.write_canned(image, query, variant)

    empty = replace(EXAMPLES[0], query="the ghost", mask=np.zeros_like(MASK))
    wrong = replace(EXAMPLES[1], query="the ghost")
    session = Session(FakePolicy(write), FakeMask(), {})
    accuracy = next(profile_session(session, [empty, wrong, EXAMPLES[2]], ["wise-s"], 1, Meter())).accuracy
    assert accuracy is not None
    assert (accuracy.giou, accuracy.ciou) == pytest.approx((2 / 3, 1 / 2))


class Rounds(Meter):
    """Does two rounds of everything, and notes what they asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.windows: list[list[int]] = []

    def record(self, work: Callable[[], object], turns: int = 1) -> Window | None:
        self.asked = []
        for _ in range(2 * turns):
            work()
        self.windows.append(self.asked)
        return None


@pytest.mark.parametrize("count", [3, 20])
def test_energy_is_of_whole_rounds_of_the_same_images(count: int) -> None:
    rounds = Rounds()

    class NotingPolicy(FakePolicy):
        def encode(self, image: np.ndarray, pixels: int | None = None) -> FakeImage:
            rounds.asked.append(int(image[0, 0, 0]))
            return super().encode(image, pixels)

    examples = [replace(EXAMPLES[0], id=f"{n}", image=np.full((20, 30, 3), n, np.uint8)) for n in range(count)]
    assert len(list(profile_session(Session(NotingPolicy(), FakeMask(), {}), examples, ["wise-s"], 1, rounds))) == 1
    query, policy_frame, policy_write, mask_encode, mask_decode = rounds.windows
    assert query == policy_frame == [*range(min(count, ENERGY_EXAMPLES))] * 2
    assert policy_write == mask_encode == mask_decode == []  # nothing of them encodes for the policy


def choices(policy: str, mask: str = "onnx") -> dict[str, BackendChoice]:
    return {part: BackendChoice(name, "") for part, name in (("policy", policy), ("mask", mask))}


def test_a_session_says_whether_it_runs_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_gpu(*names: str) -> bool:
        return Session(FakePolicy(), FakeMask(), choices(*names)).on_gpu

    assert not any(on_gpu(policy) for policy in ("onnx", "llama"))
    assert all(on_gpu(policy) for policy in ("tensorrt", "edgellm", "onnx-cuda", "llama-gpu"))
    assert on_gpu("llama", "onnx-cuda")
    torch = pytest.importorskip("torch")
    for has_gpu in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert on_gpu("torch") == on_gpu("llama", "torch") == has_gpu
    assert not Session(FakePolicy(), FakeMask(), {}).on_gpu


def test_memory_of_the_host_is_reported() -> None:
    (measured,) = profile_session(Session(FakePolicy(), FakeMask(), {}), EXAMPLES, ["wise-s"], 1, Meter())
    assert 10e6 < (measured.memory.host_peak_bytes or 0) < 100e9
    assert measured.memory.gpu_bytes is None


def test_nothing_to_ask_is_rejected() -> None:
    with pytest.raises(UsageError, match="at least one image"):
        next(profile_session(Session(FakePolicy(), FakeMask(), {}), [], ["wise-s"], 1, Meter()))


def test_variants_take_turns() -> None:
    asked: list[tuple[int, str]] = []

    def write(image: np.ndarray, query: str, variant: str) -> str:
        asked.append((int(image[0, 0, 0]), variant))
        return fake_session.write_canned(image, query, variant)

    session = Session(FakePolicy(write), FakeMask(), {})
    assert len(list(profile_session(session, EXAMPLES, ["verbose", "answer"], 1, Meter()))) == 2
    assert asked[6:12] == [(place, variant) for place in range(3) for variant in ("verbose", "answer")]


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the power sources of this machine."""

    def set_sources(*found: PowerSource, reason: str = "no sensor") -> None:
        monkeypatch.setattr(sources, "find_sources", lambda on_gpu: (list(found), reason))

    set_sources()
    return set_sources


def profile(*options: str) -> int:
    return main(["profile", "--scenes", "2", "--window", "0.15", *options])


def test_the_document_keeps_its_schema_with_and_without_power(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str], power: Callable[..., None]
) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)

    assert profile("--variants", "wise-s,answer", "--backends", "onnx,llama", "--pixels", "7056", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schema).validate(document)
    assert [(call["policy_backend"], call["pixels"]) for call in opened.calls] == [("onnx", 7056), ("llama", 7056)]
    assert document["data"]["pixels"] == 7056
    assert "at most 7056 pixels" in render_page(document)
    assert [run["variant"] for run in document["runs"]] == ["wise-s", "answer"] * 2
    assert document["power"] == {"reason": "no sensor", "sources": []}
    assert document["stopped"] is None
    assert set(document["runs"][0]["energy"]) == set(PARTS)

    power(CONSTANT, replace(CONSTANT, name="another"))
    assert profile("--variants", "wise-s", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schema).validate(document)
    run = document["runs"][0]
    joules = 10.0 * run["latency_ms"]["total"]["mean"] / 1e3
    assert [each["energy_j"] for each in run["energy"]["query"]] == pytest.approx([joules, joules])
    assert run["step_j"] == pytest.approx(run["energy"]["policy_write"][0]["energy_j"] / run["decode_steps"])
    assert [trace["source"] for trace in run["timeline"]["power"]] == ["a load", "another"]
    assert document["power"]["sources"][0]["idle_before_w"] == pytest.approx(10.0)


def test_energy_is_of_what_the_first_backend_runs_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: VirtualTime
) -> None:
    gpu = replace(CONSTANT, name="GPU", scope="gpu")
    processor = replace(CONSTANT, name="processor", scope="processor")
    monkeypatch.setattr(sources, "find_sources", lambda on_gpu: ([gpu] if on_gpu else [processor], ""))

    def open_one(bundle: object, policy_backend: str, **options: object) -> Session:
        return Session(TimedPolicy(world, name=policy_backend), TimedMask(world), choices(policy_backend))

    fake_session.install(monkeypatch)
    monkeypatch.setattr(Session, "from_bundle", open_one)
    for backends, source, words in (
        ("llama-gpu,llama", "GPU", "this runs on the processor and the source measures only the GPU"),
        ("llama,llama-gpu", "processor", "this runs on a GPU and the source measures only the processor"),
    ):
        assert profile("--variants", "wise-s", "--backends", backends, "--json") == 0
        document = json.loads(capsys.readouterr().out)
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
        assert [found["name"] for found in document["power"]["sources"]] == [source]
        first, second = document["runs"]
        assert first["energy"]["query"][0]["energy_j"] is not None
        assert first["timeline"]["power"][0]["source"] == source
        for part in PARTS:
            (energy,) = second["energy"][part]
            assert (energy["energy_j"], energy["error_share"], energy["times"]) == (None, None, 0)
            assert words in energy["reason"]
        assert second["timeline"]["power"] == []


def test_the_terminal_has_phases_runs_and_power(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str], power: Callable[..., None]
) -> None:
    power(CONSTANT)
    assert profile("--variants", "wise-s,answer", "--details") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.index("idle 10.00 W before, 10.00 W after") < told.index("phase")
    assert "wise-s (policy fake, masks fake): 2 queries after 3 warm-up queries" in told
    assert "a query: " in told
    assert "power from a load: " in told


def test_the_terminal_has_the_runs_alone_unless_details_are_asked_for(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str], power: Callable[..., None]
) -> None:
    power(CONSTANT)
    assert profile("--variants", "wise-s,answer") == 0
    told = capsys.readouterr().out
    assert re.search(r"^wise-s +\d", told, re.MULTILINE)
    assert "idle 10.00 W before" in " ".join(told.split())
    assert "warm-up" not in told


def test_reports_are_written_by_their_names(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str], tmp_path: Path, power: Callable[..., None]
) -> None:
    power(CONSTANT)
    html, data, table = (tmp_path / f"report.{kind}" for kind in ("html", "json", "csv"))
    files = [part for file in (html, data, table) for part in ("--out", str(file))]

    assert profile("--variants", "wise-s,verbose", *files) == 0
    document = json.loads(data.read_text())
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == 4
    first = document["runs"][0]["readings"][0]
    assert float(rows[0]["total_ms"]) == pytest.approx(first["latency_ms"]["total"], abs=1e-4)
    assert (rows[0]["variant"], rows[0]["example"]) == ("wise-s", first["example"])
    page = html.read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    for words in ("What a mask costs", "wise-s", "verbose", "uncertainty"):
        assert words in page

    capsys.readouterr()
    assert profile(*files) == 2
    assert "exists; use --force" in capsys.readouterr().err
    assert profile("--out", str(tmp_path / "report.pdf")) == 2
    assert "unknown report type; use .html, .json or .csv" in capsys.readouterr().err


def test_a_spreadsheet_runs_no_name_as_a_formula() -> None:
    runs = [make_run("wise-s", 40.0, None, power=False) for _ in range(6)]
    names = ['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", "\t=1", "＝1"]
    for run, name in zip(runs, names, strict=True):
        run["readings"] = [run["readings"][0] | {"example": name, "latency_ms": {"total": -0.5}}]
    rows = list(csv.DictReader(io.StringIO(to_csv({"runs": runs}), newline="")))
    assert [row["example"] for row in rows] == [f"'{name}" for name in names]
    assert {(row["variant"], row["total_ms"]) for row in rows} == {("wise-s", "-0.5000")}


def test_what_an_interrupt_ends_is_kept_and_marked(
    opened: fake_session.Opened, tmp_path: Path, power: Callable[..., None]
) -> None:
    power(CONSTANT)
    calls = stop = 0

    def write(image: np.ndarray, query: str, variant: str) -> str:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        return fake_session.write_canned(image, query, variant)

    opened.policy.write = write
    for number, at in enumerate((9, 12), 1):  # in the second turn of the variants, and while energy is measured
        calls, stop = 0, at
        file, page = tmp_path / f"{number}.json", tmp_path / f"{number}.html"
        assert profile("--variants", "wise-s,answer", "--out", str(file), "--out", str(page)) == 130
        document = json.loads(file.read_text())
        assert [(run["variant"], run["queries"]) for run in document["runs"]] == [
            ("wise-s", number),
            ("answer", number),
        ]
        assert document["stopped"] == "interrupted"
        assert "incomplete: interrupted" in page.read_text()

    calls, stop = 0, 3  # while warming up: nothing was measured
    assert profile("--variants", "answer", "--out", str(tmp_path / "none.json")) == 130
    assert not (tmp_path / "none.json").exists()


def test_a_failure_after_the_first_backend_keeps_its_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, power: Callable[..., None]
) -> None:
    fake_session.install(monkeypatch)
    opened = Session.from_bundle

    def open_one(*arguments: object, **options: object) -> Session:
        if options["policy_backend"] == "tensorrt":
            raise DeviceError("no GPU is found")
        return opened(*arguments, **options)

    monkeypatch.setattr(Session, "from_bundle", open_one)
    file = tmp_path / "report.json"
    assert profile("--variants", "wise-s", "--backends", "onnx,tensorrt", "--out", str(file)) == 4
    assert "no GPU is found" in capsys.readouterr().err
    document = json.loads(file.read_text())
    assert (len(document["runs"]), document["stopped"]) == (1, "no GPU is found")
    assert profile("--variants", "wise-s,loud") == 2
    assert "unknown variant 'loud'" in capsys.readouterr().err


def test_a_second_profile_at_the_same_time_is_rejected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], power: Callable[..., None]
) -> None:
    fake_session.install(monkeypatch)
    assert profile("--variants", "wise-s") == 0  # makes the folder, and lets go
    with (cache_folder() / "profile.lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        capsys.readouterr()
        assert profile("--variants", "wise-s") == 4
    assert f"another profile is running (process {os.getpid()})" in capsys.readouterr().err


def test_own_images_are_asked_what_the_files_next_to_them_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, power: Callable[..., None]
) -> None:
    asked: list[str] = []

    def write(image: np.ndarray, query: str, variant: str) -> str:
        asked.append(query)
        return fake_session.write_canned(image, query, variant)

    fake_session.install(monkeypatch, write)
    for name in ("b", "a"):
        save_png(np.full((20, 30, 3), 9, np.uint8), tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"the {name}\n")
    command = ["profile", "--images", str(tmp_path), "--variants", "wise-s", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert [reading["example"] for reading in document["runs"][0]["readings"]] == ["a.png", "b.png"]
    assert set(asked) == {"the a", "the b"}
    assert document["runs"][0]["accuracy"] is None

    assert main([*command, "--query", "the mug"]) == 0
    assert asked[-1] == "the mug"
    (tmp_path / "a.txt").unlink()
    capsys.readouterr()
    for options, line in (
        ([], "a.png has no query; write one to"),
        (["--scenes", "2"], "choose one"),
    ):
        assert main([*command, *options]) == 2
        assert line in capsys.readouterr().err
    for options, line in (
        (["--images", str(tmp_path / "none")], "is not a folder"),
        (["--query", "the mug"], "--query needs --images"),
        (["--dataset", "refcoco"], "--dataset refcoco needs --data DIR"),
        (["--bundle", str(tmp_path)], "is not a bundle"),
    ):
        assert main(["profile", *options]) in (1, 2)
        assert line in capsys.readouterr().err


def test_of_many_images_the_first_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, power: Callable[..., None]
) -> None:
    fake_session.install(monkeypatch)
    for number in range(22):
        save_png(np.full((20, 30, 3), 9, np.uint8), tmp_path / f"{number:02}.png")
    (tmp_path / "21.png").write_bytes(b"never read")
    command = ["profile", "--images", str(tmp_path), "--query", "the mug", "--variants", "wise-s", "--json"]
    for options, count in (([], 20), (["--limit", "3"], 3)):
        assert main([*command, *options]) == 0
        out, err = capsys.readouterr()
        document = json.loads(out)
        assert [reading["example"] for reading in document["runs"][0]["readings"]] == [
            f"{number:02}.png" for number in range(count)
        ]
        assert document["data"]["queries"] == count
        assert f"using the first {count} of 22 images; raise --limit to use more" in err
    (tmp_path / "21.png").unlink()
    assert main([*command, "--limit", "21"]) == 0
    assert "using the first" not in capsys.readouterr().err


def test_a_change_of_conditions_flags_the_profile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], power: Callable[..., None]
) -> None:
    fake_session.install(monkeypatch)
    now = conditions.read_conditions()
    states = iter([now, replace(now, power_mode="15W")])
    monkeypatch.setattr(conditions, "read_conditions", lambda: next(states))
    assert profile("--variants", "wise-s") == 0
    assert "! the power mode changed from None to 15W" in capsys.readouterr().out
