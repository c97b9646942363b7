"""Synthetic images with exact masks, queries and rationales: what everything is trained and tested on."""

from wise_edge.scenes.completions import LEVEL_WEIGHTS, completion, target_answer, write_answer
from wise_edge.scenes.family import SHAPES, Family, Kind
from wise_edge.scenes.groups import GROUP_KINDS, GroupQuery
from wise_edge.scenes.queries import KINDS, Query
from wise_edge.scenes.rationales import LEVELS
from wise_edge.scenes.sampling import (
    SIDE_PX,
    SPLITS,
    GroupSample,
    Sample,
    Scene,
    SceneObject,
    generate,
    sample,
    sample_group,
)

__all__ = [
    "GROUP_KINDS",
    "KINDS",
    "LEVELS",
    "LEVEL_WEIGHTS",
    "SHAPES",
    "SIDE_PX",
    "SPLITS",
    "Family",
    "GroupQuery",
    "GroupSample",
    "Kind",
    "Query",
    "Sample",
    "Scene",
    "SceneObject",
    "completion",
    "generate",
    "sample",
    "sample_group",
    "target_answer",
    "write_answer",
]
