"""Muon: momentum whose matrices are orthogonalized by Newton-Schulz iterations.

Follows https://kellerjordan.github.io/posts/muon/ with the update scale of https://arxiv.org/abs/2502.16982. Matrices
of equal shape are stacked, so a step costs a few batched products instead of a loop over parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, from the first link above."""


class Muon:
    """Muon for 2-D parameters, with the optimizer methods that a training loop uses.

    Args:
        params: matrices.
        momentum: Nesterov momentum.
        weight_decay: decoupled decay.
        products: type in which matrices are multiplied; a state that is loaded brings its own.
        iterations: Newton-Schulz iterations.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        momentum: float,
        weight_decay: float,
        products: torch.dtype = torch.float32,
        iterations: int = 5,
    ) -> None:
        self.products = products
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._iterations = iterations
        by_shape: dict[tuple[int, ...], list[Tensor]] = {}
        for parameter in params:
            by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
        self._groups = list(by_shape.values())
        self._buffers = [group[0].new_zeros(len(group), *group[0].shape) for group in self._groups]

    def step(self, lr: float) -> None:
        """Update every matrix that has a gradient.

        Args:
            lr: learning rate; the root mean square of an update is about 0.2 of it, as with AdamW.
        """
        with torch.no_grad():
            for group, buffer in zip(self._groups, self._buffers, strict=True):
                live = [i for i, parameter in enumerate(group) if parameter.grad is not None]
                if live:
                    self._step_group([group[i] for i in live], buffer, live, lr)

    def _step_group(self, group: list[Tensor], buffer: Tensor, live: list[int], lr: float) -> None:
        gradient = torch.stack([parameter.grad for parameter in group if parameter.grad is not None])
        momentum = buffer[live].lerp_(gradient, 1 - self._momentum)
        buffer[live] = momentum
        update = orthogonalize(gradient.lerp(momentum, self._momentum), self._iterations, self.products)
        scale = 0.2 * max(update.shape[-2:]) ** 0.5
        torch._foreach_mul_(group, 1 - lr * self._weight_decay)
        torch._foreach_add_(group, list(update.unbind(0)), alpha=-lr * scale)

    def state_dict(self) -> dict[str, Any]:
        """Return the momentum buffers and the name of the type of the products."""
        return {"buffers": self._buffers, "products": str(self.products).removeprefix("torch.")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; an older one has no type."""
        if "products" in state:
            self.products = getattr(torch, state["products"])
        for buffer, saved in zip(self._buffers, state["buffers"], strict=True):
            buffer.copy_(saved)


def orthogonalize(matrices: Tensor, iterations: int = 5, products: torch.dtype = torch.float32) -> Tensor:
    """Bring the singular values of matrices, float32 [N, rows, columns], near 1; multiply in the type `products`."""
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(products)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).float()
