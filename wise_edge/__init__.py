"""Image and sentence in, mask out: concise reasoning segmentation on edge devices.

The package holds what the stages share: the prompt, the answer, geometry, metrics, the bundle and the errors.
The stages are sub-packages (`training`, `export`, `runtimes`) that meet only in files and never import one another.
Importing this package imports nothing heavier than numpy and Pillow.
"""

from __future__ import annotations

__version__ = "0.1.0"
