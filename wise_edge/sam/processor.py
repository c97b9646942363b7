"""How a segmenter's images are normalized: the settings of transformers' image processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wise_edge.policy.processor import find_settings, read_channels

PerChannel = tuple[float, float, float]

IMAGENET: Mapping[str, PerChannel] = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
"""Of the processors of the published SAM, SAM 2 and EdgeTAM, from 0 to 1."""


def read_normalization(
    checkpoint: Path, published: Mapping[str, PerChannel] = IMAGENET
) -> tuple[PerChannel, PerChannel]:
    """Return mean and standard deviation of R, G, B from 0 to 255.

    Args:
        checkpoint: a file or a Hugging Face folder.
        published: those of a file, and of a folder without a processor's settings, from 0 to 1.

    Raises:
        UsageError: the settings are malformed.
    """
    found = find_settings(checkpoint)
    mean, std = (
        published[name] if found is None else read_channels(*found, name) for name in ("image_mean", "image_std")
    )
    return _to_255(mean), _to_255(std)


def _to_255(channels: PerChannel) -> PerChannel:
    red, green, blue = (round(255.0 * value, 6) for value in channels)
    return red, green, blue
