"""A run that was killed at any moment and resumed is the run that was not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wise_edge.errors import MissingExtraError, UsageError, WiseEdgeError

pytest.importorskip("wise_edge.training.sam", exc_type=MissingExtraError)

import torch

from wise_edge.files.writing import replacing_folder
from wise_edge.training.common import checkpoints, loop, run, step_log
from wise_edge.training.common.checkpoints import load_checkpoint, save_checkpoint
from wise_edge.training.common.loop import Optimizers, TrainingLoop, open_run
from wise_edge.training.common.step_log import StepLog, read_log
from wise_edge.training.recipe import load_recipe
from wise_edge.training.sam.config import SamConfig

CONFIG = SamConfig(steps=7, decay_steps=2, log_every=3, checkpoint_every=2, validate_every=2)
"""Windows of the log are cut by checkpoints, and a validation comes with each of them."""


class SmallLoop(TrainingLoop[torch.Tensor]):
    """Fits a linear layer to batches that depend on the step alone."""

    def __init__(self, config: SamConfig, out: Path) -> None:
        torch.manual_seed(0)
        self._layer = torch.nn.Linear(4, 4)
        weights = list(self._layer.parameters())
        optimizers = Optimizers(weights, weights[:1], config, torch.float32)
        super().__init__(out, config, {"layer": self._layer}, optimizers)

    def _batches(self) -> Iterator[torch.Tensor]:
        for step in range(self._step, self._steps):
            yield torch.randn(8, 4, generator=torch.Generator().manual_seed(step))

    def _train_step(self, batch: torch.Tensor) -> dict[str, float]:
        loss = (self._layer(batch) - batch.flip(1)).pow(2).mean()
        loss.backward()
        return {"bce": float(loss.detach()), **self._update(1.0)}

    def _log_step(self, log: StepLog, batch: torch.Tensor, parts: dict[str, float]) -> None:
        log.add(self._step, parts, len(batch))

    def _validate(self, final: bool) -> dict[str, Any]:
        return {"final": final, "masks": {"iou": float(self._layer.weight.detach().norm()), "iou_50": 0.5}}

    def _save_model(self) -> None:
        with replacing_folder(self._out / "model") as fresh:
            torch.save(self._layer.state_dict(), fresh / "weights.pt")
            for file in self._out.glob("[a-z]*.[jy]*"):  # logs and recipe
                (fresh / file.name).write_bytes(file.read_bytes())


def train(out: Path, config: SamConfig = CONFIG, resume: bool = False, accept_changes: bool = False) -> None:
    """Train the small layer."""
    with open_run(config, out, resume, accept_changes) as checkpoint:
        SmallLoop(config, out).run(checkpoint)


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of a log without what no two runs have in common."""
    return {name: value for name, value in record.items() if name not in ("seconds", "samples_per_s")}


def contents(out: Path) -> dict[str, Any]:
    """Return what a run's folder holds, by the names of all its files; times are left out."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(file.relative_to(out))
        if file.suffix == ".jsonl":
            found[name] = [without_times(record) for record in read_log(file)]
        elif file.name.startswith("checkpoint-") and file.suffix == ".pt":
            state = torch.load(file, weights_only=True)
            log = {key: value for key, value in state.pop("log").items() if "seconds" not in key}
            found[name] = repr({**state, "log": log})
        elif file.suffix == ".sha256":
            found[name] = None
        else:
            found[name] = file.read_bytes()
    return found


@pytest.fixture(autouse=True, scope="module")
def quick_curves() -> Iterator[None]:
    """Write the points of the curves: Matplotlib takes longer to draw them than the rest of a run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "draw_curves", _write_points)
        yield


def _write_points(out: Path) -> None:
    logs = [read_log(out / name) for name in ("train.jsonl", "validation.jsonl")]
    points = [[(record["step"], record.get("bce"), record.get("masks")) for record in log] for log in logs]
    (out / "curves.png").write_text(repr(points))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    train(out)
    return contents(out)


class Killed(BaseException):
    """Ends a training where nothing expects it."""


_WRITES = ((run, "atomic_write"), (run, "save_config"), (checkpoints, "atomic_write"), (loop, "save_checkpoint"))
_WRITES = (*_WRITES, (loop, "draw_curves"), (loop, "append_record"), (step_log, "append_record"))
_WRITES = (*_WRITES, (SmallLoop, "_save_model"), (loop, "drop_records_after"))


