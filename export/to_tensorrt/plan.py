"""The input shapes that a bundle's engines support, derived from the axis names in its ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wise_edge.bundle.devices import GpuKind
from wise_edge.bundle.engines import BuildPlan, GraphPlan, ShapeRange
from wise_edge.bundle.roles import mask_graphs
from wise_edge.bundle.store import Bundle
from wise_edge.extras import require
from wise_edge.policy.graph_io import policy_graphs
from wise_edge.policy.spec import PolicySpec
from wise_edge.sam.spec import MOST_PROMPTS
from wise_edge.sam.video.memory import MOST_OBJECTS

_MOST_POINTS = 64
_POINTS = 4  # two points and a box


def plan_engines(bundle: Bundle, targets: tuple[GpuKind, ...]) -> BuildPlan:
    """Return how to build engines from a bundle's graphs.

    One range covers both prefill and decoding: a second optimization profile made the engine 1.5 times as large
    (TensorRT for RTX 1.7.1).

    Args:
        bundle: holds the graphs.
        targets: what to build for.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    manifest = bundle.manifest
    roles = (*policy_graphs(manifest.policy), *mask_graphs(memory=manifest.sam.memory is not None))
    graphs = tuple(GraphPlan(graph, find_ranges(bundle.file(graph), manifest.policy)) for graph in roles)
    return BuildPlan(tuple(target.name for target in targets), graphs)


def _sizes(policy: PolicySpec) -> dict[str, tuple[int, int, int]]:
    """Return the smallest, typical and largest size of each dynamic axis, by its name."""
    context = policy.context_tokens
    return {
        "tokens": (1, 1, context),
        "past": (0, context // 2, context),
        "prompts": (1, 1, MOST_PROMPTS),
        "images": (1, 1, MOST_PROMPTS),  # one, or as many as prompts
        "objects": (1, 1, MOST_OBJECTS),
        "points": (1, _POINTS, _MOST_POINTS),
    }


def find_ranges(file: Path, policy: PolicySpec) -> dict[str, ShapeRange]:
    """Return the shapes to support of each input of a graph whose shape is dynamic.

    Args:
        file: the graph.
        policy: the bundle's, whose context bounds its graphs' axes.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    onnx, sizes = require("onnx", "export"), _sizes(policy)
    inputs = onnx.load(file, load_external_data=False).graph.input
    axes = {value.name: [_axis(dim) for dim in value.type.tensor_type.shape.dim] for value in inputs}
    return {
        name: ShapeRange(*(_pick(shape, sizes, which) for which in range(3)))
        for name, shape in axes.items()
        if any(isinstance(axis, str) for axis in shape)
    }


def _axis(dim: Any) -> str | int:
    return str(dim.dim_param) if dim.dim_param else int(dim.dim_value)


def _pick(shape: list[str | int], sizes: dict[str, tuple[int, int, int]], which: int) -> tuple[int, ...]:
    return tuple(sizes[axis][which] if isinstance(axis, str) else axis for axis in shape)
