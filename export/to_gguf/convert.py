"""A Qwen-VL policy as two GGUF files for llama.cpp: language model and vision tower."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from wise_edge.export.progress import Progress
from wise_edge.export.source.tensors import CheckpointTensors
from wise_edge.export.to_gguf import text as gguf_text
from wise_edge.export.to_gguf import vision as gguf_vision
from wise_edge.export.to_gguf.file import write_gguf
from wise_edge.export.to_gguf.limits import check_limits, check_norm_eps
from wise_edge.policy.architecture import load_config
from wise_edge.policy.folder import check_policy_folder
from wise_edge.policy.processor import read_image_settings


class PolicyGguf:
    """Converts one checkpoint.

    Args:
        folder: Hugging Face folder of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL model (dense), adapters merged.

    Raises:
        UsageError: the folder is incomplete, or llama.cpp cannot run the model or would run it incorrectly.
    """

    def __init__(self, folder: Path) -> None:
        check_policy_folder(folder)
        self._folder = folder
        self._config = read_config(folder)
        check_limits(folder, self._config)
        self._tensors = CheckpointTensors(folder)
        check_norm_eps(self._tensors, self._config)

    @property
    def family(self) -> str:
        """transformers' name of the architecture."""
        return str(self._config["model_type"])

    @property
    def lossless_type(self) -> str:
        """The smallest type that holds the stored matrices exactly: "F16", "BF16" or "F32"."""
        largest = max(self._tensors, key=lambda name: len(self._tensors.shape(name)))
        kinds = {torch.float16: "F16", torch.bfloat16: "BF16"}
        return kinds.get(self._tensors.read(largest).dtype, "F32")

    def check(self) -> None:
        """Raise `UsageError` if a tensor's name has no place in the files, which the writing would meet later."""
        gguf_text.text_entries(self._config, self._tensors, "F32")
        gguf_vision.vision_entries(self._config, self._tensors, "F32")

    def write_text(self, file: Path, file_type: str, progress: Progress) -> None:
        """Write the language model and the vocabulary, matrices of type F32, F16 or BF16.

        Raises:
            UsageError: a tensor is missing or unknown, or its values are not finite in the type.
        """
        entries = gguf_text.text_entries(self._config, self._tensors, file_type)
        describe = partial(gguf_text.describe_text, config=self._config, folder=self._folder, file_type=file_type)
        write_gguf(file, gguf_text.ARCHITECTURES[self.family], describe, entries, self._tensors, progress)

    def write_vision(self, file: Path, file_type: str, progress: Progress) -> None:
        """Write the vision tower; see `write_text`."""
        entries = gguf_vision.vision_entries(self._config, self._tensors, file_type)
        images = read_image_settings(self._folder, self._config["vision_config"])
        describe = partial(gguf_vision.describe_vision, config=self._config, images=images, file_type=file_type)
        write_gguf(file, gguf_vision.ARCHITECTURE, describe, entries, self._tensors, progress)


def read_config(folder: Path) -> dict[str, Any]:
    """Return transformers' config of a folder as a dictionary; see `load_config`."""
    config: dict[str, Any] = load_config(folder).to_dict()
    return config
