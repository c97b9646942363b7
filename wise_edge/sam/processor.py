"""How a segmenter's images are normalized: the settings of transformers' image processor."""

from __future__ import annotations

from pathlib import Path

from wise_edge.policy.processor import find_settings, read_channels

PerChannel = tuple[float, float, float]

_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
"""Of the processors of the published SAM and SAM 2."""


def read_normalization(checkpoint: Path) -> tuple[PerChannel, PerChannel]:
    """Return mean and standard deviation of R, G, B from 0 to 255.

    Args:
        checkpoint: a Hugging Face folder; without a processor's settings, and for a file, they are ImageNet's.

    Raises:
        UsageError: the settings are malformed.
    """
    found = find_settings(checkpoint)
    mean, std = (
        _IMAGENET[name] if found is None else read_channels(*found, name) for name in ("image_mean", "image_std")
    )
    return _to_255(mean), _to_255(std)


def _to_255(channels: PerChannel) -> PerChannel:
    red, green, blue = (round(255.0 * value, 6) for value in channels)
    return red, green, blue
