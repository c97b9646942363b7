"""Distillation: its pictures, the teacher's embeddings and masks, the student, and a whole run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiny_models import make_sam2
from wise_edge.cli.main import main
from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.segment_anything import SamArchitecture, build_sam, save_sam

pytest.importorskip("wise_edge.training.distill", exc_type=MissingExtraError)

import torch

from wise_edge.training.common.step_log import read_log
from wise_edge.training.distill.config import DistillConfig, EncoderConfig
from wise_edge.training.distill.embeddings import Embeddings
from wise_edge.training.distill.masks import compare_masks, draw_points, grid_points, make_targets, mask_loss
from wise_edge.training.distill.pictures import Folder, PictureBatches
from wise_edge.training.distill.student import (
    build_student,
    describe_student,
    design_student,
    load_teacher,
    read_teacher_spec,
)
from wise_edge.training.distill.train import train_distill
from wise_edge.training.recipe import load_recipe

TEACHER = SamArchitecture(
    input_size=56, encoder_dim=16, encoder_depth=1, global_attention=(), prompt_dim=16, decoder_heads=2
)
ENCODER = EncoderConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 2, 2, 2), (4, 4, 4, 4), 1.0, 1.0)
SIZES = ((40, 30), (64, 64), (20, 50), (33, 57), (90, 10), (64, 48))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("teacher")
    save_sam(build_sam(TEACHER), TEACHER, folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{'png' if number % 2 else 'jpg'}")
    return folder


@pytest.fixture
def config(teacher: Path, pictures: Path) -> DistillConfig:
    made = DistillConfig(
        steps=4, mask_steps=2, decay_steps=2, teacher=str(teacher), images=str(pictures), model=ENCODER, device="cpu"
    )
    return replace(
        made,
        pictures_per_step=2,
        warmup_steps=1,
        log_every=1,
        checkpoint_every=2,
        validate_every=2,
        validate_pictures=1,
    )


def batches(config: DistillConfig) -> PictureBatches:
    spec = read_teacher_spec(config)
    student = describe_student(design_student(config, load_teacher(config), spec))
    return PictureBatches(config, Folder(Path(config.images), config.validate_pictures), student, spec)


def test_a_student_has_the_teachers_grid_and_its_decoder_bit_for_bit(config: DistillConfig) -> None:
    teacher = load_teacher(config)
    design = design_student(config, teacher, read_teacher_spec(config))
    assert (design.input_size, design.grid, design.prompt_dim, design.decoder_heads) == (64, 4, 16, 2)
    student = build_student(design, teacher)
    for name, value in teacher.state_dict().items():
        if not name.startswith("image_encoder."):
            assert torch.equal(student.state_dict()[name], value), name
    assert all(name.startswith("image_encoder.") for name, p in student.named_parameters() if p.requires_grad)


def test_each_epoch_shows_every_picture_once_and_never_those_held_out(config: DistillConfig) -> None:
    config = replace(config, steps=10, pictures_per_step=1)
    data = batches(config)
    numbers = [data[step].numbers[0] for step in range(10)]
    assert sorted(numbers[:5]) == sorted(numbers[5:]) == [1, 2, 3, 4, 5]
    assert numbers[:5] != numbers[5:]
    assert [pictures.numbers for pictures in data.held_out()] == [(0,)]


def test_pictures_of_any_size_are_fitted_as_runtimes_do(config: DistillConfig) -> None:
    for pictures in batches(replace(config, pictures_per_step=1)).held_out():
        (width, height), side = pictures.sizes[0].astype(int), pictures.student.shape[-1]
        assert max(width, height) == side == 64
        assert pictures.teacher.shape == (1, 3, 56, 56)
        assert not pictures.student[0, :, height:].any() and not pictures.student[0, :, :, width:].any()


def test_pictures_that_cannot_be_read_are_counted_named_and_left_out(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "mixed")
    (tmp_path / "mixed" / "empty.png").touch()
    (tmp_path / "mixed" / "page.jpg").write_text("<html>not found</html>")
    folder = Folder(tmp_path / "mixed", 1)
    assert len(folder.files) == len(SIZES)
    said = folder.describe_unreadable()
    assert said is not None and said.startswith("2 pictures cannot be read")
    assert "empty.png" in said and "page.jpg" in said


def test_a_picture_that_breaks_off_is_replaced_by_the_next(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pictures, tmp_path / "cut")
    folder = Folder(tmp_path / "cut", 1)
    whole = folder.files[2].read_bytes()
    folder.files[2].write_bytes(whole[: len(whole) // 2])
    assert (folder.read(2) == folder.read(3)).all()
    assert folder.files[2].name in capsys.readouterr().err


@pytest.mark.parametrize("names", [(), ("one.png",)])
def test_a_folder_without_pictures_is_one_clear_line(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("no picture")
    with pytest.raises(UsageError, match=r"contains no images|has 0 pictures that can be read, 2 are needed") as error:
        Folder(tmp_path, 1)
    assert "\n" not in str(error.value)


def test_kept_embeddings_equal_fresh_ones_and_stay_within_their_bound(config: DistillConfig, tmp_path: Path) -> None:
    teacher, data = load_teacher(config), batches(config)
    size = 128 + 2 * 16 * 4 * 4  # numpy's header, half precision
    embeddings = Embeddings(teacher, tmp_path / "kept", 3.5 * size)
    fresh = [embeddings.find(data[step]) for step in range(3)]
    assert len(list((tmp_path / "kept").iterdir())) == 3
    again = Embeddings(teacher, tmp_path / "kept", 3.5 * size)
    assert all(torch.equal(again.find(data[step]), fresh[step]) for step in range(3))
    for file in (tmp_path / "kept").iterdir():
        file.write_bytes(b"torn")
    assert all(torch.equal(again.find(data[step]), fresh[step]) for step in range(3))


def test_targets_are_the_teachers_masks_of_box_and_point(config: DistillConfig) -> None:
    """Judged by the model's own forward pass, one prompt at a time."""
    teacher = load_teacher(config)
    picture = next(batches(config).held_out())
    embeddings = teacher.image_encoder(torch.from_numpy(picture.teacher))
    points = grid_points(picture.sizes, 2)
    targets = make_targets(teacher, embeddings, points)
    assert 0 < len(targets.owners) <= 4
    expected = []
    for point in points:
        low, _ = decode(teacher, embeddings, point[None], None)
        if (low > 0).sum() >= 4:
            rows, columns = np.nonzero(low.numpy() > 0)
            box = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]) * (56 / 16)
            expected.append(decode(teacher, embeddings, point[None], box)[0])
    torch.testing.assert_close(targets.logits, torch.stack(expected), atol=1e-5, rtol=1e-5)


