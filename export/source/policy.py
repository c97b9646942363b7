"""The policy that an export starts from: its folder, with the model and its answers loaded on demand."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from wise_edge.export.progress import Progress
from wise_edge.export.source.calibration import CalibrationSample
from wise_edge.export.source.reference import Reference, TorchReference
from wise_edge.policy.checkpoint import load_policy, read_policy_spec
from wise_edge.policy.spec import PolicySpec


class PolicyCheckpoint:
    """A checkpoint folder, adapters merged.

    A conversion to GGUF reads tensors one at a time. The model is loaded once, when graphs are traced, columns measured
    or answers compared.

    Args:
        folder: Hugging Face folder with `prompts.json`.
        samples: images and queries to answer.
        progress: called at each step.
        spec: what the policy expects, if the folder's own account does not count.

    Raises:
        UsageError: the folder does not hold a policy.
    """

    def __init__(
        self,
        folder: Path,
        samples: Sequence[CalibrationSample],
        progress: Progress,
        spec: PolicySpec | None = None,
    ) -> None:
        self.folder = folder
        self.spec = spec or read_policy_spec(folder)
        self.samples = samples
        self._progress = progress

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.folder / "tokenizer.json"

    @cached_property
    def model(self) -> Any:
        """The model in transformers, float32 on the CPU."""
        self._progress("loading the policy")
        return load_policy(self.folder)

    def release(self) -> None:
        """Free the model; the next use loads it again."""
        for name in ("model", "torch_reference"):
            self.__dict__.pop(name, None)
        gc.collect()

    @cached_property
    def torch_reference(self) -> TorchReference:
        """Answers with the model."""
        return TorchReference(self.model, self.spec, self.tokenizer)

    @cached_property
    def references(self) -> list[Reference]:
        """The model's answers to the samples."""
        answers = []
        for done, sample in enumerate(self.samples, 1):
            answers.append(self.torch_reference.answer(sample))
            self._progress("answering with torch", done / len(self.samples))
        return answers

    def answer_text(self, number: int) -> str:
        """Return the text of the model's answer to a sample."""
        return self.torch_reference.decode(self.references[number].completion)
