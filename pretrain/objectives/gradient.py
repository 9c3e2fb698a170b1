"""The identity whose gradient is scaled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` to the last bit; the gradient that comes back through it is multiplied by ``factor``.

    It is part of the graph of each micro-batch and linear in the gradient, so the sum over micro-batches is scaled once
    however many there are. Multiplying the accumulated ``.grad`` after each micro-batch would scale the first ones
    again and again. (AdamW divides a constant factor out again: there it shows in the clipped norm only.)
    """
    scaled: Tensor = _Scaled.apply(x, factor)  # type: ignore[no-untyped-call]
    return scaled
