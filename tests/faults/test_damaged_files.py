"""Whatever a file holds, it is read or refused in one line; `benchmarks/faults/mutants.py` does the same at length."""

from __future__ import annotations

import copy
import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_documents import make_document
from squares import parse_answer
from wise_edge.bundle import store
from wise_edge.bundle.engines import ArraySpec, BuildPlan, GraphPlan, ShapeRange, Sidecar
from wise_edge.cli.main import main
from wise_edge.datasets.plain_pickle import load_plain_pickle
from wise_edge.datasets.reasonseg import ReasonSegFolder
from wise_edge.errors import WiseEdgeError
from wise_edge.evaluation.compare import compare_runs
from wise_edge.evaluation.record_log import read_log, write_log
from wise_edge.evaluation.records import MaskRecord, Settings
from wise_edge.images import load_image
from wise_edge.policy.prompts import EMBEDDED, read_prompts
from wise_edge.profiling.comparison import compare_profiles, find_differences
from wise_edge.profiling.document import read_document
from wise_edge.profiling.wall_meter import read_wall_meter
from wise_edge.runtimes.deadline import LatencyHistory
from wise_edge.runtimes.deadline_options import list_options

Read = Callable[[Path], object]
EXAMPLES = settings(max_examples=40, derandomize=True, deadline=None)
SETTINGS = Settings("scenes", "test", 1, "lisa", "truth", None, "0" * 64, {"mask": "onnx"})
RECORD = MaskRecord(0, "test-0", "color", "the ring", 8, 10, 0.8, None, 0.9, {"total": 2.0}, None)
SHAPES = ShapeRange((1, 1, 64), (1, 16, 64), (1, 320, 64))
ARRAY = ArraySpec("inputs_embeds", "float32", (1, -1, 64))
SIDECAR = Sidecar(
    "decoder", "0" * 64, "tensorrt", "10.3", ("8.7",), ("float16",), (ARRAY,), (ARRAY,), {"x": SHAPES}, 9, "0" * 64
)  # fmt: skip
MANIFEST = json.loads((store.resolve_bundle(None) / "bundle.json").read_text())
REPORT = {"dataset": "a", "split": "b", "model": "m", "variant": None, "metric_mode": "lisa"}
REPORT |= {"samples": 3, "giou": 0.5, "ciou": 0.5, "rationale_tokens_mean": 9.5}


def reads_or_refuses(read: Read, path: Path) -> str | None:
    """Return the line of the refusal; None if it was read. Any other exception fails the test."""
    try:
        read(path)
    except WiseEdgeError as error:
        line = str(error)
        assert line.strip() and len(line.splitlines()) == 1 and len(line) <= error.longest
        assert line.isprintable() and line.encode()
        return line
    return None


def _read_bundle(file: Path) -> None:
    manifest = store.read_bundle(file.parent).manifest
    json.dumps(manifest.to_dict(), allow_nan=False)
    _ = manifest.policy.max_image_tokens, manifest.policy.context_tokens


def _load(file: Path) -> None:
    store.load(file.parent)


def _compare_records(file: Path) -> None:
    compare_runs(read_log(file), (SETTINGS, [RECORD]))


def _compare_profiles(file: Path) -> None:
    document = read_document(file)
    compare_profiles(document, document)
    find_differences(document, document)


def _choose(file: Path) -> None:
    LatencyHistory.read(file).choose(200.0, list_options(["wise-s", "answer"], None, None))


DOCUMENTS: dict[str, tuple[Any, str, Read]] = {
    "manifest": (MANIFEST, "bundle.json", _read_bundle),
    "sidecar": (json.loads(SIDECAR.to_json()), "a.json", Sidecar.read),
    "plan": (json.loads(BuildPlan(("orin",), (GraphPlan("a", {"x": SHAPES}),)).to_json()), "a.json", BuildPlan.read),
    "prompts": (EMBEDDED.to_dict(), "prompts.json", lambda file: read_prompts(file.parent)),
    "profile": (make_document(), "a.json", _compare_profiles),
    "latencies": (
        {
            "completions": {"answer_steps": [20], "wise-s": [12]},
            "all": {"frame_ms": [30.0], "image_ms": [20.0], "image_tokens": [16], "query_ms": [5.0], "step_ms": [2.0]},
            "7056": {"frame_ms": [30.0], "image_ms": [20.0], "image_tokens": [9], "query_ms": [5.0], "step_ms": [2.0]},
        },
        "a.json",
        _choose,
    ),
}
"""Reader to a valid document, the name of its file, and what reads it."""

