"""Training rows and validation of answers that are lists, without running a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wise_edge.datasets import Example, open_dataset
from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.policy.answers.answer import Answer, format_answer
from wise_edge.policy.answers.form import BOX_POINT_LIST, BOX_POINTS
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.reading import MAX_OBJECTS
from wise_edge.policy.prompts import DEFAULT

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

from wise_edge.training.recipe import load_recipe
from wise_edge.training.wise import validation
from wise_edge.training.wise.config import DataConfig, ValidationConfig, WiseConfig
from wise_edge.training.wise.data import Selection, training_rows, true_objects
from wise_edge.training.wise.policy import StartPolicy, open_policy
from wise_edge.training.wise.validation import Figures, Validator

SIZE = 112
FRAME = AnswerFrame((SIZE, SIZE))
DATA = DataConfig("validation", name="scenes-generalized", samples=6)


@pytest.fixture(scope="module")
def start() -> StartPolicy:
    """The embedded policy, to be trained to write lists."""
    config = load_recipe("wise-embedded", ["form=box-point-list"])
    assert isinstance(config, WiseConfig)
    return open_policy(config)


def test_rows_hold_each_object(start: StartPolicy) -> None:
    data = Selection(DATA, "data")
    rows = training_rows(data, start, "no-detailed", 6, 0)
    found = {rows[place]["sample"]: rows[place]["objects"] for place in range(6)}
    for index in range(6):
        truth = true_objects(data[index], FRAME, BOX_POINT_LIST)
        expected = [{"box": list(item.box), "points": [list(point) for point in item.points]} for item in truth]
        assert found[data[index].id] == expected
        assert all(len(item["points"]) == 1 for item in expected)
    assert sorted(map(bool, found.values())) == [False, False, True, True, True, True]
    assert "box" not in rows[0] and "points" not in rows[0]


def test_a_form_of_one_object_passes_over_the_others(start: StartPolicy, capsys: pytest.CaptureFixture[str]) -> None:
    rows = training_rows(Selection(DATA, "data"), replace(start, form=BOX_POINTS), "no-detailed", 6, 0)
    assert all(len(rows[place]["box"]) == 4 and len(rows[place]["points"]) == 2 for place in range(6))
    assert (
        "objects; an answer of the form box-points holds 1; the next sample is used instead" in capsys.readouterr().err
    )


def test_what_is_not_known_is_not_trained_on() -> None:
    example = open_dataset("scenes-generalized", None, "validation")[0]
    assert true_objects(replace(example, objects=()), FRAME, BOX_POINT_LIST) == ()
    for unknown, form in ((None, BOX_POINT_LIST), (None, BOX_POINTS), ((), BOX_POINTS)):
        with pytest.raises(UsageError, match="has no box or no points to train on"):
            true_objects(replace(example, objects=unknown), FRAME, form)
    several = open_dataset("scenes-generalized", None, "validation")[1].objects or ()
    with pytest.raises(
        UsageError, match=f"means {MAX_OBJECTS + 1} objects; an answer of the form box-point-list holds {MAX_OBJECTS}"
    ):
        true_objects(replace(example, objects=several[:1] * (MAX_OBJECTS + 1)), FRAME, BOX_POINT_LIST)


def figures(start: StartPolicy, monkeypatch: pytest.MonkeyPatch, write: Any, sam: str | None) -> Figures:
    """Validate a policy that writes what `write` makes of an example."""

    def decode(model: Any, start: StartPolicy, examples: Sequence[Example], *more: Any) -> list[str]:
        assert more[-1] == "</answer>"
        return [write(example) for example in examples]

    monkeypatch.setattr(validation, "decode_greedily", decode)
    config = ValidationConfig(data=DATA, variants=("answer",), batch_size=2, sam=sam)
    return Validator(config, start).run(None)["answer"]


def true_list(example: Example) -> str:
    objects = true_objects(example, FRAME, BOX_POINT_LIST)
    return f"<answer>{format_answer(Answer(objects[::-1]), BOX_POINT_LIST, AnswerFrame((SIZE, SIZE)))}</answer>"


@pytest.mark.parametrize("sam", [None, "embedded"])
def test_true_lists_have_the_best_figures(start: StartPolicy, monkeypatch: pytest.MonkeyPatch, sam: str | None) -> None:
    found = figures(start, monkeypatch, true_list, sam)
    assert (found.box_accuracy, found.valid_rate) == (1.0, 1.0)
    if sam is None:
        assert (found.ciou, found.giou) == (1.0, 1.0)
    else:
        assert min(found.ciou, found.giou) > 0.9


def test_nothing_is_right_only_if_it_is_said(start: StartPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = figures(start, monkeypatch, lambda example: "<answer>[]</answer>", None)
    assert nothing == Figures(0.0, 1 / 3, 1 / 3, 1.0, 0.0), "a third of the samples means nothing"
    unreadable = figures(start, monkeypatch, lambda example: "I do not know.", None)
    assert unreadable == Figures(0.0, 0.0, 0.0, 0.0, 0.0)


def test_wording_of_another_form_is_refused(start: StartPolicy, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(start.name, folder)
    own = replace(DEFAULT, system=f"Look closely. {DEFAULT.system}")
    (folder / "prompts.json").write_text(json.dumps(own.to_dict()))
    for form, message in (
        ("box-points", None),
        ("box-point-list", "its prompts ask for 'bbox', which is of another form"),
    ):
        config = load_recipe("wise-embedded", [f"model={folder}", f"form={form}"])
        assert isinstance(config, WiseConfig)
        if message is None:
            assert open_policy(config).form == BOX_POINTS
        else:
            with pytest.raises(UsageError, match=message):
                open_policy(config)


def test_the_default_wording_asks_for_the_form(start: StartPolicy, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(start.name, folder)
    (folder / "prompts.json").write_text(json.dumps(DEFAULT.to_dict()))
    config = load_recipe("wise-embedded", [f"model={folder}", "form=box-point-list"])
    assert isinstance(config, WiseConfig)
    assert '[{"bbox_2d": [x1,y1,x2,y2], "point_2d": [x,y]}]' in open_policy(config).prompts.system
