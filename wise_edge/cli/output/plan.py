"""Prints what a training will do and need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wise_edge.drawing.units import size

if TYPE_CHECKING:
    from wise_edge.training.plan.parts import TrainingPlan

_PHASES = {"always": "", "vision": "vision: ", "writing": "writing: ", "backward": "backward: "}


def print_plan(plan: TrainingPlan) -> None:
    """Print the facts, the memory of each process part by part, its sum, and what is free here."""
    from rich.table import Table

    from wise_edge.cli.output.tables import open_console, show_facts

    console = open_console()
    show_facts(console, plan.facts)
    console.print("\nmemory of each process", markup=False)
    memory = Table.grid(padding=(0, 2))
    memory.add_column()
    memory.add_column(justify="right", no_wrap=True)
    memory.add_column(overflow="fold")
    for part in plan.memory:
        amount = "?" if part.size_bytes is None else size(part.size_bytes)
        memory.add_row(f"  {_PHASES[part.phase]}{part.name}", amount, part.reason or part.sum)
    console.print(memory)
    for line in _sums(plan):
        console.print(line, markup=False)


def _sums(plan: TrainingPlan) -> list[str]:
    peak = size(plan.peak_bytes)
    unknown = any(part.size_bytes is None for part in plan.memory)
    together = f"{peak} without the parts of unknown size" if unknown else f"at most {peak} at a time"
    lines = [f"{together}; {_free()}", ""]
    lines.append(f"the folder of the run takes {size(plan.disk_bytes)} at most; {_free_disk(plan.model)}")
    lines += [f"note: {note}" for note in plan.notes]
    return [*lines, f"the trained model will be in {plan.model}; nothing was trained"]


def _free() -> str:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return f"{size(free)} of the GPU's {size(total)} are free"
    return "no GPU was found, so it would train on the CPU"


def _free_disk(model: str) -> str:
    import shutil
    from pathlib import Path

    folder = next(parent for parent in Path(model).absolute().parents if parent.exists())
    return f"{size(shutil.disk_usage(folder).free)} are free in {folder}"