def kill_at(monkeypatch: pytest.MonkeyPatch, place: int) -> list[str]:
    """Have the training killed after one of its writes; return the list of those that it has passed."""
    passed: list[str] = []

    def counting(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            result = write(*arguments, **named)
            if len(passed) == place:
                raise Killed(name)
            passed.append(name)
            return result

        return counted

    for holder, name in _WRITES:
        monkeypatch.setattr(holder, name, counting(name, getattr(holder, name)))
    return passed


def test_a_run_killed_after_any_write_ends_as_if_it_was_not(
    unbroken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        places = kill_at(patched, -1)
        train(tmp_path / "counted")
    assert len(places) > 25 and set(places) == {name for _, name in _WRITES}
    for place in range(len(places)):
        out = tmp_path / str(place)
        with monkeypatch.context() as patched, pytest.raises(Killed):
            kill_at(patched, place)
            train(out)
        train(out, resume=True)
        assert contents(out) == unbroken, f"killed {places[place]} ({place})"


@pytest.mark.parametrize("interval", [1, 5, 11])
def test_a_run_killed_again_and_again_ends_as_if_it_was_not(
    unbroken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: int
) -> None:
    for place in range(0, 400, interval):
        with monkeypatch.context() as patched:
            kill_at(patched, place)
            try:
                train(tmp_path, resume=True)
                break
            except Killed:
                continue
    assert contents(tmp_path) == unbroken


def test_a_line_that_a_kill_tore_is_written_again(
    unbroken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tear(path: Path, record: dict[str, Any]) -> None:
        with path.open("a") as file:
            file.write(json.dumps(record)[:20])
        raise Killed

    for holder in (loop, step_log):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(holder, "append_record", tear)
            train(tmp_path, resume=True)
    train(tmp_path, resume=True)
    assert contents(tmp_path) == unbroken
    for name in ("train.jsonl", "validation.jsonl"):
        assert all(json.loads(line) for line in (tmp_path / name).read_text().splitlines())


def test_a_stopped_run_is_validated_where_it_stopped(
    unbroken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM ends a run after the step, before a validation that is due there; the resumed run makes up for it."""
    take = SmallLoop._train_step

    def stopping(self: SmallLoop, batch: torch.Tensor) -> dict[str, float]:
        if self._step in (1, 4):
            self._stop()
        return take(self, batch)

    monkeypatch.setattr(SmallLoop, "_train_step", stopping)
    for stop in (2, 5):
        train(tmp_path, resume=True)
        state = load_checkpoint(tmp_path)
        assert state is not None and state["step"] == stop
    monkeypatch.undo()
    train(tmp_path, resume=True)
    assert contents(tmp_path) == unbroken


def test_a_resumed_run_makes_a_lost_or_altered_output_again(unbroken: dict[str, Any], tmp_path: Path) -> None:
    train(tmp_path)
    (tmp_path / "model" / "weights.pt").write_bytes(b"of another step")
    (tmp_path / "curves.png").write_bytes(b"torn")
    (tmp_path / "run.json").unlink()
    train(tmp_path, resume=True)
    assert contents(tmp_path) == unbroken


def test_a_begun_run_without_a_checkpoint_begins_again(
    unbroken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(loop, "save_checkpoint", lambda *_: (_ for _ in ()).throw(Killed))
        train(tmp_path, replace(CONFIG, seed=1, checkpoint_every=7))
    assert read_log(tmp_path / "train.jsonl")
    with pytest.raises(UsageError, match="--resume"):
        train(tmp_path)
    train(tmp_path, resume=True)
    assert contents(tmp_path) == unbroken


def test_a_run_that_lost_its_checkpoints_is_not_begun_again(tmp_path: Path) -> None:
    train(tmp_path)
    before = contents(tmp_path)
    for file in tmp_path.glob("checkpoint-*"):
        file.unlink()
    with pytest.raises(UsageError, match="without a checkpoint"):
        train(tmp_path, resume=True)
    assert contents(tmp_path) == {name: value for name, value in before.items() if "checkpoint" not in name}


def test_fewer_steps_than_taken_and_another_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path)
    with pytest.raises(UsageError, match="has taken 7 steps"):
        train(tmp_path, replace(CONFIG, steps=5), resume=True)
    assert load_recipe(str(tmp_path / "recipe.yaml")) == CONFIG
    with pytest.raises(UsageError, match=r"adamw_lr was 0\.0012 and is 0\.1"):
        train(tmp_path, replace(CONFIG, adamw_lr=0.1), resume=True)
    monkeypatch.setattr(torch.nn, "Linear", lambda *_: torch.nn.Bilinear(4, 4, 4))
    with pytest.raises(UsageError, match="does not fit the recipe's model"):
        train(tmp_path, replace(CONFIG, adamw_lr=0.1), resume=True, accept_changes=True)


def test_a_log_goes_on_with_its_time_and_its_window(tmp_path: Path) -> None:
    state = {"seconds": 100.0, "window_seconds": 50.0, "sums": {"bce": 1.0}, "counts": {"bce": 1}, "samples": 100}
    log = StepLog(tmp_path / "train.jsonl", steps=4, every=2, step=1, state=state)
    assert log.state()["seconds"] >= 100 and log.state()["window_seconds"] >= 50
    log.add(2, {"bce": 2.0}, 100)
    (record,) = read_log(tmp_path / "train.jsonl")
    assert record["bce"] == 1.5 and record["seconds"] >= 100 and record["samples_per_s"] <= 4


# checkpoints


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tmp_path, 1, {"x": torch.zeros(200)})
    path = save_checkpoint(tmp_path, 2, {"x": torch.ones(200)})
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 8 * len(content) // 400):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        state = load_checkpoint(tmp_path)
        assert state is not None and state["step"] == 1
        assert path.name in capsys.readouterr().err
    path.write_bytes(content)
    state = load_checkpoint(tmp_path)
    assert state is not None and state["step"] == 2


def test_a_hash_is_in_the_form_of_sha256sum(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"x": torch.zeros(2)})
    assert path.with_name(f"{path.name}.sha256").read_text() == f"{checkpoints.hash_file(path)}  {path.name}\n"


def test_a_checkpoint_from_before_there_were_hashes_is_read_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"step": 3}, tmp_path / "checkpoint-0000003.pt")
    assert load_checkpoint(tmp_path) == {"step": 3}
    assert "note: " in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, [1], {"steps": 3}, {"step": "3"}])
def test_a_file_that_is_no_checkpoint_is_skipped(tmp_path: Path, content: Any) -> None:
    save_checkpoint(tmp_path, 1, {})
    torch.save(content, tmp_path / "checkpoint-0000003.pt")
    assert load_checkpoint(tmp_path) == {"step": 1}


def test_damaged_checkpoints_do_not_push_out_good_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        path = save_checkpoint(tmp_path, step, {})
    path.write_bytes(b"damaged")
    save_checkpoint(tmp_path, 2, {})  # of a run that went on from step 1
    assert sorted(file.name for file in tmp_path.glob("*.pt")) == ["checkpoint-0000002.pt"]
    save_checkpoint(tmp_path, 4, {})
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"checkpoint-000000{step}.pt{ending}" for step in (2, 4) for ending in ("", ".sha256")
    ]


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_again(tmp_path: Path) -> None:
    train(tmp_path)
    for file in tmp_path.glob("checkpoint-*.pt"):
        file.write_bytes(file.read_bytes()[:-1])
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(WiseEdgeError, match=r"every checkpoint in .* is damaged"):
        train(tmp_path, resume=True)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_a_full_disk_keeps_the_checkpoints_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, {"x": torch.ones(100_000)})
    write = checkpoints._Hashed.write
    monkeypatch.setattr(
        checkpoints._Hashed, "write", lambda self, data: _fail() if len(data) > 100_000 else write(self, data)
    )
    with pytest.raises((OSError, WiseEdgeError), match="No space left"):
        save_checkpoint(tmp_path, 2, {"x": torch.ones(100_000)})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint-0000001.pt", "checkpoint-0000001.pt.sha256"]


def _fail() -> int:
    raise OSError(28, "No space left on device")


def test_the_identity_of_a_run_survives_json(tmp_path: Path) -> None:
    train(tmp_path)
    assert set(json.loads((tmp_path / "run.json").read_text())) == {"versions", "inputs", "changes"}
