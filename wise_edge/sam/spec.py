"""The description of a segmenter that a runtime needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from wise_edge.ranges import ChannelDeviation, ChannelMean, Checked, Name, Side
from wise_edge.sam.families import STRETCHED, Family, find_family
from wise_edge.sam.video.memory import MemorySpec

MOST_PROMPTS = 16
"""Prompts of one call of a mask decoder, whose memory grows with them."""
_FIRST_FAMILIES = ("segment_anything", "sam2")
"""Those of every version that reads schema 4."""


@dataclass(frozen=True)
class SamSpec(Checked):
    """What a runtime must know about a segmenter.

    Attributes:
        family: name of a row of `wise_edge.sam.families`.
        input_size: side in pixels of the encoder's square input.
        low_res_size: side in pixels of the decoder's masks and of the mask prompt.
        pixel_mean: per-channel mean of images from 0 to 255.
        pixel_std: per-channel standard deviation of images from 0 to 255.
        multimask: whether to use the decoder's mask with the best score of three, as WISE's and Seg-Zero's reference
            code does, instead of its single mask.
        prompt_size: side in pixels of the square of the prompts and the masks, if it is not `input_size`.
        memory: what it remembers of objects in a video; None if it has no memory.
    """

    family: Name
    input_size: Side
    low_res_size: Side
    pixel_mean: tuple[ChannelMean, ChannelMean, ChannelMean]
    pixel_std: tuple[ChannelDeviation, ChannelDeviation, ChannelDeviation]
    multimask: bool
    prompt_size: Side | None = None
    memory: MemorySpec | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            find_family(self.family)
        except ValueError as error:
            raise ValueError(f"family: {error}") from error

    @property
    def row(self) -> Family:
        """The family's row in the table."""
        return find_family(self.family)

    @property
    def stretches(self) -> bool:
        """Whether images are stretched to the square; else they keep their proportions and are padded to it."""
        return self.row.layout == STRETCHED

    @property
    def prompt_side(self) -> int:
        """Side in pixels of the square of the prompts and the masks."""
        return self.prompt_size or self.input_size

    @property
    def is_new(self) -> bool:
        """Whether versions that read no later schema than 5 would misread it."""
        return self.family not in _FIRST_FAMILIES or self.prompt_size is not None or self.memory is not None

    @classmethod
    def describe(cls, family: str, architecture: Any, *, multimask: bool) -> SamSpec:
        """Return the description of a model with the sizes and the normalization of an architecture."""
        names = ("input_size", "low_res_size", "pixel_mean", "pixel_std")
        return cls(family=family, multimask=multimask, **{name: getattr(architecture, name) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data without what is None, which earlier versions do not know."""
        return {name: value for name, value in asdict(self).items() if value is not None}
