"""Synthetic images with exact masks, queries and rationales: what everything is trained and tested on."""

from wise_edge.scenes.completions import LEVEL_WEIGHTS, completion, target_answer
from wise_edge.scenes.family import SHAPES, Family, Kind
from wise_edge.scenes.queries import KINDS, Query
from wise_edge.scenes.rationales import LEVELS
from wise_edge.scenes.sampling import (
    SIDE_PX,
    SPLITS,
    Sample,
    Scene,
    SceneObject,
    generate,
    sample,
)

__all__ = [
    "KINDS",
    "LEVELS",
    "LEVEL_WEIGHTS",
    "SHAPES",
    "SIDE_PX",
    "SPLITS",
    "Family",
    "Kind",
    "Query",
    "Sample",
    "Scene",
    "SceneObject",
    "completion",
    "generate",
    "sample",
    "target_answer",
]
