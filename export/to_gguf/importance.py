"""The importance matrix: how strongly each column of a weight matrix is used.

llama.cpp's quantizer rounds columns with larger inputs more carefully. For each matrix it expects the mean square of
every input over calibration text. llama.cpp's own tool gathers it in its kernels; here hooks on the torch model do
(https://github.com/ggml-org/llama.cpp/blob/master/tools/imatrix/README.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wise_edge.errors import UsageError
from wise_edge.export.progress import Progress
from wise_edge.export.source.reference import Reference, TorchReference
from wise_edge.export.to_gguf import delta_net
from wise_edge.export.to_gguf.file import Change
from wise_edge.export.to_gguf.text import text_places
from wise_edge.policy.architecture import normalize_name


def measure_importance(
    torch_reference: TorchReference, references: Sequence[Reference], config: Mapping[str, Any], progress: Progress
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the mean square of the inputs of every matrix of the language model, by its name in the GGUF file.

    Args:
        torch_reference: the checkpoint.
        references: prompts with images and answers to run it over.
        config: its config, as a dictionary.
        progress: called with the share that is done.

    Raises:
        UsageError: there are no prompts.
    """
    if not references:
        raise UsageError("an importance matrix needs at least one calibration image")
    place = text_places(config)
    embedding = torch_reference.model.get_input_embeddings().weight
    sums: dict[str, Tensor] = {}
    changes: dict[str, Change | None] = {}
    rows = 0
    hooks = []
    for path, module in torch_reference.model.named_modules():
        source = normalize_name(f"{path}.weight")
        if not isinstance(module, torch.nn.Linear) or (found := place(source)) is None:
            continue
        name = found[0]
        if module.weight is embedding:  # the head
            name = "token_embd.weight"  # llama.cpp multiplies with that matrix
        sums[name] = torch.zeros(module.in_features, dtype=torch.float64)
        changes[name] = delta_net.change_of_inputs(source, config["text_config"])
        hooks.append(module.register_forward_pre_hook(_adder(sums[name])))
    try:
        for done, reference in enumerate(references, 1):
            rows += len(torch_reference.repeat(reference))
            progress("measuring the importance of columns", done / len(references))
    finally:
        for hook in hooks:
            hook.remove()
    means = {name: total / rows for name, total in sums.items()}
    ordered = {name: mean if (change := changes[name]) is None else change(mean) for name, mean in means.items()}
    return {name: mean.numpy().astype(np.float32) for name, mean in ordered.items()}


def _adder(total: Tensor) -> Any:
    def add(_: Any, inputs: tuple[Tensor, ...]) -> None:
        total.add_(inputs[0].detach().double().square().flatten(0, -2).sum(0))

    return add
