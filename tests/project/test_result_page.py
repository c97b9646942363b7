"""The page on results names every field of the JSON, and no other."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import fake_session
from locations import ROOT
from wise_edge.outputs.saving import SUFFIXES
from wise_edge.robot.frames import Frame
from wise_edge.robot.results import NodeResult
from wise_edge.runtimes.objects import HiddenObject
from wise_edge.runtimes.results import RESULT_VERSION, BackendChoice, SegmentationResult
from wise_edge.runtimes.session import Session

PAGE = (ROOT / "docs/result.md").read_text()
PICTURE = np.full((60, 80, 3), 200, np.uint8)


def rows(heading: str) -> list[str]:
    """Return the first cells of the table below a heading."""
    section = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert section, heading
    return re.findall(r"^\| (?!---)(?!field |version |`version` \| what|kind )(.+?) \|", section[1], re.MULTILINE)


def fields(heading: str) -> set[str]:
    """Return the names in backticks in the first cells of the table below a heading; each stands there once."""
    named = [name for cell in rows(heading) for name in re.findall(r"`(\w+)`", cell)]
    assert len(named) == len(set(named))
    return set(named)


@pytest.fixture(scope="module")
def result() -> SegmentationResult:
    session = Session(
        fake_session.FakePolicy(),
        fake_session.FakeMask(),
        {part: BackendChoice("fake", "the test asked for it") for part in ("policy", "mask")},
    )
    return session.segment(PICTURE, "the ring", deadline_ms=1e6)


def test_the_page_names_the_fields_of_a_result(result: SegmentationResult) -> None:
    data = json.loads(json.dumps(result.to_dict()))
    assert fields("Fields") - {"policy"} == set(data)
    assert fields("Objects") == set(data["objects"][0])
    assert fields("Tokens") == set(data["tokens"])
    assert fields("Latency") == set(data["latency_ms"])
    assert fields("Deadline") == set(data["deadline"])
    assert [fields("Backends")] * 2 == [set(backend) for backend in data["backends"].values()]
    assert set(data["objects"][0]["mask"]) == {"size", "counts"}


def test_the_page_names_the_fields_of_a_robots_result(result: SegmentationResult) -> None:
    data = NodeResult.of(Frame.of(PICTURE, 5), result).to_dict()
    shared = re.search(r"The JSON of a .*? as above", PAGE, re.DOTALL)
    assert shared
    assert fields("Robots") | set(re.findall(r"`(\w+)`", shared[0])) == set(data)
    assert set(data["objects"][0]) == fields("Objects") | {"place"}


def test_the_page_names_the_fields_of_what_is_hidden() -> None:
    assert fields("Hidden objects") == set(HiddenObject.__dataclass_fields__)


def test_the_page_names_the_kinds_of_files_with_their_suffixes() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (\.[^|]+) \|", PAGE, re.MULTILINE))
    assert {kind: tuple(text.split(", ")) for kind, text in table.items()} == {
        kind: tuple(suffix for suffix in suffixes if suffix != ".jpeg") for kind, suffixes in SUFFIXES.items()
    }
    for kind, suffixes in SUFFIXES.items():
        assert f"| `{kind}` | {', '.join(each for each in suffixes if each != '.jpeg')} |" in (
            SegmentationResult.save.__doc__ or ""
        )


def test_the_history_ends_with_this_version() -> None:
    assert rows("Versions")[0] == str(RESULT_VERSION)
    assert f"of this form: {RESULT_VERSION} " in PAGE
