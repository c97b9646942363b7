"""The plan of a distillation."""

from __future__ import annotations

from pathlib import Path

from wise_edge.drawing.units import number, size
from wise_edge.training.distill.config import DistillConfig
from wise_edge.training.distill.pictures import open_folder
from wise_edge.training.distill.student import (
    build_student,
    choose_device,
    design_student,
    load_teacher,
    read_teacher_spec,
)
from wise_edge.training.plan.parts import MemoryPart, TrainingPlan
from wise_edge.training.plan.scratch import NOT_DERIVED


def plan_distill(config: DistillConfig, out: Path) -> TrainingPlan:
    """Return the plan of a distillation; `out` is the folder of the run. The teacher is loaded, which proves it."""
    spec, folder, device = read_teacher_spec(config), open_folder(config), choose_device(config)
    teacher = load_teacher(config)
    design = design_student(config, teacher, spec)
    student = build_student(design, teacher)
    weights, teachers = (sum(p.numel() for p in model.parameters()) for model in (student, teacher))
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    each = 2.0 * design.prompt_dim * design.grid**2
    kept = 0.0 if folder is None else min(config.cache_gb * 1e9, each * len(folder.files))
    facts = [
        ("teacher", f"{spec.row.title} of {number(teachers)} weights at {spec.input_size} px"),
        ("model", f"MobileSAM at {design.input_size} px, {number(trained)} of {number(weights)} weights are trained"),
        ("data", "scenes, drawn as they are needed" if folder is None else _describe(config, len(folder.files))),
        ("steps", f"{config.steps:,}, each of {config.pictures_per_step} pictures; {config.mask_steps:,} with masks"),
        ("device", str(device)),
    ]
    if folder is not None:
        all_kept = "all" if kept == each * len(folder.files) else f"{kept / each:,.0f}"
        facts.append(("embeddings", f"{size(each)} a picture; {all_kept} are kept on disk"))
    memory = (
        MemoryPart("teacher", f"{teachers:.3g} x 4 B", teachers * 4.0),
        MemoryPart("student, gradient and moments", f"{trained:.3g} x (4 + 4 + 8) B at most", trained * 16.0),
        MemoryPart("its decoder", f"{weights - trained:.3g} x 4 B", (weights - trained) * 4.0),
        MemoryPart("activations", "", None, reason=NOT_DERIVED),
    )
    disk = 2.0 * (weights * 4 + trained * 8) + 2 * weights + kept
    unread = None if folder is None else folder.describe_unreadable()
    return TrainingPlan(tuple(facts), memory, disk, str(out / "sam"), () if unread is None else (unread,))


def _describe(config: DistillConfig, pictures: int) -> str:
    epochs = config.steps * config.pictures_per_step / pictures
    return f"{pictures:,} pictures of {config.images}, each about {epochs:.1f} times"
