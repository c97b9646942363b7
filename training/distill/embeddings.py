"""The teacher's image embeddings: computed once a picture, and kept on disk within a bound."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wise_edge.files.writing import atomic_write
from wise_edge.training.distill.pictures import Pictures


class Embeddings:
    """A teacher's embeddings in half precision, so that kept and fresh ones are equal.

    Args:
        teacher: the model.
        folder: where they are kept; it belongs to one teacher.
        most_bytes: what the folder may hold.
    """

    def __init__(self, teacher: Any, folder: Path, most_bytes: float) -> None:
        self._teacher = teacher
        self._folder = folder
        self._left = most_bytes - sum(file.stat().st_size for file in folder.glob("*.npy"))

    def find(self, pictures: Pictures) -> Tensor:
        """Return the embeddings of pictures, float32 [B, C, G, G], on the teacher's device."""
        device = next(self._teacher.parameters()).device
        pairs = zip(pictures.numbers, pictures.teacher, strict=True)
        return torch.stack([self._find(number, image, device) for number, image in pairs])

    def _find(self, number: int, image: np.ndarray[Any, Any], device: torch.device) -> Tensor:
        file = self._folder / f"{number}.npy"
        if number >= 0:
            try:
                return torch.from_numpy(np.load(file)).to(device).float()
            except (OSError, ValueError, EOFError):  # not kept, or damaged
                pass
        with torch.no_grad():  # one by one: a product of several pictures rounds otherwise
            found: Tensor = self._teacher.image_encoder(torch.from_numpy(image[None]).to(device))[0].half()
        if number >= 0:
            self._keep(file, found)
        return found.float()

    def _keep(self, file: Path, embedding: Tensor) -> None:
        buffer = io.BytesIO()
        np.save(buffer, embedding.cpu().numpy())
        size = buffer.tell()
        if size > self._left:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        atomic_write(file, buffer.getvalue(), force=True)
        self._left -= size
