"""The page of a profile: complete, without scripts or network, and drawn by a browser if there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from profile_documents import make_document
from wise_edge.cli.output.profile import print_profile
from wise_edge.drawing.svg import Scale
from wise_edge.drawing.units import joules
from wise_edge.profiling.charts import draw_phases, draw_timeline, draw_tradeoff
from wise_edge.profiling.page import render_page
from wise_edge.profiling.words import name_rows
from wise_edge.runtimes.spans import PHASES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.parametrize("power", [True, False])
@pytest.mark.parametrize("ciou", [0.8, None])
def test_every_chart_is_whole_and_nothing_is_fetched(power: bool, ciou: float | None) -> None:
    page = render_page(make_document(power=power, ciou=ciou))

    assert "NVIDIA Jetson &lt;Orin&gt;" in page
    assert not re.search(r"<script|src=|@import|url\(|https?:", page)
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == (5 if ciou is not None else 4)
    for chart in charts:
        assert not re.search(r"\b(nan|inf)\b", chart)
        ElementTree.fromstring(chart)
    assert ("power, W" in page) == power
    assert ("not measurable" in page) == power
    assert ("Power was not read: no sensor" in page) != power
    assert ("What a rationale buys" in page) == (ciou is not None)


def test_doubts_stand_first() -> None:
    document = make_document()
    document["stopped"] = "interrupted"
    document["conditions"]["changes"] = ["the device was throttled: oc1_event_cnt counted 3 more events"]
    page = render_page(document)
    assert page.index("incomplete: interrupted") < page.index("counted 3 more events") < page.index("At a glance")


def test_what_was_not_measured_is_no_value() -> None:
    document = make_document(power=False)
    document["power"]["reason"] = None
    document["device"]["cores"] = None
    clock = {"name": "cpu1", "now_hz": 1e9, "least_hz": 1e9, "most_hz": 2e9}
    before = document["conditions"]["before"]
    after = before | {
        "clocks": [clock, before["clocks"][0] | {"now_hz": 1.5e9}],
        "temperatures_c": {"cpu-thermal": 60.0},
        "gpu": {"clock_hz": None, "temperature_c": None, "violations_s": {}, "memory_bytes": None},
    }
    document["conditions"]["after"] = after
    page = render_page(document)

    assert not re.search(r"\bNone\b|\bnan\b", page)
    assert "Power was not read." in page
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    rows = {row[0]: row[1:] for row in cells if row}
    assert rows["cpu0"] == ["730 of 1728 MHz", "1500 of 1728 MHz"]
    assert rows["cpu1"] == ["–", "1000 of 2000 MHz"]
    assert (rows["gpu-thermal"], rows["cpu-thermal"]) == (["51 °C", "–"], ["–", "60 °C"])
    assert "GPU" not in rows
    after["gpu"] |= {"temperature_c": 61}
    assert "<td>GPU</td><td>–</td><td>61 °C</td>" in render_page(document)


def test_a_part_that_was_not_reached_has_no_window() -> None:
    document = make_document()
    unreached = {"energy_j": None, "net_j": None, "reason": "the profile ended", "error_share": None}
    unreached |= {"times": 0, "window_s": 0.0, "samples": 0, "largest_gap_s": 0.0}
    document["runs"][0]["energy"]["query"] = [unreached]
    page = render_page(document)
    assert "a query: the profile ended" in page
    assert "0 ×" not in page
    assert "0.00 s" not in page


def test_what_the_energy_is_of_stands_by_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    document = make_document()
    line = "energy by Jetson rails (ina3221), VDD_IN"
    page = render_page(document)
    assert page.index("At a glance") < page.index(line) < page.index("Where the time goes")
    print_profile(document)
    assert line in capsys.readouterr().out
    assert "energy by" not in render_page(make_document(power=False))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.234, "1.23 J"),
        (0.0456, "45.6 mJ"),
        (-5.2, "-5.20 J"),
        (0.9996, "1.00 J"),
        (0.9994, "999 mJ"),
        (-0.012, "-12 mJ"),
    ],
)
def test_joules_are_written_as_a_reader_wants_them(value: float, words: str) -> None:
    assert joules(value) == words


def test_the_tradeoff_tells_joules_in_words() -> None:
    run = make_document()["runs"][0]
    run["energy"]["query"][0]["energy_j"] = 0.012
    assert "15 rationale tokens, 12 mJ" in (draw_tradeoff([run]) or "")


def test_bars_are_as_long_as_their_phases() -> None:
    runs = make_document()["runs"]
    chart = ElementTree.fromstring(draw_phases(runs, (*PHASES, "other")))
    widths = [float(bar.get("width", "0")) for bar in chart.iter("rect")]
    assert len(widths) == 14
    assert widths[3] / widths[0] == pytest.approx(12.0, rel=0.01)
    assert widths[10] / widths[3] == pytest.approx(40 / 120, rel=0.01)


def test_a_timeline_has_the_power_above_the_phases() -> None:
    run = make_document()["runs"][1]
    chart = ElementTree.fromstring(draw_timeline(run, PHASES, 171.0))
    (line,) = chart.iter("polyline")
    heights = [float(point.split(",")[1]) for point in line.get("points", "").split()]
    assert min(heights) < 20 < max(heights) < min(float(bar.get("y", "0")) for bar in chart.iter("rect"))


def test_names_tell_runs_apart() -> None:
    runs = make_document()["runs"]
    assert name_rows(runs) == ["verbose", "wise-s"]
    assert name_rows([runs[0], runs[1] | {"policy": "onnx"}]) == ["verbose · llama", "wise-s · onnx"]
    assert draw_tradeoff([runs[0] | {"accuracy": None}]) is None


@pytest.mark.parametrize(("low", "high"), [(0, 171), (0.61, 0.93), (40, 40), (0, 0.004)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    ticks = Scale(low, high, 0, 100).ticks()
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert len(ticks) <= 8


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_it_without_a_complaint(tmp_path: Path, dark: bool) -> None:
    page, shot = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(render_page(make_document()))
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars"
    options = [*flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1180,2400"]
    options += ["--enable-logging=stderr", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    told = subprocess.run(
        [str(CHROMIUM), *options, f"--screenshot={shot}", page.as_uri()], capture_output=True, text=True, timeout=120
    )

    assert "CONSOLE" not in told.stderr
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert (pixels[5, 5].mean() < 60) == dark
    drawn = {tuple(color) for color in pixels.reshape(-1, 3)[::7].tolist()}
    assert (255, 99, 132) in drawn  # decoding's bar