numbers = st.one_of(
    st.integers(-(10**70), 10**70),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, 5e-324]),
)
texts = st.one_of(st.text(max_size=9), st.sampled_from(["", "\0", "\ud800", "a\nb", "../x", "/etc", "x" * 9000]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def places(node: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the keys that lead to each value of a document."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, value in pairs for found in [(*above, key), *places(value, (*above, key))]]


def damaged(document: Any, place: tuple[Any, ...], value: Any, how: str) -> str:
    """Return a document's text with one value replaced, removed or under another key."""
    changed = copy.deepcopy(document)
    node = changed
    for key in place[:-1]:
        node = node[key]
    if how == "replace":
        node[place[-1]] = value
    else:
        old = node.pop(place[-1])
        if how == "rename" and isinstance(node, dict):
            node[str(value)[:50]] = old
    return json.dumps(changed)


@pytest.mark.parametrize("name", DOCUMENTS)
@given(data=st.data())
@EXAMPLES
def test_a_document_with_one_value_changed(name: str, data: st.DataObject, tmp_path_factory: Any) -> None:
    document, file, read = DOCUMENTS[name]
    place = data.draw(st.sampled_from(places(document)))
    text = damaged(document, place, data.draw(values), data.draw(st.sampled_from(["replace"] * 3 + ["drop", "rename"])))
    path = tmp_path_factory.mktemp("damaged") / file
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    reads_or_refuses(read, path)


@given(place=st.sampled_from(places(RECORD.__dict__)), value=values)
@EXAMPLES
def test_records_with_one_value_changed(place: tuple[Any, ...], value: Any, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.jsonl"
    write_log(path, SETTINGS, [RECORD])
    head, line = path.read_text().splitlines()
    path.write_text(f"{head}\n{damaged(json.loads(line), place, value, 'replace')}\n")
    reads_or_refuses(_compare_records, path)


@given(place=st.sampled_from(places(REPORT)), value=values)
@EXAMPLES
def test_a_report_with_one_value_changed(place: tuple[Any, ...], value: Any, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.json"
    path.write_text(damaged(REPORT, place, value, "replace"))
    assert main(["evaluate", "table", str(path)]) in (0, 2)


@given(text=st.text(max_size=60), place=st.integers(0, 90))
@EXAMPLES
def test_an_answer_with_any_text_in_it(text: str, place: int) -> None:
    whole = '<think>left</think><answer>{"bbox": [10, 20, 60, 80], "points_1": [30, 40], "points_2": [35, 50]}</answer>'
    found = parse_answer(whole[:place] + text + whole[place:], 840).answer
    assert found is None or all(0 <= value <= 840 for item in found.objects for value in item.box)


@given(line=st.text(max_size=40), column=st.integers(0, 2))
@EXAMPLES
def test_a_meter_with_any_text_in_a_field(line: str, column: int, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("damaged") / "meter.csv"
    rows = ["Time,Power (W),note", *(f"{1767225600 + second},{10 + second},x" for second in range(5))]
    cells = rows[2].split(",")
    cells[column] = line
    rows[2] = ",".join(cells)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8", errors="surrogatepass")
    reads_or_refuses(read_wall_meter, path)


def _png_claiming(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _with(document: Any, text: str, *place: Any) -> bytes:
    return damaged(document, place, "a place", "replace").replace('"a place"', text).encode()


_SIDECAR, _PROFILE = (DOCUMENTS[name][0] for name in ("sidecar", "profile"))
_READING = ("runs", 0, "readings", 0, "latency_ms")
CORPUS: dict[str, tuple[str, bytes, Read]] = {
    "a manifest nested too deeply": ("bundle.json", b"[" * 100_000 + b"]" * 100_000, _read_bundle),
    "a size of 400 digits": ("bundle.json", _with(MANIFEST, "9" * 400, "artifacts", 0, "bytes"), _read_bundle),
    "a bound of 300 digits": ("bundle.json", _with(MANIFEST, "9" * 300, "verification", 0, "value"), _read_bundle),
    "a figure that is NaN": ("bundle.json", _with(MANIFEST, "NaN", "verification", 0, "value"), _read_bundle),
    "patches of no size": ("bundle.json", _with(MANIFEST, "0", "policy", "patch_size"), _read_bundle),
    "an absurd input": ("bundle.json", _with(MANIFEST, "2147483647", "policy", "input_size"), _read_bundle),
    "a path of 9000 characters": ("bundle.json", _with(MANIFEST, f'"{"x" * 9000}"', "artifacts", 0, "path"), _load),
    "a path with a line break": ("bundle.json", _with(MANIFEST, '"a\\nb"', "artifacts", 0, "path"), _load),
    "a path with NUL": ("bundle.json", _with(MANIFEST, '"a\\u0000b"', "artifacts", 0, "path"), _load),
    "half a character": ("bundle.json", _with(MANIFEST, '"\\ud800"', "name"), _read_bundle),
    "a sidecar's shape of text": ("a.json", _with(_SIDECAR, '["a"]', "inputs", 0, "shape"), Sidecar.read),
    "a profile without times": ("a.json", _with(_PROFILE, "{}", "runs", 0, "latency_ms"), _compare_profiles),
    "a profile with text for a time": ("a.json", _with(_PROFILE, '"9"', *_READING, "decode"), _compare_profiles),
    "a profile of lists": ("a.json", _with(_PROFILE, "[1, [2]]", *_READING), _compare_profiles),
    "a log nested too deeply": ("a.jsonl", b"[" * 100_000 + b"\n", read_log),
    "a log that is no text": ("a.jsonl", b"\xff\xfe\0\0\n", read_log),
    "9 bytes that ask for 4 GB": ("a.p", b"\x80\x02Nr\xff\xff\xff\xff.", load_plain_pickle),
    "a pickle that doubles a tuple": ("a.p", b"\x80\x02)" + b"2\x86" * 60 + b".", load_plain_pickle),
    "a pickle that runs code": ("a.p", pickle.dumps(print), load_plain_pickle),
    "a text of 4 GB that is not there": ("a.p", b"\x80\x02X\xff\xff\xff\xff.", load_plain_pickle),
    "an image of 25 million pixels in a row": ("a.png", _png_claiming(25_000_000, 1), load_image),
    "an image that ends early": ("a.png", _png_claiming(4000, 4000), load_image),
    "a meter of one field": ("meter.csv", b"time\n1\n", read_wall_meter),
    "a meter with NUL": ("meter.csv", b"time,power\n1767225600,\0\n", read_wall_meter),
}  # fmt: skip
"""Inputs that once ended in something else: name of the file, content, and what reads it."""


@pytest.mark.parametrize("name", CORPUS)
def test_what_once_failed_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    file, content, read = CORPUS[name]
    (tmp_path / file).write_bytes(content)
    assert reads_or_refuses(read, tmp_path / file) is not None


@pytest.mark.parametrize("coordinate", ["1e400", "9" * 400, "NaN", "[]", '"1"', "null"])
def test_a_label_outside_of_everything_leaves_its_image_out(coordinate: str, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
    text = '{"text": ["the mug"], "shapes": [{"label": "target", "points": [[1, 1], [9, 1], [X, 9]]}]}'
    (tmp_path / "a.json").write_text(text.replace("X", "5"))
    (tmp_path / "b.json").write_text(text.replace("X", coordinate))
    (problem,) = ReasonSegFolder(tmp_path, "val").problems
    assert problem.startswith("b: ") and len(problem.splitlines()) == 1