def decode(teacher: Any, embeddings: Any, points: Any, boxes: Any) -> tuple[Any, Any]:
    sparse, dense = teacher.prompt_encoder((points, torch.ones(1, 1)), boxes, None)
    positions = teacher.prompt_encoder.get_dense_pe()
    masks, scores = teacher.mask_decoder(embeddings, positions, sparse, dense, multimask_output=False)
    return masks[0, 0].detach(), scores[0, 0].detach()


def test_the_loss_of_masks_is_least_for_the_teachers_own_embeddings(config: DistillConfig) -> None:
    teacher = load_teacher(config)
    student = build_student(design_student(config, teacher, read_teacher_spec(config)), teacher)
    torch.manual_seed(1)
    embeddings = torch.randn(2, 16, 4, 4)
    points = draw_points(np.array([[56, 56], [56, 28]], np.float32), 4, np.random.default_rng(0))
    assert points.shape == (8, 1, 2) and points[4:, 0, 1].max() < 28
    targets = make_targets(teacher, embeddings, points)
    near, far = mask_loss(student, embeddings, targets), mask_loss(student, -embeddings, targets)
    assert near < far
    assert compare_masks(student, embeddings, targets) == [1.0] * len(targets.owners)


def test_a_run_resumes_to_the_unbroken_one_and_its_model_loads(config: DistillConfig, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train_distill(config, whole, resume=False) == whole / "sam"
    shutil.copytree(whole, cut)
    (cut / "checkpoint-0000004.pt").unlink()
    shutil.rmtree(next(cut.glob("embeddings-*")))
    shutil.rmtree(cut / "sam")
    train_distill(config, cut, resume=True)
    for name in ("sam/model.safetensors", "validation.jsonl"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    records = read_log(cut / "train.jsonl")
    assert ["mask" in record for record in records] == [False, False, True, True]
    assert load_recipe(str(whole / "recipe.yaml")) == config
    spec = read_sam_spec(whole / "sam")
    assert (spec.family, spec.input_size, spec.low_res_size) == ("mobile_sam", 64, 16)
    load_segmenter(whole / "sam")


def test_other_pictures_are_another_run(config: DistillConfig, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "pictures")
    config = replace(config, images=str(tmp_path / "pictures"), steps=2, mask_steps=0)
    train_distill(config, tmp_path / "run", resume=False)
    (tmp_path / "pictures" / "0.jpg").unlink()
    with pytest.raises(UsageError, match="the files of images have changed"):
        train_distill(config, tmp_path / "run", resume=True)


def test_a_teacher_without_sams_decoder_is_refused_before_a_folder_is_made(
    config: DistillConfig, tmp_path: Path
) -> None:
    make_sam2().save_pretrained(tmp_path / "sam2")
    config = replace(config, teacher=str(tmp_path / "sam2"))
    with pytest.raises(UsageError, match="is SAM 2, whose mask decoder takes more than image embeddings"):
        train_distill(config, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(config: DistillConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="torch finds no GPU"):
        train_distill(replace(config, device="cuda"), tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_is_trained_on_what(
    teacher: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(pictures, mixed)
    (mixed / "empty.png").touch()
    names = {"teacher": teacher, "images": mixed, "device": "cpu"}
    options = [word for name, value in names.items() for word in ("--set", f"{name}={value}")]
    assert main(["train", "--recipe", "sam-distill", *options, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for expected in ("MobileSAM at 64 px", "6 pictures of", "all are kept on disk", "1 pictures cannot be read"):
        assert expected in said, expected
