"""The examples do what their first lines say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service_process import process
from wise_edge.images import load_image
from wise_edge.runtimes.session import Session

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENE = EXAMPLES.parent / "docs/scene.png"
QUERY = "the small dotted object"


def run(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_a_query_writes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("segment", SCENE, QUERY, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    assert "object 1: box (46, 104, 94, 152), 1484 px" in capsys.readouterr().out
    assert np.count_nonzero(load_image(tmp_path / "out" / "mask.png")[..., 0]) == 1484
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"overlay.jpg", "mask.png", "coco.json"}


def test_a_service_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
    pytest.importorskip("httpx", reason="needs httpx")
    drawn = tmp_path / "drawn.png"
    with process() as (_, url):
        run("http_client", SCENE, QUERY, "--url", url, "--overlay", drawn, monkeypatch=monkeypatch)
        assert "object 1: box [46, 104, 94, 152], 1484 px" in capsys.readouterr().out
        assert load_image(drawn).shape == load_image(SCENE).shape
        with pytest.raises(SystemExit, match="400: the query is empty"):
            run("http_client", SCENE, " ", "--url", url, monkeypatch=monkeypatch)


def record(path: Path, frames: int) -> Any:
    """Write a video of one scene, ten frames a second, and open it with OpenCV."""
    cv2 = pytest.importorskip("cv2", reason="needs opencv-python")
    scene = load_image(SCENE)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, scene.shape[1::-1])
    for _ in range(frames):
        writer.write(scene[..., ::-1])
    writer.release()
    return cv2.VideoCapture(str(path))


def test_a_camera_is_followed(tmp_path: Path) -> None:
    capture, scene, shown = record(tmp_path / "clip.avi", 3), load_image(SCENE), list[Any]()

    def show(frame: Any) -> bool:
        shown.append(frame)
        return len(shown) < 2

    example = runpy.run_path(str(EXAMPLES / "opencv_camera.py"))
    example["follow"](Session.from_bundle(), capture, QUERY, show, live=True)
    assert shown
    changed = (np.abs(shown[0].astype(int) - scene[..., ::-1]) > 60).any(axis=2)
    assert changed[104:152, 46:94].mean() > 0.05
    assert changed[:40].mean() < 0.02


def test_every_frame_of_a_video_is_shown(tmp_path: Path) -> None:
    capture, session, asked, shown = record(tmp_path / "clip.avi", 25), Session.from_bundle(), [], list[Any]()
    answer = session.segment

    def ask(*arguments: Any, **options: Any) -> Any:
        asked.append(capture.get(1))  # CAP_PROP_POS_FRAMES: how many were read
        return answer(*arguments, **options)

    session.segment = ask  # type: ignore[method-assign]
    example = runpy.run_path(str(EXAMPLES / "opencv_camera.py"))
    example["follow"](session, capture, QUERY, lambda frame: shown.append(frame) is None, live=False)
    assert len(shown) == 25
    assert asked == [1, 11, 21]


def test_the_notebook_runs() -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", 4)
    shown = texts(notebook)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    assert [line for line in texts(notebook) if "ms" not in line] == [line for line in shown if "ms" not in line]
    assert "found - The only small dotted object is at the left: small dotted blue ring." in shown


def texts(notebook: Any) -> list[str]:
    """Return the lines that the cells print."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [line for output in outputs for line in output.get("text", "").splitlines()]
